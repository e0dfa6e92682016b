"""The agent as a program of its own, by the bytes that it says (qrexec-wire.md)."""

import socket
import struct
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.serving import user
from tests.unit.qrexec.peer import (
    CONNECT,
    EXIT,
    HELLO,
    JUST_EXEC,
    REFUSED,
    STDERR,
    STDIN,
    STDOUT,
    TERMINATED,
    TIMEOUT,
    TRIGGER4,
    Channel,
    Peer,
    connect,
    output,
)

ME = user()


@pytest.fixture
def peer() -> Iterator[Peer]:
    with tempfile.TemporaryDirectory(prefix="qrexec-") as directory:
        made = Peer(Path(directory))
        with made.undo:
            yield made


def code(number: int) -> tuple[int, bytes]:
    return EXIT, struct.pack("<i", number)


def test_a_command_gets_input_and_gives_output_errors_and_its_code(peer: Peer) -> None:
    with peer.agent() as control:
        with peer.call(control, f"{ME}:tr a-z A-Z; echo bad >&2; exit 3") as channel:
            channel.send(STDIN, b"hello")
            channel.send(STDIN)
            said = channel.all()
        assert output(said) == b"HELLO"
        assert output(said, STDERR) == b"bad\n"
        assert said[-1] == code(3)
        assert (STDOUT, b"") in said
        assert (STDERR, b"") in said
        assert control.read() == (TERMINATED, struct.pack("<II", 0, 513))


def test_a_service_knows_its_caller_and_its_argument(peer: Peer) -> None:
    peer.service("test.Who", 'echo "$1" "$QREXEC_REMOTE_DOMAIN" "$QREXEC_SERVICE_FULL_NAME"')
    command = f"{ME}:QUBESRPC test.Who+a-b work"
    with peer.agent() as control, peer.call(control, command) as channel:
        said = channel.all()
    assert output(said) == b"a-b work test.Who+a-b\n"
    assert said[-1] == code(0)


def test_a_signal_counts_from_128(peer: Peer) -> None:
    with peer.agent() as control, peer.call(control, f"{ME}:kill -KILL $$") as channel:
        assert channel.all()[-1] == code(137)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (f"{ME}:QUBESRPC test.Nothing work", 127),
        (f"{ME}:QUBESRPC", 125),
        (f"{ME}:QUBESRPC  test.Nothing work", 125),
        ("no command", 125),
        ("nobody-of-that-name:true", 125),
    ],
)
def test_what_cannot_be_run_ends_both_streams_and_says_so(
    peer: Peer, text: str, number: int
) -> None:
    with peer.agent() as control, peer.call(control, text) as channel:
        assert channel.all() == [(STDOUT, b""), (STDERR, b""), code(number)]


def test_a_broken_configuration_is_no_reason_not_to_answer(peer: Peer) -> None:
    peer.service("test.Who", "echo hi")
    (peer.configs / "test.Who").write_text("wait-for-session = maybe\n")
    with peer.agent() as control, peer.call(control, f"{ME}:QUBESRPC test.Who work") as channel:
        assert channel.all()[-1] == code(125)


def test_just_exec_tells_only_whether_it_started(peer: Peer) -> None:
    peer.service("test.Quiet", "echo hi")
    with peer.agent() as control:
        command = f"{ME}:QUBESRPC test.Quiet work"
        with peer.call(control, command, kind=JUST_EXEC) as channel:
            assert channel.all() == [code(0)]
        assert control.read() == (TERMINATED, struct.pack("<II", 0, 513))
        command = f"{ME}:QUBESRPC test.Nothing work"
        with peer.call(control, command, kind=JUST_EXEC) as channel:
            assert channel.all() == [code(127)]


def test_output_of_a_caller_is_input_and_other_kinds_are_dropped(peer: Peer) -> None:
    with peer.agent() as control, peer.call(control, f"{ME}:cat") as channel:
        channel.send(STDOUT, b"one ")
        channel.send(STDERR, b"nothing")
        channel.send(STDIN, b"two")
        channel.send(STDIN)
        assert output(channel.all()) == b"one two"


def test_a_body_over_the_limit_ends_the_connection_without_a_code(peer: Peer) -> None:
    with peer.agent() as control, peer.call(control, f"{ME}:cat") as channel:
        channel.connection.sendall(struct.pack("<II", STDIN, 65_537))
        assert EXIT not in [kind for kind, _ in channel.all()]


def test_a_program_may_use_one_socket_for_both_directions(peer: Peer) -> None:
    peer.service("test.One", 'kill -USR1 "$QREXEC_AGENT_PID"; sleep 0.3; echo hi >&0; cat >&0')
    with peer.agent() as control, peer.call(control, f"{ME}:QUBESRPC test.One work") as channel:
        first = channel.read()
        while first == (STDOUT, b""):
            first = channel.read()
        channel.send(STDIN, b"back")
        channel.send(STDIN)
        said = [first, *channel.all()]
    assert output([one for one in said if one is not None]) == b"hi\nback"


@contextmanager
def _talking(peer: Peer, called: str) -> Iterator[tuple[socket.socket, Channel]]:
    """The listening socket of a service, and a call of it."""
    with socket.socket(socket.AF_UNIX) as listener, peer.agent() as control:
        listener.bind(str(peer.services / called.partition("+")[0]))
        listener.listen(1)
        listener.settimeout(TIMEOUT)
        with peer.call(control, f"{ME}:QUBESRPC {called} work") as channel:
            yield listener, channel


def test_a_socket_is_told_who_calls_and_then_talks(peer: Peer) -> None:
    with _talking(peer, "test.Socket+x") as (listener, channel):
        assert channel.read() == (STDERR, b"")
        server, _ = listener.accept()
        with server:
            server.settimeout(TIMEOUT)
            channel.send(STDIN, b"question")
            channel.send(STDIN)
            heard = b""
            while more := server.recv(4096):
                heard += more
            server.sendall(b"answer")
        assert heard == b"test.Socket+x work\0question"
        assert channel.all() == [(STDOUT, b"answer"), (STDOUT, b""), code(0)]


def test_a_socket_may_end_the_call_by_its_end(peer: Peer) -> None:
    (peer.configs / "test.Socket").write_text(
        "skip-service-descriptor = true\nexit-on-service-eof = true\n"
    )
    with _talking(peer, "test.Socket") as (listener, channel):
        server, _ = listener.accept()
        server.sendall(b"all")
        server.shutdown(socket.SHUT_WR)
        assert channel.all() == [(STDERR, b""), (STDOUT, b"all"), (STDOUT, b""), code(0)]
        server.close()


def test_a_caller_may_end_the_call_by_its_end(peer: Peer) -> None:
    (peer.configs / "test.Socket").write_text("exit-on-client-eof = true\n")
    with _talking(peer, "test.Socket") as (listener, channel):
        server, _ = listener.accept()
        channel.send(STDIN)
        assert channel.all() == [(STDERR, b""), (STDOUT, b""), code(0)]
        server.close()


def test_a_tcp_service_is_a_link_that_names_an_address(peer: Peer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIMEOUT)
        port = listener.getsockname()[1]
        (peer.services / "test.Tcp").symlink_to("/dev/tcp/127.0.0.1")
        with peer.agent() as control:
            with peer.call(control, f"{ME}:QUBESRPC test.Tcp+{port} work") as channel:
                server, _ = listener.accept()
                channel.send(STDIN)
                with server:
                    assert server.recv(4096) == f"test.Tcp+{port} work\0".encode()
                assert channel.all()[-1] == code(0)
            with peer.call(control, f"{ME}:QUBESRPC test.Tcp+0{port} work", port=514) as channel:
                assert channel.all()[-1] == code(125)


def test_calls_wait_for_the_session_once(peer: Peer) -> None:
    peer.service("qubes.WaitForSession", f"cat >> {peer.directory}/waited; sleep 0.2")
    peer.service("test.Gui", f"cat {peer.directory}/waited")
    (peer.configs / "test.Gui").write_text("wait-for-session = 1\n")
    with peer.agent() as control:
        with peer.call(control, f"{ME}:QUBESRPC test.Gui work") as channel:
            assert output(channel.all()) == f"{ME}\n".encode()
        with peer.call(control, f"{ME}:nogui:QUBESRPC test.Gui work", port=514) as channel:
            assert output(channel.all()) == f"{ME}\n".encode()


def _trigger(peer: Peer, service: bytes, request_id: bytes = b"SOCKET") -> socket.socket:
    asking = connect(peer.agent_socket)
    asking.settimeout(TIMEOUT)
    body = bytes(64) + b"vault".ljust(64, b"\0") + request_id.ljust(32, b"\0") + service + b"\0"
    asking.sendall(struct.pack("<II", TRIGGER4, len(body)) + body)
    return asking


def _asked(control: Channel) -> tuple[bytes, bytes]:
    """The request id and the service of a request that the agent passes on."""
    found = control.read()
    assert found is not None
    kind, body = found
    assert kind == TRIGGER4
    return body[128:160], body[160:]


def test_a_request_gets_the_parameters_of_its_call_or_is_closed(peer: Peer) -> None:
    with peer.agent() as control:
        with _trigger(peer, b"test.Add+1") as asking:
            request_id, service = _asked(control)
            assert request_id.startswith(b"SOCKET")
            assert service == b"test.Add+1\0"
            control.send(CONNECT, struct.pack("<II", 43, 514) + request_id)
            assert asking.recv(4096) == struct.pack("<II", 43, 514)
        assert control.read() == (TERMINATED, struct.pack("<II", 43, 514))
        with _trigger(peer, b"test.Add+1") as asking:
            control.send(REFUSED, _asked(control)[0])
            assert asking.recv(1) == b""


@pytest.mark.parametrize("sent", [struct.pack("<II", 0x212, 200), struct.pack("<II", TRIGGER4, 9)])
def test_what_is_no_request_is_closed(peer: Peer, sent: bytes) -> None:
    with peer.agent() as control, connect(peer.agent_socket) as asking:
        asking.settimeout(TIMEOUT)
        asking.sendall(sent + bytes(9))
        assert asking.recv(1) == b""
        with _trigger(peer, b"test.Add"):
            assert _asked(control)[1] == b"test.Add\0"


def test_a_client_is_the_server_of_its_data_channel(peer: Peer) -> None:
    words = ("-a", str(peer.agent_socket), "vault", "test.Add+1")
    with peer.agent() as control, peer.running("insula.guest.client_vm", *words) as client:
        request_id, service = _asked(control)
        assert service == b"test.Add+1\0"
        control.send(CONNECT, struct.pack("<II", 43, 514) + request_id)
        channel = peer.connect(42, 43, 514)
        assert channel.read() == (0x300, struct.pack("<I", 4))
        channel.connection.sendall(HELLO)
        assert client.stdin is not None
        client.stdin.write(b"input")
        client.stdin.close()
        client.stdin = None
        assert channel.read() == (STDIN, b"input")
        assert channel.read() == (STDIN, b"")
        channel.send(STDERR, b"oops")
        channel.send(STDOUT, b"output")
        channel.send(STDOUT)
        channel.send(STDERR)
        channel.send(*code(9))
        said, errors = client.communicate(timeout=TIMEOUT)
        assert (client.returncode, said, errors) == (9, b"output", b"oops")
        assert control.read() == (TERMINATED, struct.pack("<II", 43, 514))


def test_a_client_that_is_refused_says_so(peer: Peer) -> None:
    words = ("--agent-socket", str(peer.agent_socket), "vault", "test.Add")
    with peer.agent() as control, peer.running("insula.guest.client_vm", *words) as client:
        control.send(REFUSED, _asked(control)[0])
        said, errors = client.communicate(timeout=TIMEOUT)
        assert (client.returncode, said, errors) == (126, b"", b"Request refused\n")


def test_a_client_whose_channel_ends_early_reports_255(peer: Peer) -> None:
    words = ("--agent-socket", str(peer.agent_socket), "-p", "first", "vault", "test.Add")
    with peer.agent() as control, peer.running("insula.guest.client_vm", *words) as client:
        control.send(CONNECT, struct.pack("<II", 43, 514) + _asked(control)[0])
        channel = peer.connect(42, 43, 514)
        channel.read()
        channel.connection.sendall(HELLO)
        assert channel.read() == (STDIN, b"first")
        channel.connection.close()
        assert client.wait(TIMEOUT) == 255


def test_a_fork_server_runs_calls_where_there_is_one(peer: Peer) -> None:
    peer.service("test.Who", 'echo "$MARK" "$QREXEC_REMOTE_DOMAIN"')
    path = str(peer.directory / "fork.sock")
    marked = {"MARK": "session", "USER": ME}
    with peer.running("insula.guest.fork_server", path, environment=marked):
        connect(Path(path)).close()
        with peer.agent("-s", str(peer.directory / "fork.sock")) as control:
            with peer.call(control, f"{ME}:QUBESRPC test.Who work") as channel:
                assert output(channel.all()) == b"session work\n"
            assert control.read() == (TERMINATED, struct.pack("<II", 0, 513))
            with peer.call(control, f"{ME}:nogui:QUBESRPC test.Who work", port=514) as channel:
                assert output(channel.all()) == b" work\n"


def test_many_calls_are_served_side_by_side(peer: Peer) -> None:
    with peer.agent() as control:
        outcomes: list[bytes] = []

        def run(number: int) -> None:
            with peer.call(control, f"{ME}:cat; echo {number}", port=513 + number) as channel:
                channel.send(STDIN)
                outcomes.append(output(channel.all()))

        threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
        assert sorted(outcomes) == [f"{number}\n".encode() for number in range(8)]
