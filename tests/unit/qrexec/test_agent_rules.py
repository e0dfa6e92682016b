"""qrexec-agent and qrexec-fork-server against qrexec-wire.md sections 4 and 6 to 9."""

import os
import signal
import socket
import stat
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.qrexec.peer import (
    CONNECT,
    EXEC,
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
    Message,
    message,
    output,
    wait_for_socket,
)
from tests.unit.qrexec.place import ME, Place, exactly, place, rest

PORT = struct.Struct("<II")
ID = b"SOCKET".ljust(32, b"\0")
END = message(STDIN)


@pytest.fixture
def here() -> Iterator[Place]:
    with place() as made:
        yield made


@pytest.fixture
def agent(here: Place) -> Channel:
    return here.greeted_agent(42)


def code(number: int) -> Message:
    return EXIT, struct.pack("<i", number)


def begun(here: Place, agent: Channel, text: str | bytes, kind: int = EXEC) -> Channel:
    """The caller's end of a call, where nothing was said yet."""
    listener = here.listen("vchan.0.42.513.sock")
    command = text if isinstance(text, bytes) else f"{ME}:{text}".encode()
    agent.send(kind, PORT.pack(0, 513) + command + b"\0")
    channel = here.accept(listener)
    listener.close()
    return channel


def call(
    here: Place, agent: Channel, text: str | bytes, given: bytes = END, kind: int = EXEC
) -> list[Message]:
    """All that a call says, and that its end is told once."""
    channel = begun(here, agent, text, kind)
    channel.connection.sendall(HELLO + given)
    assert exactly(channel, 12) == HELLO
    said = channel.all()
    assert agent.read() == (TERMINATED, PORT.pack(0, 513))
    return said


@pytest.mark.parametrize(
    "said",
    [
        struct.pack("<III", 0x300, 4, 1),
        struct.pack("<II", 0x300, 5),
        struct.pack("<II", EXEC, 30),
        HELLO + struct.pack("<IIII", EXEC, 8, 0, 513),
        HELLO + struct.pack("<II", EXEC, 7),
        HELLO + struct.pack("<II", JUST_EXEC, 8),
        HELLO + struct.pack("<II", EXEC, 2**31),
        HELLO + struct.pack("<II", CONNECT, 8),
        HELLO + struct.pack("<II", REFUSED, 31),
        HELLO + struct.pack("<II", REFUSED, 33),
        HELLO + struct.pack("<II", 0x300, 4),
        HELLO + struct.pack("<II", TRIGGER4, 200),
    ],
)
def test_what_no_daemon_says_ends_the_agent(here: Place, said: bytes) -> None:
    words = ("-S", "-a", here.agent_socket(42))
    process = here.start("qrexec-agent", *words, domain=42)
    control = here.vchan(42, 0, 512)
    assert exactly(control, 12) == HELLO
    control.connection.sendall(said)
    assert process.wait(TIMEOUT) == 1


def test_a_verdict_on_nothing_is_passed_over(here: Place, agent: Channel) -> None:
    for request_id in (b"SOCKET999", b"7", b"SOCKET", b"SOCKETx", b"SOCKET-1", b"\xff" * 32):
        padded = request_id.ljust(32, b"\0")
        agent.send(CONNECT, PORT.pack(43, 514) + padded)
        agent.send(REFUSED, padded)
    agent.send(CONNECT, PORT.pack(43, 514) + b"x")
    assert call(here, agent, "exit 1")[-1] == code(1)


def test_a_command_is_cut_at_its_nul_and_loses_its_last_byte(here: Place, agent: Channel) -> None:
    assert call(here, agent, f"{ME}:exit 3".encode() + b"\0junk")[-1] == code(3)
    listener = here.listen("vchan.0.42.513.sock")
    agent.send(EXEC, PORT.pack(0, 513) + f"{ME}:exit 45".encode())
    channel = here.accept(listener)
    channel.connection.sendall(HELLO)
    assert channel.all()[-1] == code(4)


def test_anybody_may_ask_and_the_socket_goes_with_the_agent(here: Place) -> None:
    words = ("-S", f"--agent-socket={here.agent_socket(42)}")
    path = Path(here.agent_socket(42))
    path.write_text("something older")
    process = here.start("qrexec-agent", *words, domain=42)
    here.vchan(42, 0, 512).connection.sendall(HELLO)
    wait_for_socket(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o777
    process.send_signal(signal.SIGTERM)
    assert process.wait(TIMEOUT) == 0
    assert not path.exists()


def test_readiness_is_told(here: Place) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(here.directory / "notify"))
        notified.settimeout(TIMEOUT)
        words = ("-S", "-a", here.agent_socket(42))
        told = {"NOTIFY_SOCKET": str(here.directory / "notify")}
        here.start("qrexec-agent", *words, domain=42, environment=told)
        here.vchan(42, 0, 512).connection.sendall(HELLO)
        assert notified.recv(99) == b"READY=1"


@pytest.mark.parametrize(
    "head",
    [(TRIGGER4, 160), (TRIGGER4, 65_161), (0x212, 120), (0x300, 4)],
)
def test_what_is_no_request_is_closed_at_its_header(
    here: Place, agent: Channel, head: tuple[int, int]
) -> None:
    asking = here.connect("agent.42")
    asking.connection.sendall(PORT.pack(*head))
    assert rest(asking) == b""
    assert call(here, agent, "exit 1")[-1] == code(1)


def test_a_request_goes_on_as_it_is_but_for_its_id(here: Place, agent: Channel) -> None:
    body = os.urandom(128) + os.urandom(32) + b"a" * 64_999 + b"\xff"
    asking = here.connect("agent.42")
    asking.send(TRIGGER4, body)
    kind, passed_on = agent.read() or (0, b"")
    assert (kind, passed_on[:128], passed_on[160:]) == (TRIGGER4, body[:128], body[160:])
    assert passed_on[128:160].startswith(b"SOCKET")
    agent.send(CONNECT, PORT.pack(0, 700) + passed_on[128:160])
    assert exactly(asking, 8) == PORT.pack(0, 700)
    asking.connection.close()
    assert agent.read() == (TERMINATED, PORT.pack(0, 700))


def test_a_program_that_left_is_still_told_of(here: Place, agent: Channel) -> None:
    asking = here.connect("agent.42")
    asking.send(TRIGGER4, bytes(128) + ID + b"a\0")
    _, passed_on = agent.read() or (0, b"")
    other = here.connect("agent.42")
    other.send(TRIGGER4, bytes(128) + ID + b"b\0")
    _, other_on = agent.read() or (0, b"")
    asking.connection.shutdown(socket.SHUT_RD)
    agent.send(CONNECT, PORT.pack(43, 514) + passed_on[128:160])
    agent.send(REFUSED, other_on[128:160])
    assert rest(other) == b""
    asking.connection.close()
    assert agent.read() == (TERMINATED, PORT.pack(43, 514))


def test_an_answer_reaches_nobody_but_who_asked(here: Place, agent: Channel) -> None:
    """Also where that one left, and others ask meanwhile."""
    asking = here.connect("agent.42")
    asking.send(TRIGGER4, bytes(128) + ID + b"a\0")
    _, passed_on = agent.read() or (0, b"")
    asking.connection.shutdown(socket.SHUT_WR)
    assert rest(asking) == b""
    other = here.connect("agent.42")
    other.send(TRIGGER4, bytes(128) + ID + b"b\0")
    _, other_on = agent.read() or (0, b"")
    agent.send(CONNECT, PORT.pack(43, 514) + passed_on[128:160])
    agent.send(CONNECT, PORT.pack(43, 516) + other_on[128:160])
    assert exactly(other, 8) == PORT.pack(43, 516)
    third = here.connect("agent.42")
    third.send(TRIGGER4, bytes(128) + ID + b"c\0")
    _, third_on = agent.read() or (0, b"")
    assert third_on[128:160] == passed_on[128:160]  # Its number is another's to have again.
    agent.send(REFUSED, third_on[128:160])
    assert rest(third) == b""


@pytest.mark.parametrize(
    "said",
    [
        b"",
        struct.pack("<III", 0x300, 4, 1),
        struct.pack("<II", 0x300, 65_000),
        struct.pack("<II", STDIN, 4),
        HELLO + struct.pack("<II", STDIN, 65_537),
        HELLO[:8] + struct.pack("<III", 2, STDIN, 4097),
        HELLO + message(EXEC, b"x"),
    ],
)
def test_a_channel_that_breaks_the_rules_ends_without_a_code(
    here: Place, agent: Channel, said: bytes
) -> None:
    channel = begun(here, agent, "cat")
    channel.connection.sendall(said)
    if not said:
        channel.connection.shutdown(socket.SHUT_WR)
    found = rest(channel)
    assert found.startswith(HELLO)
    assert PORT.pack(EXIT, 4) not in found
    assert agent.read() == (TERMINATED, PORT.pack(0, 513))


@pytest.mark.parametrize(("version", "limit"), [(2, 4096), (3, 65_536), (9, 65_536)])
def test_chunks_are_as_large_as_the_session_allows(
    here: Place, agent: Channel, version: int, limit: int
) -> None:
    channel = begun(here, agent, "head -c 300000 /dev/zero; cat")
    channel.connection.sendall(HELLO[:8] + struct.pack("<I", version))
    channel.connection.sendall(message(STDIN, bytes(limit)) + END)
    assert exactly(channel, 12) == HELLO
    said = channel.all()
    assert len(output(said)) == 300_000 + limit
    assert max(len(body) for _, body in said) <= limit
    assert said[-1] == code(0)


def test_input_comes_in_any_pieces_and_as_either_kind(here: Place, agent: Channel) -> None:
    channel = begun(here, agent, "cat")
    said = (
        HELLO
        + message(STDOUT, b"one ")
        + message(STDERR, b"x")
        + message(EXIT, b"1234")
        + message(STDIN, b"two")
        + message(STDOUT)
        + message(STDIN, b"after the end")
    )
    for byte in said:
        channel.connection.sendall(bytes((byte,)))
    found = channel.all()
    assert output(found) == b"one two"
    assert found[-1] == code(0)


def test_what_holds_the_output_holds_the_call(here: Place, agent: Channel) -> None:
    channel = begun(here, agent, "(sleep 0.4; echo late) & exit 6")
    channel.connection.sendall(HELLO)
    assert exactly(channel, 12) == HELLO
    said = channel.all()
    assert output(said) == b"late\n"
    assert said[-1] == code(6)
    assert {kind for kind, body in said[-3:] if not body} <= {STDOUT, STDERR}


def test_input_that_is_not_read_does_not_hold_the_call(here: Place, agent: Channel) -> None:
    channel = begun(here, agent, "exec <&-; echo hi; sleep 0.2; kill -TERM $$")
    channel.connection.sendall(HELLO + message(STDIN, bytes(60_000)) * 4)
    assert exactly(channel, 12) == HELLO
    said = channel.all()
    assert output(said) == b"hi\n"
    assert said[-1] == code(128 + 15)


SHOW = (
    'echo "$QREXEC_SERVICE_FULL_NAME ${QREXEC_SERVICE_ARGUMENT-unset} $# $1 $QREXEC_REMOTE_DOMAIN '
    '${QREXEC_REQUESTED_TARGET_TYPE-unset} ${QREXEC_REQUESTED_TARGET-unset}"'
)


@pytest.mark.parametrize(
    ("called", "shown"),
    [
        ("a.B work", "a.B unset 0  work  unset"),
        ("a.B+ work", "a.B+  0  work  unset"),
        ("a.B+c+d work", "a.B+c+d c+d 1 c+d work  unset"),
        ("a.B+-x work  ", "a.B+-x -x 1 -x work  unset"),
    ],
)
def test_what_a_service_is_told(here: Place, agent: Channel, called: str, shown: str) -> None:
    here.service("a.B", SHOW)
    assert output(call(here, agent, f"QUBESRPC {called}")) == f"{shown}\n".encode()


@pytest.mark.parametrize(
    "called",
    ["a.B", "a.B ", " a.B work", "a.B  work", "+x work", "", "a.B work x", "a.B work a b c",
     "a" * 256 + " work"],
)  # fmt: skip
def test_what_calls_no_service_is_125(here: Place, agent: Channel, called: str) -> None:
    here.service("a.B", "true")
    said = call(here, agent, f"QUBESRPC {called}")
    assert said == [(STDOUT, b""), (STDERR, b""), code(125)]


def test_four_words_are_a_descriptor_and_no_blank_but_a_space_separates(
    here: Place, agent: Channel
) -> None:
    here.service("a.B", 'echo "$QREXEC_REMOTE_DOMAIN"')
    assert output(call(here, agent, "QUBESRPC a.B work name  x")) == b"work\n"
    assert output(call(here, agent, "QUBESRPC a.B work\tmore")) == b"work\tmore\n"
    assert call(here, agent, "QUBESRPCx a.B work")[-1] == code(125)


def test_a_service_inherits_all_but_what_is_qrexecs(here: Place) -> None:
    here.service("a.B", 'echo "$MARK ${QREXEC_MARK-unset} $QREXEC_SERVICE_PATH $HOME $PWD"')
    here.environment.update(MARK="here", QREXEC_MARK="there")
    control = here.greeted_agent(42)
    home = str(Path(f"~{ME}").expanduser())
    said = output(call(here, control, "QUBESRPC a.B work"))
    assert said == f"here unset {here.services} {home} {home}\n".encode()


def test_a_command_has_the_users_shell_and_is_a_login(here: Place, agent: Channel) -> None:
    assert output(call(here, agent, 'echo "$0"')).startswith(b"-")
    here.service("a.B", 'echo "$USER $LOGNAME"')
    assert output(call(here, agent, "QUBESRPC a.B work")) == f"{ME} {ME}\n".encode()


def test_services_are_searched_for_with_their_argument_first(here: Place) -> None:
    first, second = here.directory / "first", here.services
    first.mkdir()
    here.environment["QREXEC_SERVICE_PATH"] = f"{here.directory}/none:{first}:{second}"
    here.service("a.B+c", "echo specific")
    here.service("a.B+", "echo empty")
    here.service("a.B", "echo second")
    control = here.greeted_agent(42)
    assert output(call(here, control, "QUBESRPC a.B+d work")) == b"second\n"
    (second / "a.B").rename(first / "a.B")
    for called, said in (("+c", b"specific"), ("+", b"empty"), ("", b"empty"), ("+d", b"second")):
        assert output(call(here, control, f"QUBESRPC a.B{called} work")) == said + b"\n"
    long = "x" * 300
    assert output(call(here, control, f"QUBESRPC a.B+{long} work")) == b"second\n"
    (first / "a.B").unlink()
    (first / "a.B").symlink_to("nowhere")
    (second / "a.B").symlink_to("a.B+c")
    assert output(call(here, control, "QUBESRPC a.B+d work")) == b"specific\n"


def test_a_search_that_fails_is_125(here: Place) -> None:
    here.service("a.B", "true")
    here.environment["QREXEC_SERVICE_PATH"] = f"{here.services}/a.B:{here.services}"
    control = here.greeted_agent(42)
    assert call(here, control, "QUBESRPC a.B work")[-1] == code(125)


def test_what_is_there_but_cannot_be_run(here: Place, agent: Channel) -> None:
    (here.services / "a.Plain").write_text("#!/bin/sh\n")
    (here.services / "a.Folder").mkdir()
    (here.services / "a.Tcp").symlink_to("/dev/tcp/")
    (here.services / "a.Bad").write_text("#!/nowhere/at/all\n")
    (here.services / "a.Bad").chmod(0o755)
    for name, found in (("Plain", 125), ("Folder", 125), ("Tcp", 125), ("Bad", 127), ("No", 127)):
        assert call(here, agent, f"QUBESRPC a.{name} work")[-1] == code(found)


@pytest.mark.parametrize(
    ("link", "argument"),
    [
        ("/dev/tcp/127.0.0.1/{}", "+x"),
        ("/dev/tcp/127.0.0.1", ""),
        ("/dev/tcp/127.0.0.1", "+{}+"),
        ("/dev/tcp/localhost/{}", ""),
        ("/dev/tcp/127.0.0.1/{}/", ""),
        ("/dev/tcp", "+127.0.0.1"),
        ("/dev/tcp", "+a_b+{}"),
        ("/dev/tcp", "++{}"),
        ("/dev/tcp", "+127.0.0.1+0{}"),
        ("/dev/tcp", "+127.0.0.1+65536"),
        ("/dev/tcp", "+127.0.0.1+0"),
        ("/dev/tcp", "+127.0.0.1:1+{}"),
    ],
)
def test_an_address_that_is_none_is_125(
    here: Place, agent: Channel, link: str, argument: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        (here.services / "a.Tcp").symlink_to(link.format(port))
        said = call(here, agent, f"QUBESRPC a.Tcp{argument.format(port)} work")
    assert said[-1] == code(125)


@pytest.mark.parametrize(
    ("link", "argument", "host"),
    [
        ("/dev/tcp/127.0.0.1/{}", "", "127.0.0.1"),
        ("/dev/tcp/127.0.0.1/{}", "+", "127.0.0.1"),
        ("/dev/tcp/127.0.0.1", "+{}", "127.0.0.1"),
        ("/dev/tcp", "+127.0.0.1+{}", "127.0.0.1"),
        ("/dev/tcp", "+++1+{}", "::1"),
    ],
)
def test_an_address_may_come_from_link_and_argument(
    here: Place, agent: Channel, link: str, argument: str, host: str
) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip(f"this host has no {host}")
    with listener:
        listener.settimeout(TIMEOUT)
        port = listener.getsockname()[1]
        (here.configs / "a.Tcp").write_text(
            "skip-service-descriptor=true\nexit-on-service-eof=true"
        )
        (here.services / "a.Tcp").symlink_to(link.format(port))
        channel = begun(here, agent, f"QUBESRPC a.Tcp{argument.format(port)} work")
        channel.connection.sendall(HELLO + message(STDIN, b"question"))
        served, _ = listener.accept()
        with served:
            assert served.recv(99) == b"question"
            served.sendall(b"answer")
        assert exactly(channel, 12) == HELLO
        assert channel.all() == [(STDERR, b""), (STDOUT, b"answer"), (STDOUT, b""), code(0)]


def test_a_slow_reader_on_tcp_gets_every_byte(here: Place, agent: Channel) -> None:
    content = os.urandom(8 << 20)
    (here.configs / "a.Tcp").write_text("skip-service-descriptor=true\nexit-on-service-eof=true")

    def feed(channel: Channel) -> None:
        for at in range(0, len(content), 3001):
            channel.send(STDIN, content[at : at + 3001])
        channel.connection.sendall(END)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIMEOUT)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        (here.services / "a.Tcp").symlink_to(f"/dev/tcp/127.0.0.1/{listener.getsockname()[1]}")
        channel = begun(here, agent, "QUBESRPC a.Tcp work")
        channel.connection.sendall(HELLO)
        served, _ = listener.accept()
    feeding = threading.Thread(target=feed, args=(channel,))
    feeding.start()
    with served:
        heard = bytearray()
        while more := served.recv(1500):
            heard += more
    feeding.join(TIMEOUT)
    assert heard == content
    assert exactly(channel, 12) == HELLO
    assert channel.all()[-1] == code(0)


def test_a_socket_of_a_long_name_is_reached(here: Place, agent: Channel) -> None:
    name = "a." + "B" * 120
    service = here.listen("short")
    (here.directory / "short").rename(here.services / name)
    channel = begun(here, agent, f"QUBESRPC {name} work")
    channel.connection.sendall(HELLO + END)
    served = here.accept(service)
    assert rest(served) == f"{name} work\0".encode()
    served.connection.close()
    assert exactly(channel, 12) == HELLO
    assert channel.all()[-1] == code(0)


def test_a_socket_on_which_nobody_listens_is_125(here: Place, agent: Channel) -> None:
    here.listen("services/a.B").close()
    assert call(here, agent, "QUBESRPC a.B work")[-1] == code(125)


def test_a_socket_service_is_told_even_where_nothing_is_waited_for(
    here: Place, agent: Channel
) -> None:
    service = here.listen("services/a.B")
    assert call(here, agent, "QUBESRPC a.B+x work", kind=JUST_EXEC) == [code(0)]
    assert rest(here.accept(service)) == b"a.B+x work\0"


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("", True),
        ("# anything\r\n\nwait-for-session = false \t# so\r\nforce-user='ME'", True),
        ("exit-on-service-eof=true\n", True),
        ("Some.other_key-1 = 18446744\nother='#=\"'#x", True),
        ("force-user=\t'ME'\n\n\n", True),
        (" wait-for-session=1\n", False),
        ("   \n", False),
        ("wait-for-session=2\n", False),
        ("wait-for-session=01\n", False),
        ("wait-for-session='1'\n", False),
        ("exit-on-service-eof=1\n", False),
        ('force-user="ME"\n', False),
        ("force-user='''ME'''\n", False),
        ("force-user=ME\n", False),
        ("[section]\n", False),
        ("other=[1]\n", False),
        ("other=+1\n", False),
        ("other=99999999999999999999\n", False),
        ("wait-for-session=0\nwait-for-session=0\n", False),
        ("wait-for-session\n", False),
        ("wait-for-session=0 x\n", False),
        ("# a\0b\n", False),
        ("1key=1\n", False),
        ("force-user='ME'\nexit-on-client-eof=true\n", False),
        ("force-user='ME'\nexit-on-client-eof=false\n", True),
        ("force-user='nobody-of-that-name'\n", False),
    ],
)
def test_a_configuration_is_a_little_of_toml(
    here: Place, agent: Channel, text: str, good: bool
) -> None:
    here.service("a.B", "true")
    (here.configs / "a.B").write_text(text.replace("ME", ME))
    assert call(here, agent, "QUBESRPC a.B+x work")[-1] == code(0 if good else 125)


def test_errors_are_logged_as_well(here: Place) -> None:
    (here.directory / "bin").mkdir()
    here.service("a.B", "echo oops >&2")
    logger = here.directory / "bin" / "logger"
    logger.write_text(
        f'#!/bin/sh\n(echo "$*"; cat) > {here.directory}/new; '
        f"mv {here.directory}/new {here.directory}/log\n"
    )
    logger.chmod(0o755)
    here.environment["PATH"] = f"{here.directory}/bin:{os.environ['PATH']}"
    control = here.greeted_agent(42)
    log = here.directory / "log"
    for kind in (EXEC, JUST_EXEC):
        said = call(here, control, "QUBESRPC a.B+x work", kind=kind)
        assert ((STDERR, b"oops\n") in said) == (kind == EXEC)
        here.wait_until(log.exists)
        assert log.read_text() == "-t a.B+x work-work\noops\n"
        log.unlink()


def test_a_fork_server_has_the_session(here: Place) -> None:
    here.service("a.B", 'echo "$MARK ${QREXEC_MARK-unset} $1 $QREXEC_REMOTE_DOMAIN"; exit 3')
    shell = here.directory / "shell"
    shell.write_text('#!/bin/sh\necho "$MARK $1 $2"\n')
    shell.chmod(0o755)
    session = {"MARK": "session", "QREXEC_MARK": "x", "USER": ME, "SHELL": str(shell)}
    here.start("qrexec-fork-server", f"{here.directory}/fork.{ME}", domain=42, environment=session)
    wait_for_socket(here.directory / f"fork.{ME}")
    control = here.greeted_agent(42, "-s", f"{here.directory}/fork.%s")
    said = call(here, control, "QUBESRPC a.B+x work")
    assert output(said) == b"session unset x work\n"
    assert said[-1] == code(3)
    assert output(call(here, control, "some command")) == b"session -c some command\n"
    assert output(call(here, control, f"{ME}:nogui:echo $MARK".encode())) == b"\n"
    (here.configs / "a.B").write_text("exit-on-client-eof=true\n")
    assert output(call(here, control, "QUBESRPC a.B+x work")) == b" unset x work\n"
    (here.services / "a.Bad").write_text("#!/nowhere/at/all\n")
    (here.services / "a.Bad").chmod(0o755)
    assert call(here, control, "QUBESRPC a.Bad work")[-1] == code(127)


@pytest.mark.parametrize(
    "said",
    [
        struct.pack("<IIII", EXEC, 0, 513, 0),
        struct.pack("<IIII", EXEC, 0, 513, 1) + b"\0",
        struct.pack("<IIII", EXEC, 0, 513, 2) + b"ls",
        struct.pack("<IIII", EXEC, 0, 513, 4) + b"l\0s\0",
        struct.pack("<IIII", 0x202, 0, 513, 3) + b"ls\0",
        struct.pack("<IIII", EXEC, 0, 513, 70_000),
    ],
)
def test_what_is_no_request_of_a_fork_server_is_closed(here: Place, said: bytes) -> None:
    here.start("qrexec-fork-server", str(here.directory / "fork"), domain=42)
    stalled, given = here.connect("fork"), here.connect("fork")
    stalled.connection.sendall(b"\0")
    given.connection.sendall(said)
    assert rest(given) == b""


def test_without_a_fork_server_the_agent_serves(here: Place) -> None:
    here.listen("fork").close()
    for path in (here.directory / "fork", here.directory / "nothing"):
        control = here.greeted_agent(42, "-s", str(path))
        assert call(here, control, "exit 4")[-1] == code(4)
        control.connection.close()


def test_calls_that_wait_for_the_session_wait_for_one_run(here: Place) -> None:
    waited = here.directory / "waited"
    script = f'cat >> {waited}; echo "$QREXEC_REMOTE_DOMAIN" >> {waited}; sleep 0.5; exit 1'
    here.service("qubes.WaitForSession", script)
    here.service("a.B", f"cat {here.directory}/waited")
    (here.configs / "a.B").write_text("wait-for-session=true\n")
    control = here.greeted_agent(42)
    listeners = [here.listen(f"vchan.{domain}.42.513.sock") for domain in (7, 8)]
    for domain in (7, 8):
        control.send(EXEC, PORT.pack(domain, 513) + f"{ME}:QUBESRPC a.B work{domain}\0".encode())
    for listener in listeners:
        channel = here.accept(listener)
        channel.connection.sendall(HELLO + END)
        assert output(channel.all()) == f"{ME}\nwork7\n".encode()


def test_a_session_that_reads_nothing_is_up(here: Place) -> None:
    here.service("qubes.WaitForSession", "exec true <&-")
    here.service("a.B", "exit 4")
    (here.configs / "a.B").write_text("wait-for-session=true\n")
    control = here.greeted_agent(42)
    for _ in range(3):
        assert call(here, control, "QUBESRPC a.B work")[-1] == code(4)
