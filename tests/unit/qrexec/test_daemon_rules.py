"""qrexec-daemon against the rules of qrexec-wire.md sections 4, 5 and 10, each by itself."""

import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.unit.qrexec.peer import (
    CONNECT,
    EXEC,
    EXIT,
    HELLO,
    JUST_EXEC,
    REFUSED,
    STDERR,
    STDOUT,
    TERMINATED,
    TIMEOUT,
    TRIGGER4,
    Channel,
    Message,
    wait_for_socket,
)
from tests.unit.qrexec.place import HELLO3, UUID, Place, exactly, place, rest

PORT = struct.Struct("<II")
ID = b"SOCKET7".ljust(32, b"\0")
TRIGGER3, TRIGGER2 = 0x212, 0x210


@pytest.fixture
def here() -> Iterator[Place]:
    with place() as made:
        yield made


def trigger(service: bytes, target: bytes = b"vault", request_id: bytes = ID) -> bytes:
    """A body of TRIGGER_SERVICE4 without a source."""
    return bytes(64) + target.ljust(64, b"\0") + request_id.ljust(32, b"\0") + service


@pytest.mark.parametrize(
    "greeting",
    [
        struct.pack("<III", 0x300, 4, 1),
        struct.pack("<II", 0x300, 5),
        struct.pack("<II", 0x301, 4),
        struct.pack("<II", 0x200, 65_000),
    ],
)
def test_an_agent_that_greets_otherwise_is_an_error(here: Place, greeting: bytes) -> None:
    listener = here.listen("vchan.42.0.512.sock")
    words = ("-D", f"--socket-dir={here.directory}", "-u", UUID.format(42), "42", "work")
    daemon = here.start("qrexec-daemon", *words)
    agent = here.accept(listener)
    agent.connection.sendall(greeting)
    assert rest(agent) == b""
    assert daemon.wait(TIMEOUT) == 1


@pytest.mark.parametrize(
    ("version", "head"),
    [
        (4, struct.pack("<II", TRIGGER2, 128)),
        (4, struct.pack("<II", TRIGGER4, 160)),
        (4, struct.pack("<II", TRIGGER4, 65_161)),
        (4, struct.pack("<II", TRIGGER3, 65_097)),
        (4, struct.pack("<II", 0x300, 4)),
        (4, struct.pack("<II", TERMINATED, 9)),
        (4, struct.pack("<IIII", TERMINATED, 8, 0, 512)),
        (4, struct.pack("<IIII", TERMINATED, 8, 0, 769)),
        (3, struct.pack("<II", TRIGGER4, 170)),
        (3, struct.pack("<II", TRIGGER2, 128)),
        (2, struct.pack("<II", TRIGGER3, 100)),
        (2, struct.pack("<II", TRIGGER2, 129)),
    ],
)
def test_what_no_agent_says_ends_the_daemon_at_its_header(
    here: Place, version: int, head: bytes
) -> None:
    listener = here.listen("vchan.42.0.512.sock")
    words = ("-D", f"--socket-dir={here.directory}", "-u", UUID.format(42), "42", "work")
    daemon = here.start("qrexec-daemon", *words)
    agent = here.accept(listener)
    agent.connection.sendall(struct.pack("<III", 0x300, 4, version))
    assert exactly(agent, 12) == struct.pack("<III", 0x300, 4, version)
    agent.connection.sendall(head)
    assert daemon.wait(TIMEOUT) == 1
    assert not (here.directory / "qrexec.42").exists()


@pytest.mark.parametrize(
    "said",
    [
        HELLO3[:8] + struct.pack("<I", 2),
        struct.pack("<II", 0x300, 8),
        struct.pack("<II", EXEC, 60_000),
        HELLO3 + struct.pack("<II", EXEC, 8),
        HELLO3 + struct.pack("<II", EXEC, 65_536),
        HELLO3 + struct.pack("<II", 0x203, 32),
        HELLO3 + struct.pack("<II", 0x300, 40),
        HELLO3 + struct.pack("<IIII", EXEC, 10, 0, 512) + b"a\0",
        HELLO3 + struct.pack("<IIII", EXEC, 10, 0, 0) + b"\0a",
        HELLO3 + struct.pack("<IIII", CONNECT, 40, 0, 0) + ID,
    ],
)
def test_a_client_that_is_none_is_closed_at_its_header(here: Place, said: bytes) -> None:
    agent = here.daemon(42, "work")
    client = here.connect("qrexec.42")
    client.connection.sendall(said)
    assert rest(client) == HELLO3
    here.client("work").send(EXEC, PORT.pack(0, 0) + b"a:b\0")
    assert agent.read() == (EXEC, PORT.pack(0, 513) + b"a:b\0")


def test_a_newer_client_is_as_good(here: Place) -> None:
    agent = here.daemon(42, "work")
    client = here.connect("qrexec.uuid:" + UUID.format(42))
    client.connection.sendall(HELLO)
    client.send(JUST_EXEC, PORT.pack(0, 0) + b"DEFAULTS:b\0")
    assert exactly(client, 12) == HELLO3
    assert client.read() == (JUST_EXEC, PORT.pack(42, 513))
    assert agent.read() == (JUST_EXEC, PORT.pack(0, 513) + b"DEFAULTS:b\0")


def test_a_client_is_silent_after_its_request(here: Place) -> None:
    agent = here.daemon(42, "work")
    client = here.client("work")
    client.send(EXEC, PORT.pack(0, 0) + b"a:b\0")
    assert client.read() == (EXEC, PORT.pack(42, 513))
    assert agent.read() is not None
    client.connection.sendall(b"x")
    assert rest(client) == b""


def test_a_client_may_name_its_port(here: Place) -> None:
    agent = here.daemon(42, "work")
    client = here.client("work")
    client.send(EXEC, PORT.pack(7, 768) + b"a:b\0")
    assert agent.read() == (EXEC, PORT.pack(7, 768) + b"a:b\0")
    agent.send(TERMINATED, PORT.pack(7, 768))
    again = here.client("work")
    again.send(EXEC, PORT.pack(43, 0) + b"a:b\0")
    assert again.read() == (EXEC, PORT.pack(42, 514))
    client.connection.close()


def test_ports_run_out_and_come_back(here: Place) -> None:
    agent = here.daemon(42, "work")
    for number in range(128):
        client = here.client("work")
        client.send(EXEC, PORT.pack(7, 0) + b"a:b\0")
        assert client.read() == (EXEC, PORT.pack(42, 513 + 2 * number))
        assert agent.read() == (EXEC, PORT.pack(7, 513 + 2 * number) + b"a:b\0")
    client = here.client("work")
    client.send(EXEC, PORT.pack(7, 0) + b"a:b\0")
    assert rest(client) == b""
    agent.send(TERMINATED, PORT.pack(8, 515))
    agent.send(TERMINATED, PORT.pack(7, 515))
    agent.send(TERMINATED, PORT.pack(7, 515))
    agent.send(TRIGGER4, trigger(b"+"))
    assert agent.read() == (REFUSED, ID)
    client = here.client("work")
    client.send(EXEC, PORT.pack(7, 0) + b"a:b\0")
    assert client.read() == (EXEC, PORT.pack(42, 515))


def test_an_agent_that_hears_no_answer_is_not_heard(here: Place) -> None:
    agent = here.daemon(42, "work")
    agent.connection.setblocking(False)
    request = struct.pack("<II", TRIGGER4, 162) + trigger(b"+\0")
    sent, deadline = 0, time.monotonic() + TIMEOUT
    with suppress(BlockingIOError):
        while sent < 256 << 20 and time.monotonic() < deadline:
            try:
                sent += agent.connection.send(request * 64)
            except BlockingIOError:
                if not select.select([], [agent.connection], [], 1)[1]:
                    raise
    assert sent < 16 << 20
    agent.connection.settimeout(TIMEOUT)
    for _ in range(sent // len(request)):
        assert agent.read() == (REFUSED, ID)


def asked(here: Place, body: bytes, kind: int = TRIGGER4, version: int = 4) -> bytes:
    """What the policy is asked about a request, which it then refuses."""
    policy = here.listen("policy.sock")
    agent = here.daemon(42, "work", version=version)
    agent.send(kind, body)
    asking = here.accept(policy)
    question = b""
    while not question.endswith(b"\n\n"):
        question += asking.connection.recv(70_000)
    asking.connection.sendall(b"result=deny\n")
    asking.connection.close()
    assert agent.read() is not None
    return question


@pytest.mark.parametrize(
    ("body", "target", "service"),
    [
        (trigger(b"a.B\0"), b"vault", b"a.B"),
        (trigger(b"a.B+\0"), b"vault", b"a.B+"),
        (trigger(b"a/../b+c d+\xff\n\0"), b"vault", b"a_.._b+c_d+__"),
        (trigger(b"a.B\0", b"@dispvm:x y/$"), b"@dispvm:x_y__", b"a.B"),
        (trigger(b"a.B\0", b"x" * 64), b"x" * 63, b"a.B"),
        (trigger(b"a.B\0", b"x\0y"), b"x", b"a.B"),
        (trigger(b"a.B\0", b""), b"", b"a.B"),
        (trigger(b"a.B\0", b"x+y"), b"x_y", b"a.B"),
        (trigger(b"a.B\0", request_id=b""), b"vault", b"a.B"),
        (trigger(b"a" * 64_999 + b"\0"), b"vault", b"a" * 64_999),
    ],
)
def test_names_are_cleaned_before_they_are_judged(
    here: Place, body: bytes, target: bytes, service: bytes
) -> None:
    said = asked(here, body)
    assert said == (
        b"source=work\nrequested_source=\nintended_target=%b\nservice_and_arg=%b\n\n"
        % (target, service)
    )


def test_a_source_is_cleaned_like_a_target(here: Place) -> None:
    body = b"far work".ljust(63, b"\0") + b"x" + trigger(b"a.B\0")[64:]
    assert b"requested_source=far_work\n" in asked(here, body)


def test_a_third_kind_of_request_has_no_source(here: Place) -> None:
    body = b"vault".ljust(64, b"\0") + ID + b"a.B\0"
    said = asked(here, body, TRIGGER3)
    assert said == b"source=work\nintended_target=vault\nservice_and_arg=a.B\n\n"


def test_the_oldest_kind_is_cleaned_and_cut(here: Place) -> None:
    body = b"a.B/" + b"x" * 60 + b"v" * 32 + ID
    said = asked(here, body, TRIGGER2, version=2)
    service, target = b"a.B_" + b"x" * 59, b"v" * 31
    assert said == b"source=work\nintended_target=%b\nservice_and_arg=%b\n\n" % (target, service)


@pytest.mark.parametrize(
    ("body", "request_id"),
    [
        (trigger(b"\0"), ID),
        (trigger(b"+a\0"), ID),
        (trigger(b"a"), ID),
        (trigger(b"a\0b\0"), ID),
        (trigger(b"a\0", request_id=b"x" * 32), b"x" * 32),
        (trigger(b"a\0", request_id=b"x\0y"), b"x\0y".ljust(32, b"\0")),
        (trigger(b"a\0", request_id=b"x@"), b"x@".ljust(32, b"\0")),
    ],
)
def test_what_is_not_judged_is_refused_as_it_came(
    here: Place, body: bytes, request_id: bytes
) -> None:
    agent = here.daemon(42, "work")
    agent.send(TRIGGER4, body)
    assert agent.read() == (REFUSED, request_id)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\nresult=deny",
        b"result=maybe",
        b"result=allow\nuser=u\ntarget=dom0\nrequested_target=dom0",
        b"result=allow\nuser=u\ntarget=dom0\nrequested_target=dom0\nautostart=true",
        b"result=deny\nresult=deny",
        b"result=deny\0",
        b"result=deny\ntarget=x",
        b"result=deny\nx",
        b"result=deny\nx=" + b"y" * 4090,
    ],
)
def test_a_malformed_answer_has_the_fallback_asked(here: Place, answer: bytes) -> None:
    here.fallback(f'echo "$@" > {here.directory}/asked; echo result=deny')
    policy = here.listen("policy.sock")
    agent = here.daemon(42, "work")
    agent.send(TRIGGER4, trigger(b"a.B+c\0", b""))
    asking = here.accept(policy)
    asking.connection.sendall(answer)
    asking.connection.close()
    assert agent.read() == (REFUSED, ID)
    assert (here.directory / "asked").read_text() == "-- work  a.B+c\n"


@pytest.mark.parametrize("script", ["exit 1", "echo result=allow", "kill -9 $$", "echo"])
def test_a_fallback_that_does_not_say_is_a_refusal(here: Place, script: str) -> None:
    here.fallback(script)
    agent = here.daemon(42, "work")
    agent.send(TRIGGER4, trigger(b"a.B\0"))
    assert agent.read() == (REFUSED, ID)


def test_a_fallback_may_allow(here: Place) -> None:
    here.service("a.B", "exit 3")
    lines = ("result=allow", "user=x", "target=@adminvm", "requested_target=w", "autostart=False")
    here.fallback("test -S /proc/self/fd/0 || exit 1; printf '%s\\n' " + " ".join(lines))
    agent = here.daemon(42, "work")
    agent.send(TRIGGER4, trigger(b"a.B\0"))
    assert agent.read() == (CONNECT, PORT.pack(0, 513) + ID)


def in_dom0(here: Place, *lines: str, asked: str = "@adminvm") -> Channel:
    """The channel of a call of a.B+c that dom0 serves; nothing was said yet."""
    told = ("result=allow", "user=nobody", "target=dom0", f"requested_target={asked}", *lines)
    here.fallback("printf '%s\\n' autostart=False " + " ".join(told))
    agent = here.daemon(42, "work")
    agent.send(TRIGGER4, trigger(b"a.B+c\0"))
    assert agent.read() == (CONNECT, PORT.pack(0, 513) + ID)
    return here.accept(here.listen("vchan.42.0.513.sock"))


def served(channel: Channel) -> list[Message]:
    channel.connection.sendall(HELLO)
    assert exactly(channel, 12) == HELLO
    return channel.all()


def test_dom0_waits_for_the_other_greeting(here: Place) -> None:
    here.service("a.B", "true")
    channel = in_dom0(here)
    channel.connection.settimeout(0.3)
    with pytest.raises(TimeoutError):
        channel.connection.recv(1)
    channel.connection.settimeout(TIMEOUT)
    assert served(channel)[-1] == (EXIT, bytes(4))


@pytest.mark.parametrize(
    ("target", "kind", "name", "keyword"),
    [
        ("@dispvm:web", "keyword", "unset", "dispvm:web"),
        ("dom0", "name", "dom0", "unset"),
        ("@default", "keyword", "unset", "default"),
    ],
)
def test_a_service_of_dom0_knows_what_was_to_be_reached(
    here: Place, target: str, kind: str, name: str, keyword: str
) -> None:
    script = (
        'echo "$1 $QREXEC_REMOTE_DOMAIN $QREXEC_SERVICE_FULL_NAME $QREXEC_SERVICE_ARGUMENT '
        "$QREXEC_REQUESTED_TARGET_TYPE ${QREXEC_REQUESTED_TARGET-unset} "
        '${QREXEC_REQUESTED_TARGET_KEYWORD-unset}"; echo gone >&2; exit 4'
    )
    here.service("a.B", script)
    text = f"c work a.B+c c {kind} {name} {keyword}\n".encode()
    said = served(in_dom0(here, asked=target))
    assert said == [(STDERR, b""), (STDOUT, text), (STDOUT, b""), (EXIT, struct.pack("<i", 4))]


def test_dom0_names_another_source_where_the_policy_does(here: Place) -> None:
    here.service("a.B", 'echo "$QREXEC_REMOTE_DOMAIN"')
    assert (STDOUT, b"far\n") in served(in_dom0(here, "policy_source=far"))


def test_a_policy_may_name_another_service(here: Place) -> None:
    here.service("a.C", 'echo "$QREXEC_SERVICE_FULL_NAME"')
    assert (STDOUT, b"a.C+\n") in served(in_dom0(here, "service=a.C"))


def no_service(here: Place) -> None:
    here.service("a.C", "true")


def broken_configuration(here: Place) -> None:
    here.service("a.B", "true")
    (here.configs / "a.B").write_text("nonsense\n")


def no_interpreter(here: Place) -> None:
    here.service("a.B", "true")
    (here.services / "a.B").write_text("#!/nowhere/at/all\n")


def no_program(here: Place) -> None:
    (here.services / "a.B").write_text("#!/bin/sh\n")


def a_directory(here: Place) -> None:
    (here.services / "a.B").mkdir()


def no_address(here: Place) -> None:
    (here.services / "a.B").symlink_to("/dev/tcp/")


@pytest.mark.parametrize(
    ("prepare", "code"),
    [
        (no_service, 127),
        (broken_configuration, 125),
        (no_interpreter, 127),
        (no_program, 125),
        (a_directory, 125),
        (no_address, 125),
    ],
)
def test_a_service_of_dom0_that_cannot_be_started(
    here: Place, prepare: Callable[[Place], None], code: int
) -> None:
    prepare(here)
    said = served(in_dom0(here))
    assert said == [(STDERR, b""), (STDOUT, b""), (EXIT, struct.pack("<i", code))]


def allow(here: Place, *lines: str) -> None:
    told = ("result=allow", "user=DEFAULT", *lines)
    here.fallback("printf '%s\\n' " + " ".join(told))


def test_a_target_that_does_not_run_is_started_where_that_is_allowed(here: Place) -> None:
    qubesd = here.listen("qubesd.sock")
    agent = here.daemon(42, "work")
    target = ("target=vault", "requested_target=vault", "target_uuid=uuid:" + UUID.format(77))
    allow(here, "autostart=False", *target)
    agent.send(TRIGGER4, trigger(b"a.B\0"))
    assert agent.read() == (REFUSED, ID)
    for answer, found in (
        (b"0\0", CONNECT),
        (NOT_HALTED, CONNECT),
        (b"2\0QubesException\0", REFUSED),
    ):
        allow(here, "autostart=True", *target)
        agent.send(TRIGGER4, trigger(b"a.B\0"))
        asking = here.accept(qubesd)
        assert rest(asking) == b"admin.vm.Start+ dom0 name uuid:" + UUID.format(77).encode() + b"\0"
        daemon = here.listen("qrexec.uuid:" + UUID.format(77)) if found == CONNECT else None
        asking.connection.sendall(answer)
        asking.connection.close()
        if daemon is not None:
            target_daemon(here, daemon, b"DEFAULT:QUBESRPC a.B+ work\0").connection.close()
            daemon.close()
            (here.directory / ("qrexec.uuid:" + UUID.format(77))).unlink()
        expected = PORT.pack(77, 600) + ID if found == CONNECT else ID
        assert agent.read() == (found, expected)


NOT_HALTED = b"2\0QubesVMNotHaltedError\0\0it runs\0"


def target_daemon(here: Place, listener: socket.socket, command: bytes) -> Channel:
    """Be the daemon of the qube 77 for a call, and give it the port 600."""
    client = here.accept(listener)
    client.connection.sendall(HELLO3)
    assert exactly(client, 12) == HELLO3
    assert client.read() == (EXEC, PORT.pack(42, 0) + command)
    client.send(EXEC, PORT.pack(77, 600))
    return client


def test_a_disposable_lives_for_its_call(here: Place) -> None:
    qubesd, daemon = here.listen("qubesd.sock"), here.listen("qrexec.disp7")
    agent = here.daemon(42, "work")
    allow(here, "autostart=True", "target=@dispvm:web", "requested_target=@dispvm")
    agent.send(TRIGGER4, trigger(b"a.B+c\0"))
    for asked, answer in (
        (b"admin.vm.CreateDisposable+ dom0 name web\0", b"0\0disp7"),
        (b"admin.vm.Start+ dom0 name disp7\0", b"0\0"),
    ):
        asking = here.accept(qubesd)
        assert rest(asking) == asked
        asking.connection.sendall(answer)
        asking.connection.close()
    client = target_daemon(here, daemon, b"DEFAULT:QUBESRPC a.B+c work\0")
    assert agent.read() == (CONNECT, PORT.pack(77, 600) + ID)
    qubesd.settimeout(0.3)
    with pytest.raises(TimeoutError):
        qubesd.accept()
    qubesd.settimeout(TIMEOUT)
    client.connection.close()
    assert rest(here.accept(qubesd)) == b"admin.vm.Kill+ dom0 name disp7\0"


def test_a_disposable_that_does_not_start_is_killed(here: Place) -> None:
    qubesd = here.listen("qubesd.sock")
    agent = here.daemon(42, "work")
    uuid = "uuid:" + UUID.format(7)
    allow(here, "autostart=True", "target=@dispvm:web", f"target_uuid=@dispvm:{uuid}",
          "requested_target=@dispvm")  # fmt: skip
    agent.send(TRIGGER4, trigger(b"a.B+c\0"))
    made = ("uuid:" + UUID.format(8)).encode()
    for asked, answer in (
        (b"admin.vm.CreateDisposable+ dom0 name %b\0uuid" % uuid.encode(), b"0\0" + made),
        (b"admin.vm.Start+ dom0 name %b\0" % made, b"2\0QubesException\0\0no\0"),
        (b"admin.vm.Kill+ dom0 name %b\0" % made, b"0\0"),
    ):
        asking = here.accept(qubesd)
        assert rest(asking) == asked
        asking.connection.sendall(answer)
        asking.connection.close()
    assert agent.read() == (REFUSED, ID)


def test_one_call_is_connected_once(here: Place) -> None:
    policy = here.listen("policy.sock")
    agent = here.daemon(42, "work")
    agent.send(TRIGGER4, trigger(b"a.B+c\0"))
    asking = here.accept(policy)
    client = here.client("work")
    client.send(CONNECT, PORT.pack(0, 0) + b"SOCKET7\0")
    assert client.read() == (CONNECT, PORT.pack(42, 513))
    assert agent.read() == (CONNECT, PORT.pack(0, 513) + b"SOCKET7\0")
    again = here.client("work")
    again.send(CONNECT, PORT.pack(0, 0) + ID)
    assert rest(again) == b""
    asking.connection.sendall(b"result=deny")
    asking.connection.close()
    agent.send(TRIGGER4, trigger(b"+"))
    assert agent.read() == (REFUSED, ID)


def test_an_agent_may_come_back(here: Place) -> None:
    agent = here.daemon(42, "work")
    listener = here.listen("vchan.42.0.512.sock")
    client = here.client("work")
    client.send(EXEC, PORT.pack(0, 0) + b"a:b\0")
    assert client.read() == (EXEC, PORT.pack(42, 513))
    agent.connection.close()
    assert rest(client) == b""
    agent = here.accept(listener)
    assert not (here.directory / "qrexec.work").exists()
    agent.connection.sendall(HELLO)
    assert exactly(agent, 12) == HELLO
    wait_for_socket(here.directory / "qrexec.work")
    client = here.client("work")
    client.send(EXEC, PORT.pack(0, 0) + b"a:b\0")
    assert client.read() == (EXEC, PORT.pack(42, 514))


def test_links_are_relative_and_gone_with_the_daemon(here: Place) -> None:
    listener = here.listen("vchan.42.0.512.sock")
    words = ("-D", f"--socket-dir={here.directory}", "--uuid=" + UUID.format(42), "42", "work")
    daemon = here.start("qrexec-daemon", *words)
    agent = here.accept(listener)
    agent.connection.sendall(HELLO)
    wait_for_socket(here.directory / "qrexec.work")
    links = [here.directory / f"qrexec.{name}" for name in ("work", f"uuid:{UUID.format(42)}")]
    assert [str(link.readlink()) for link in links] == ["qrexec.42"] * 2
    daemon.terminate()
    daemon.wait(TIMEOUT)
    assert not any(link.is_symlink() for link in links)
    assert not (here.directory / "qrexec.42").exists()


def test_without_an_agent_the_time_is_over(here: Place) -> None:
    words = (f"--socket-dir={here.directory}", "-u", UUID.format(42), "42", "work")
    soon = {"QREXEC_STARTUP_TIMEOUT": "1"}
    daemon = here.start("qrexec-daemon", *words, environment=soon)
    assert daemon.wait(TIMEOUT) == 3
    silent = here.listen("vchan.42.0.512.sock")
    daemon = here.start("qrexec-daemon", *words, environment=soon)
    connection, _ = silent.accept()
    assert daemon.wait(TIMEOUT) == 3
    connection.close()


@pytest.mark.parametrize("words", [["-h"], ["42", "work"], ["--no-such-option"], ["-u", "x", "42"]])
def test_a_usage_error_of_the_daemon_is_1(here: Place, words: list[str]) -> None:
    assert here.run("qrexec-daemon", *words)[0] == 1
