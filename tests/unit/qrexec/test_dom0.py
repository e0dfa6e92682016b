"""dom0's qrexec programs as processes, with agents and alone (qrexec-wire.md)."""

import os
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.dom0.client_options import UsageError, parse
from insula.dom0.ports import DataPorts
from insula.protocol.errors import ProtocolError
from insula.protocol.policy.wire import Question, parse_answer
from tests.serving import user
from tests.unit.qrexec.peer import (
    CONNECT,
    EXEC,
    HELLO,
    REFUSED,
    TERMINATED,
    TIMEOUT,
    TRIGGER4,
    Channel,
    connect,
    wait_for_socket,
)

ME = user()
HELLO3 = struct.pack("<III", 0x300, 4, 3)
WORK, VAULT = 42, 43


class Host:
    """dom0 with its sockets, and qubes that are processes."""

    def __init__(self, directory: Path, undo: ExitStack) -> None:
        self.directory, self._undo = directory, undo
        self.services = directory / "services"
        self.services.mkdir()
        self.policy = directory / "policy"
        self.environment = {
            **os.environ,
            "VCHAN_SOCKET_DIR": str(directory),
            "QREXEC_SERVICE_PATH": str(self.services),
            "QUBES_RPC_CONFIG_PATH": str(directory / "configs"),
            "INSULA_RUN": str(directory),
        }
        self.answer("deny")

    def answer(self, *lines: str) -> None:
        """What the policy says from now on."""
        text = "\n".join(lines if len(lines) > 1 else (f"result={lines[0]}",))
        self.policy.write_text(f"#!/bin/sh\necho \"$@\" >> {self.policy}.log\nprintf '{text}'\n")
        self.policy.chmod(0o755)

    def service(self, name: str, script: str) -> None:
        path = self.services / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def start(self, module: str, *words: str, domain: int = 0) -> "subprocess.Popen[bytes]":
        """A program of ours, ended with the test."""
        process = subprocess.Popen(
            [sys.executable, "-m", module, *words],
            env={**self.environment, "VCHAN_DOMAIN": str(domain)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._undo.callback(_end, process)
        return process

    def daemon(self, domain: int, name: str) -> "subprocess.Popen[bytes]":
        words = ("-D", f"--socket-dir={self.directory}", "-p", str(self.policy))
        uuid = f"00000000-0000-4000-8000-0000000000{domain}"
        return self.start(
            "insula.dom0.qrexec_daemon", *words, "--uuid", uuid, str(domain), name, ME
        )

    def qube(self, domain: int, name: str) -> None:
        """A qube's agent and its daemon, both up."""
        words = ("-a", str(self.directory / f"agent.{name}"), "-S")
        self.start("insula.guest.standalone", *words, domain=domain)
        self.daemon(domain, name)
        wait_for_socket(self.directory / f"agent.{name}")
        wait_for_socket(self.directory / f"qrexec.{name}")

    def client(self, *words: str, given: bytes = b"") -> tuple[int, bytes, bytes]:
        """qrexec-client: exit code, output and messages."""
        options = (f"--socket-dir={self.directory}", *words)
        return self._run("insula.dom0.qrexec_client", *options, given=given)

    def call(
        self, domain: int, name: str, target: str, service: str, given: bytes = b""
    ) -> tuple[int, bytes, bytes]:
        """A program of a qube calls a service."""
        words = ("-a", str(self.directory / f"agent.{name}"), target, service)
        return self._run("insula.guest.client_vm", *words, domain=domain, given=given)

    def _run(
        self, module: str, *words: str, given: bytes, domain: int = 0
    ) -> tuple[int, bytes, bytes]:
        done = subprocess.run(
            [sys.executable, "-m", module, *words],
            env={**self.environment, "VCHAN_DOMAIN": str(domain)},
            input=given, capture_output=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.communicate(timeout=TIMEOUT)


@pytest.fixture
def host() -> Iterator[Host]:
    with tempfile.TemporaryDirectory(prefix="qrexec-") as directory, ExitStack() as undo:
        yield Host(Path(directory), undo)


def test_dom0_runs_a_command_in_a_qube(host: Host) -> None:
    host.qube(WORK, "work")
    command = f"{ME}:tr a-z A-Z; echo oops >&2; exit 5"
    assert host.client("-d", "work", command, given=b"hi") == (5, b"HI", b"oops\n")
    assert host.client("-d", str(WORK), "-E", "DEFAULT:exit 5")[0] == 0
    assert host.client("-e", "-d", "work", f"{ME}:exit 5")[0] == 0
    command = "echo $QREXEC_REMOTE_DOMAIN; read line; echo got $line >&2"
    local = host.client("-d", "work", "-l", command, f"{ME}:cat")
    assert local == (0, b"", b"got work\n")
    assert host.client("-d", "work", f"{ME}:QUBESRPC test.Nothing dom0")[0] == 127
    assert host.client("-d", "nobody", f"{ME}:true")[0] == 125
    assert host.client("-d", "work")[0] == 1


def test_a_qube_calls_another(host: Host) -> None:
    host.qube(WORK, "work")
    host.qube(VAULT, "vault")
    host.service("test.Shout", "tr a-z A-Z; echo $QREXEC_REMOTE_DOMAIN $1 >&2; exit 3")
    assert host.call(WORK, "work", "vault", "test.Shout") == (126, b"", b"Request refused\n")
    assert Path(f"{host.policy}.log").read_text() == "-- work vault test.Shout\n"
    host.answer(
        "user=DEFAULT", "result=allow", "target=vault", "autostart=False", "requested_target=vault"
    )
    called = host.call(WORK, "work", "vault", "test.Shout+x", given=b"hi" * 50_000)
    assert called == (3, b"HI" * 50_000, b"work x\n")
    assert host.call(VAULT, "vault", "vault", "test.Shout", given=b"y")[1] == b"Y"


def test_a_qube_calls_dom0(host: Host) -> None:
    host.qube(WORK, "work")
    script = (
        'echo "$QREXEC_REMOTE_DOMAIN $QREXEC_REQUESTED_TARGET_TYPE '
        '$QREXEC_REQUESTED_TARGET_KEYWORD $1"; exit 2'
    )
    host.service("test.Who", script)
    host.answer(
        "user=root", "result=allow", "target=dom0", "autostart=True", "requested_target=@adminvm"
    )
    assert host.call(WORK, "work", "dom0", "test.Who+a") == (2, b"work keyword adminvm a\n", b"")
    assert host.call(WORK, "work", "dom0", "test.None")[0] == 127


def test_a_disposable_is_made_and_killed_by_the_admin_api(host: Host) -> None:
    host.qube(WORK, "work")
    host.qube(VAULT, "disp1")
    host.service("test.Echo", "cat")
    host.answer(
        "user=DEFAULT", "result=allow", "target=@dispvm:mould", "autostart=True",
        "requested_target=@dispvm",
    )  # fmt: skip
    with socket.socket(socket.AF_UNIX) as qubesd:
        qubesd.bind(str(host.directory / "qubesd.sock"))
        qubesd.listen()
        qubesd.settimeout(TIMEOUT)
        words = ("-a", str(host.directory / "agent.work"), "@dispvm", "test.Echo")
        client = host.start("insula.guest.client_vm", *words, domain=WORK)
        assert _asked(qubesd, b"0\0disp1") == b"admin.vm.CreateDisposable+ dom0 name mould\0"
        assert _asked(qubesd, b"0\0") == b"admin.vm.Start+ dom0 name disp1\0"
        assert client.communicate(b"once", timeout=TIMEOUT)[0] == b"once"
        assert _asked(qubesd, b"0\0") == b"admin.vm.Kill+ dom0 name disp1\0"


def _asked(qubesd: socket.socket, answer: bytes) -> bytes:
    connection, _ = qubesd.accept()
    with connection:
        connection.settimeout(TIMEOUT)
        asked = b""
        while more := connection.recv(4096):
            asked += more
        connection.sendall(answer)
    return asked


@contextmanager
def _alone(host: Host) -> Iterator[Channel]:
    """A daemon whose agent is the test."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(host.directory / f"vchan.{WORK}.0.512.sock"))
        listener.listen(1)
        listener.settimeout(TIMEOUT)
        host.daemon(WORK, "work")
        connection, _ = listener.accept()
    with connection:
        agent = Channel(connection)
        connection.sendall(struct.pack("<III", 0x300, 4, 9))
        assert agent.read() == (0x300, struct.pack("<I", 9))
        wait_for_socket(host.directory / "qrexec.work")
        yield agent


def _client(host: Host) -> Channel:
    client = Channel(connect(host.directory / f"qrexec.{WORK}"))
    assert client.read() == (0x300, struct.pack("<I", 3))
    client.connection.sendall(HELLO3)
    return client


def test_a_request_gets_a_port_and_the_default_user(host: Host) -> None:
    with _alone(host) as agent:
        client = _client(host)
        client.send(EXEC, bytes(8) + b"DEFAULT:ls -l\0")
        assert client.read() == (EXEC, struct.pack("<II", WORK, 513))
        text = f"{ME}:ls -l".encode() + b"\0"
        assert agent.read() == (EXEC, struct.pack("<II", 0, 513) + text)
        agent.send(TERMINATED, struct.pack("<II", 1, 513))
        agent.send(TERMINATED, struct.pack("<II", 0, 513))
        assert client.read() is None
        client.connection.close()


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack("<IIII", EXEC, 8, 0, 0),
        struct.pack("<IIII", EXEC, 9, 0, 0) + b"x",
        struct.pack("<IIII", EXEC, 10, 0, 9) + b"x\0",
        struct.pack("<II", EXEC, 65_536),
        struct.pack("<IIII", 0x213, 10, 0, 0) + b"x\0",
        struct.pack("<IIII", CONNECT, 40, 0, 513) + b"SOCKET9".ljust(32, b"\0"),
    ],
)
def test_what_is_no_request_closes_the_socket(host: Host, sent: bytes) -> None:
    with _alone(host):
        client = _client(host)
        client.connection.sendall(sent)
        assert client.read() is None
        client.connection.close()
        again = _client(host)
        again.connection.close()


@pytest.mark.parametrize(
    ("request_id", "service"),
    [(b"SOCKET/1", b"test.A\0"), (b"SOCKET1", b"+x\0"), (b"SOCKET1", b"a\0b\0"), (b"", b"x")],
)
def test_what_no_policy_need_see_is_refused(host: Host, request_id: bytes, service: bytes) -> None:
    with _alone(host) as agent:
        padded = request_id.ljust(32, b"\0")
        agent.send(TRIGGER4, bytes(64) + b"vault".ljust(64, b"\0") + padded + service)
        assert agent.read() == (REFUSED, padded)
    assert not Path(f"{host.policy}.log").exists()


def test_names_are_made_harmless_before_they_are_judged(host: Host) -> None:
    with _alone(host) as agent:
        padded = b"SOCKET1".ljust(32, b"\0")
        target = b"va ult".ljust(64, b"\0")
        agent.send(TRIGGER4, bytes(64) + target + padded + b"ac me/Ping+a*b\0")
        assert agent.read() == (REFUSED, padded)
    assert Path(f"{host.policy}.log").read_text() == "-- work va_ult ac_me_Ping+a_b\n"


def test_ports_of_two_qubes_never_meet() -> None:
    low, high = DataPorts(1), DataPorts(2)
    assert low.take(2) == 514
    assert high.take(1) == 513
    assert [low.take(0), low.take(0)] == [513, 515]
    assert not low.release(0, 514)
    assert low.release(2, 514)
    assert low.take(0) == 514


def test_what_is_asked_reads_as_it_was() -> None:
    asked = Question(source="relay-a", target="vault", called="acme.Ping+x", requested_source="far")
    assert Question.decode(asked.encode().removesuffix(b"\n")) == asked
    for bad in (b"source=a", b"source=a\nsource=b", b"x=y", b"source", b"\xff=1"):
        with pytest.raises(ProtocolError):
            Question.decode(bad)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\nresult=deny",
        b"result=maybe",
        b"result=deny\nresult=deny",
        b"result=deny\nuser=x",
        b"result=allow\nuser=x\ntarget=y\nrequested_target=y",
        b"result=allow\nuser=x\ntarget=y\nrequested_target=y\nautostart=yes",
        b"result=deny\0",
        b"result=deny\n\n",
        b"result=deny\nx=" + b"y" * 4096,
    ],
)
def test_a_malformed_answer_is_none(text: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_answer(text)


def test_a_denial_is_one() -> None:
    assert parse_answer(b"result=deny\nfurther=x\n") is None


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_none(text: bytes) -> None:
    try:
        parse_answer(text)
    except ProtocolError:
        return


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["-d", "x"],
        ["-d", "x", "-e", "-l", "y", "z"],
        ["-d", "x", "-c", "a,b", "z"],
        ["-d", "x", "-c", "a,b,0", "z"],
        ["-d", "x", "-w", "soon", "z"],
        ["-d", "x", "--use-stdin-socket", "-l", "y", "z"],
    ],
)
def test_words_that_do_not_go_together_are_a_usage_error(words: list[str]) -> None:
    with pytest.raises(UsageError):
        parse(words)


def test_hello_of_a_daemon_is_of_version_three(host: Host) -> None:
    with _alone(host):
        client = Channel(connect(host.directory / "qrexec.work"))
        assert client.read() == (0x300, struct.pack("<I", 3))
        client.connection.sendall(HELLO[:8] + struct.pack("<I", 2))
        assert client.read() is None
        client.connection.close()
