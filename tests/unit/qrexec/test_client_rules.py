"""qrexec-client-vm and qrexec-client against the rules of qrexec-wire.md sections 7 and 14."""

import socket
import struct
import sys
from collections.abc import Iterator

import pytest

from tests.unit.qrexec.peer import (
    CONNECT,
    EXEC,
    EXIT,
    HELLO,
    JUST_EXEC,
    STDERR,
    STDIN,
    STDOUT,
    TIMEOUT,
    Channel,
    message,
)
from tests.unit.qrexec.place import HELLO3, Done, Place, Process, exactly, place, rest

PORT = struct.Struct("<II")
HELLO2 = HELLO[:8] + struct.pack("<I", 2)


@pytest.fixture
def here() -> Iterator[Place]:
    with place() as made:
        yield made


def code(number: int) -> bytes:
    return message(EXIT, struct.pack("<i", number))


ENDS = message(STDOUT) + message(STDERR)


def calling(here: Place, *words: str) -> tuple[Process, bytes, Channel]:
    """A program of a qube that calls; what it asks its agent, and the connection to that."""
    agent = here.listen("agent.42")
    given = ("-a", here.agent_socket(42), *words)
    client = here.start("qrexec-client-vm", *given, domain=42)
    asking = here.accept(agent)
    kind, body = asking.read() or (0, b"")
    assert kind == 0x213
    return client, body, asking


def accepted(here: Place, *words: str) -> tuple[Process, Channel]:
    """A program of a qube whose call was accepted, and its data channel, not greeted yet."""
    client, _, asking = calling(here, *words)
    asking.connection.sendall(PORT.pack(43, 514))
    return client, here.vchan(42, 43, 514)


def called(here: Place, *words: str) -> tuple[Process, Channel]:
    """The same with a command of dom0, of the qube 42."""
    daemon = here.listen("qrexec.work")
    options = (f"--socket-dir={here.directory}", "-d", "work", *words)
    client = here.start("qrexec-client", *options)
    asking = here.accept(daemon)
    asking.connection.sendall(HELLO3)
    assert exactly(asking, 12) == HELLO3
    kind, body = asking.read() or (0, b"")
    assert (kind, body) == (JUST_EXEC if "-e" in words else EXEC, PORT.pack(0, 0) + b"a:b\0")
    asking.send(kind, PORT.pack(42, 513))
    return client, here.vchan(0, 42, 513)


def over(client: Process) -> Done:
    output, errors = client.communicate(timeout=TIMEOUT)
    return client.returncode, output, errors


@pytest.mark.parametrize(
    ("words", "source", "target", "service"),
    [
        (("$dispvm:a$b", "a.B"), b"", b"@dispvm:a@b", b"a.B"),
        (("x" * 70, "a.B+"), b"", b"x" * 63, b"a.B+"),
        (("", "a.B"), b"", b"", b"a.B"),
        (("-s", "far$x", "uuid:1", "a$B+\u00e4"), b"far$x", b"uuid:1", "a$B+\u00e4".encode()),
        (("v", "a" * 64_999), b"", b"v", b"a" * 64_999),
    ],
)
def test_what_a_program_asks_for(
    here: Place, words: tuple[str, ...], source: bytes, target: bytes, service: bytes
) -> None:
    _, body, _ = calling(here, *words)
    request_id = b"SOCKET".ljust(32, b"\0")
    assert body == source.ljust(64, b"\0") + target.ljust(64, b"\0") + request_id + service + b"\0"


@pytest.mark.parametrize(("answer", "expected"), [(b"", 126), (b"abc", 1)])
def test_an_answer_that_is_none(here: Place, answer: bytes, expected: int) -> None:
    client, _, asking = calling(here, "vault", "a.B")
    asking.connection.sendall(answer)
    asking.connection.close()
    found, _, errors = over(client)
    assert found == expected
    assert (errors == b"Request refused\n") == (expected == 126)


def test_without_an_agent_it_is_1(here: Place) -> None:
    assert here.run("qrexec-client-vm", "-a", here.agent_socket(42), "vault", "a.B")[0] == 1


@pytest.mark.parametrize("words", [["vault"], ["--nonsense", "vault", "a.B"], []])
def test_usage_errors_of_a_program_are_2(here: Place, words: list[str]) -> None:
    assert here.run("qrexec-client-vm", *words)[0] == 2
    found, output, errors = here.run("qrexec-client-vm", "-h")
    assert (found, errors) == (0, b"")
    assert output


LIMITS = [
    (b"", 1),
    (struct.pack("<III", 0x300, 4, 1), 1),
    (struct.pack("<II", 0x301, 4), 1),
    (struct.pack("<II", 0x300, 4000), 1),
    (HELLO, 255),
    (HELLO + ENDS, 255),
    (HELLO + message(STDOUT, b"x")[:-1], 255),
    (HELLO + struct.pack("<II", STDOUT, 65_537), 1),
    (HELLO2 + struct.pack("<II", STDOUT, 4097), 1),
    (HELLO + message(0x200, b"x"), 1),
    (HELLO + message(EXIT, b"\1"), 255),
    (HELLO + message(EXIT, b"\7\0\0\0more"), 7),
    (HELLO + ENDS + code(-1), 255),
    (HELLO2 + message(STDOUT, bytes(4096)) + ENDS + code(3), 3),
    (HELLO + message(STDIN, bytes(65_536)) + ENDS + code(0), 0),
]


@pytest.mark.parametrize(("said", "expected"), LIMITS)
def test_how_a_channel_ends(here: Place, said: bytes, expected: int) -> None:
    client, channel = accepted(here, "vault", "a.B")
    channel.connection.sendall(said)
    channel.connection.shutdown(socket.SHUT_WR)
    assert over(client)[0] == expected


@pytest.mark.parametrize(("said", "expected"), LIMITS)
def test_how_a_channel_of_dom0_ends(here: Place, said: bytes, expected: int) -> None:
    client, channel = called(here, "a:b")
    channel.connection.sendall(said)
    channel.connection.shutdown(socket.SHUT_WR)
    assert over(client)[0] == (expected if said.startswith((HELLO, HELLO2)) else 125)


def test_output_may_follow_the_exit_code(here: Place) -> None:
    client, channel = accepted(here, "vault", "a.B")
    channel.connection.sendall(HELLO + code(5) + message(STDOUT, b"late") + ENDS)
    assert over(client) == (5, b"late", b"")


def test_an_exit_code_is_enough_where_nothing_follows(here: Place) -> None:
    client, channel = accepted(here, "vault", "a.B")
    channel.connection.sendall(HELLO + message(STDOUT, b"said") + code(5))
    assert over(client) == (5, b"said", b"")
    channel.connection.close()


def test_input_is_ended_by_the_exit_code(here: Place) -> None:
    client, channel = accepted(here, "vault", "a.B")
    assert exactly(channel, 12) == HELLO
    channel.connection.sendall(HELLO + ENDS + code(5))
    assert channel.read() == (STDIN, b"")
    assert client.wait(TIMEOUT) == 5


def test_the_end_of_output_is_passed_on_at_once(here: Place) -> None:
    client, channel = accepted(here, "vault", "a.B")
    channel.connection.sendall(HELLO + message(STDOUT, b"all") + message(STDOUT))
    assert client.stdout is not None
    assert client.stdout.read() == b"all"
    assert client.poll() is None
    channel.connection.sendall(message(STDERR, b"more") + message(STDERR) + code(0))
    assert over(client) == (0, b"", b"more")


def test_what_nobody_reads_any_more_is_dropped(here: Place) -> None:
    client, channel = accepted(here, "vault", "a.B")
    assert client.stdout is not None
    client.stdout.close()
    client.stdout = None
    channel.connection.sendall(HELLO + message(STDOUT, b"y") * 10)
    channel.connection.sendall(message(STDOUT, b"y") * 10 + ENDS + code(4))
    assert client.wait(TIMEOUT) == 4


def test_pieces_of_any_size_are_taken(here: Place) -> None:
    client, channel = accepted(here, "vault", "a.B")
    for byte in HELLO + message(STDOUT, b"one") + message(STDERR, b"two") + ENDS + code(0):
        channel.connection.sendall(bytes((byte,)))
    assert over(client) == (0, b"one", b"two")


def test_what_a_terminal_acts_on_is_filtered(here: Place) -> None:
    every = bytes(range(256))
    kept = bytes((7, 8, 9, 10, 13, *range(0x20, 0x7F)))
    filtered = bytes(byte if byte in kept else ord("_") for byte in every)
    said = HELLO + message(STDOUT, every) + message(STDERR, every) + ENDS + code(0)
    client, channel = accepted(here, "-t", "vault", "a.B")
    channel.connection.sendall(said)
    assert over(client) == (0, filtered, every)
    client, channel = called(here, "-T", "a:b")
    channel.connection.sendall(said)
    assert over(client) == (0, every, filtered)


def test_first_input_comes_first(here: Place) -> None:
    client, channel = accepted(here, "-pone ", "vault", "a.B")
    channel.connection.sendall(HELLO)
    assert client.stdin is not None
    client.stdin.write(b"two")
    client.stdin.close()
    client.stdin = None
    heard = b""
    assert exactly(channel, 12) == HELLO
    while (one := channel.read()) != (STDIN, b""):
        assert one is not None
        heard += one[1]
    assert heard == b"one two"
    channel.connection.sendall(ENDS + code(0))
    assert client.wait(TIMEOUT) == 0


def test_a_program_is_connected_and_its_status_counts(here: Place) -> None:
    script = (
        "import os, sys; os.write(1, f\"{sys.stdin.read()} {os.environ['SAVED_FD_1']}\".encode()); "
        "os.write(int(os.environ['SAVED_FD_1']), sys.argv[1].encode()); "
        "os.environ['QREXEC_AGENT_PID']; sys.exit('SAVED_FD_2' in os.environ and 9 or 8)"
    )
    words = ("vault", "a.B", sys.executable, "-c", script, "saved")
    client, channel = accepted(here, *words)
    channel.connection.sendall(HELLO + message(STDOUT, b"question") + ENDS)
    assert exactly(channel, 12) == HELLO
    kind, said = channel.read() or (0, b"")
    assert kind == STDIN
    assert said.startswith(b"question ")
    channel.connection.sendall(code(0))
    assert over(client) == (8, b"saved", b"")


def test_a_program_is_called_by_its_last_name_and_not_searched_for(here: Place) -> None:
    client, channel = accepted(here, "vault", "a.B", "/bin/sh", "-c", 'echo "$0"')
    channel.connection.sendall(HELLO)
    assert exactly(channel, 12) == HELLO
    assert channel.read() == (STDIN, b"sh\n")
    channel.connection.sendall(ENDS + code(6))
    assert client.wait(TIMEOUT) == 6
    client, channel = accepted(here, "vault", "a.B", "sh", "-c", "exit 0")
    channel.connection.sendall(HELLO + ENDS + code(0))
    assert client.wait(TIMEOUT) != 0


def test_a_program_that_does_not_read_does_not_end_the_call(here: Place) -> None:
    client, channel = accepted(here, "vault", "a.B", "/bin/true")
    channel.connection.sendall(HELLO)
    assert exactly(channel, 20) == HELLO + message(STDIN)
    channel.connection.sendall(message(STDOUT, bytes(60_000)) * 20 + ENDS + code(0))
    assert client.wait(TIMEOUT) == 0


def test_a_program_may_use_one_socket_for_both(here: Place) -> None:
    script = (
        "import os, signal, socket, sys; s = socket.socket(fileno=0); "
        "os.kill(int(os.environ['QREXEC_AGENT_PID']), signal.SIGUSR1); os.close(1); "
        "s.sendall(b'asked'); s.sendall(s.recv(99)); s.shutdown(socket.SHUT_WR); sys.exit(3)"
    )
    client, channel = accepted(here, "vault", "a.B", sys.executable, "-c", script)
    channel.connection.sendall(HELLO)
    assert exactly(channel, 12) == HELLO
    assert channel.read() == (STDIN, b"asked")
    channel.send(STDOUT, b"answered")
    assert channel.read() == (STDIN, b"answered")
    assert channel.read() == (STDIN, b"")
    channel.connection.sendall(ENDS + code(0))
    assert client.wait(TIMEOUT) == 3


def test_standard_input_may_be_a_socket_for_both(here: Place) -> None:
    agent = here.listen("agent.42")
    ours, its = socket.socketpair()
    with ours, its:
        words = ("-a", here.agent_socket(42), "--use-stdin-socket", "vault", "a.B")
        client = here.start("qrexec-client-vm", *words, domain=42, stdin=its.fileno())
        its.close()
        here.accept(agent).connection.sendall(PORT.pack(43, 514))
        channel = here.vchan(42, 43, 514)
        channel.connection.sendall(HELLO + message(STDOUT, b"answer") + message(STDOUT))
        ours.settimeout(TIMEOUT)
        assert ours.recv(99) == b"answer"
        assert ours.recv(99) == b""
        ours.sendall(b"more")
        assert exactly(channel, 24) == HELLO + message(STDIN, b"more")
        channel.connection.sendall(message(STDERR) + code(2))
        assert client.wait(TIMEOUT) == 2


def test_options_of_dom0s_client(here: Place) -> None:
    client, channel = called(here, "-E", "a:b")
    channel.connection.sendall(HELLO + ENDS + code(125))
    assert over(client)[0] == 0
    client, channel = called(here, "-e", "a:b")
    channel.connection.sendall(HELLO + code(127))
    assert over(client)[0] == 127
    client, channel = called(here, "-p", "first", "a:b")
    channel.connection.sendall(HELLO)
    assert exactly(channel, 25) == HELLO + message(STDIN, b"first")
    channel.connection.sendall(ENDS + code(0))
    assert over(client)[0] == 0


def test_a_local_service_is_connected(here: Place) -> None:
    here.service("a.C", 'echo "$QREXEC_REMOTE_DOMAIN $1"; cat >&2; exit 5')
    client, channel = called(here, "-l", "QUBESRPC a.C+x work", "a:b")
    channel.connection.sendall(HELLO + message(STDOUT, b"heard") + ENDS)
    assert exactly(channel, 27) == HELLO + message(STDIN, b"work x\n")
    channel.connection.sendall(code(0))
    assert over(client) == (5, b"", b"heard")


def test_what_a_local_command_hears_may_be_filtered(here: Place) -> None:
    client, channel = called(here, "-t", "-l", "cat >&2", "a:b")
    channel.connection.sendall(HELLO + message(STDOUT, b"a\x1bb") + ENDS + code(0))
    assert over(client) == (0, b"", b"a_b")


def test_a_local_socket_is_connected(here: Place) -> None:
    service = here.listen("services/a.C")
    client, channel = called(here, "-l", "QUBESRPC a.C work", "a:b")
    served = here.accept(service)
    channel.connection.sendall(HELLO + message(STDOUT, b"heard") + ENDS)
    assert rest(served) == b"a.C work\0heard"
    served.connection.sendall(b"said")
    served.connection.close()
    assert exactly(channel, 24) == HELLO + message(STDIN, b"said")
    assert channel.read() == (STDIN, b"")
    channel.connection.sendall(code(0))
    assert over(client)[0] == 0


def test_nobody_connects_in_time(here: Place) -> None:
    daemon = here.listen("qrexec.work")
    client = here.start(
        "qrexec-client", f"--socket-dir={here.directory}", "-w1", "-d", "work", "a:b"
    )
    asking = here.accept(daemon)
    asking.connection.sendall(HELLO3)
    assert exactly(asking, 12) == HELLO3
    assert asking.read() is not None
    asking.send(EXEC, PORT.pack(42, 513))
    assert client.wait(TIMEOUT) == 125


def test_dom0_becomes_its_own_service(here: Place) -> None:
    here.service("a.B", 'echo "$1 $QREXEC_REMOTE_DOMAIN $QREXEC_REQUESTED_TARGET"; exit 4')
    command = "DEFAULT:QUBESRPC a.B+x dom0 name dom0"
    assert here.run("qrexec-client", "-d", "dom0", command) == (4, b"x dom0 dom0\n", b"")
    for wrong, expected in (
        ("a:QUBESRPC a.B dom0", 125),
        ("DEFAULT:ls", 125),
        ("DEFAULT:QUBESRPC a.C dom0", 127),
        ("DEFAULT:QUBESRPC a.B dom0 x", 125),
    ):
        assert here.run("qrexec-client", "-d", "dom0", wrong)[0] == expected


def test_without_a_session_no_configuration_is_read(here: Place) -> None:
    here.service("a.B", "exit 4")
    (here.configs / "a.B").write_text("nonsense\n")
    for nogui, expected in (("nogui:", 4), ("", 125)):
        command = f"DEFAULT:{nogui}QUBESRPC a.B dom0"
        assert here.run("qrexec-client", "-d", "dom0", command)[0] == expected


def test_a_call_is_served_by_dom0(here: Place) -> None:
    here.service("a.B", 'echo "$QREXEC_REMOTE_DOMAIN"')
    (here.configs / "a.B").write_text("nonsense\n")
    daemon = here.listen("qrexec.43")
    words = ("-E", "-d", "dom0", "-c", "SOCKET9,work,43", "nogui:QUBESRPC a.B+ work name dom0")
    client = here.start("qrexec-client", f"--socket-dir={here.directory}", *words)
    asking = here.accept(daemon)
    asking.connection.sendall(HELLO3)
    assert exactly(asking, 12) == HELLO3
    assert asking.read() == (CONNECT, PORT.pack(0, 0) + b"SOCKET9".ljust(32, b"\0"))
    data = here.listen("vchan.43.0.514.sock")
    asking.send(CONNECT, PORT.pack(43, 514))
    channel = here.accept(data)
    channel.connection.sendall(HELLO)
    assert exactly(channel, 12) == HELLO
    said = channel.all()
    assert said == [(STDERR, b""), (STDOUT, b"work\n"), (STDOUT, b""), (EXIT, bytes(4))]
    assert client.wait(TIMEOUT) == 0


def test_a_call_that_cannot_be_connected_is_137(here: Place) -> None:
    words = (f"--socket-dir={here.directory}", "-d", "vault", "-c", "SOCKET9,work,43", "a:b")
    assert here.run("qrexec-client", *words)[0] == 137


def test_a_target_is_killed_afterwards(here: Place) -> None:
    qubesd = here.listen("qubesd.sock")
    client = here.start("qrexec-client", f"--socket-dir={here.directory}", "-kd", "vault", "a:b")
    asked = here.accept(qubesd)
    assert rest(asked) == b"admin.vm.Kill+ dom0 name vault\0"
    asked.connection.sendall(b"0\0")
    asked.connection.close()
    assert client.wait(TIMEOUT) == 125
