"""Every test vector of qrexec-wire.md section 18, said or heard by our programs as processes."""

import socket
import struct
from collections.abc import Iterator

import pytest

from tests.unit.qrexec.peer import CONNECT, EXIT, HELLO, REFUSED, STDERR, STDOUT, Channel
from tests.unit.qrexec.place import HELLO3, ME, Place, exactly, place, rest
from tests.unit.qrexec.vectors import VECTORS

PING = "acme.Ping"
PORT = struct.Struct("<II")


@pytest.fixture
def here() -> Iterator[Place]:
    with place() as made:
        yield made


def heard(channel: Channel, name: str) -> None:
    """A vector is the next that comes."""
    assert exactly(channel, len(VECTORS[name])) == VECTORS[name]


def allow(here: Place, listener: socket.socket, *lines: str) -> bytes:
    """Answer the question that a daemon asks; what it asked."""
    asking = here.accept(listener)
    asked = b""
    while not asked.endswith(b"\n\n"):
        asked += asking.connection.recv(4096)
    told = ("result=allow", "user=DEFAULT", "autostart=True", *lines)
    asking.connection.sendall("\n".join(told).encode())
    asking.connection.close()
    return asked


def caller(here: Place, domain: int, port: int) -> socket.socket:
    """The listening socket of a data channel whose client is the qube 42."""
    return here.listen(f"vchan.{domain}.42.{port}.sock")


def greeted(here: Place, listener: socket.socket) -> Channel:
    """The data channel of a service, greeted."""
    channel = here.accept(listener)
    channel.connection.sendall(HELLO)
    heard(channel, "W01")
    return channel


def test_w01_an_agent_begins_with_its_version(here: Place) -> None:
    heard(here.agent(42, "-S"), "W01")


def test_w02_to_w05_a_client_gets_a_port_and_the_agent_its_command(here: Place) -> None:
    agent = here.daemon(42, "work", user="bob")
    client = here.connect("qrexec.42")
    heard(client, "W02")
    client.connection.sendall(HELLO3 + VECTORS["W03"])
    heard(client, "W04")
    heard(agent, "W05")


def test_w03_a_command_of_dom0_leaves_the_port_open(here: Place) -> None:
    listener = here.listen("qrexec.work")
    here.start("qrexec-client", f"--socket-dir={here.directory}", "-d", "work", "DEFAULT:ls -l")
    daemon = here.accept(listener)
    daemon.connection.sendall(VECTORS["W02"])
    heard(daemon, "W02")
    heard(daemon, "W03")
    daemon.connection.sendall(VECTORS["W04"])
    channel = here.vchan(0, 42, 513)
    heard(channel, "W01")


def test_w06_a_command_that_is_only_started(here: Place) -> None:
    agent = here.daemon(42, "work", user="bob")
    here.client("work").connection.sendall(VECTORS["W03"])
    heard(agent, "W05")
    words = ("-e", "-d", "work", f"user:nogui:QUBESRPC {PING} dom0")
    here.start("qrexec-client", f"--socket-dir={here.directory}", *words)
    heard(agent, "W06")


def test_w06_is_answered_with_nothing_but_a_code(here: Place) -> None:
    control = here.greeted_agent(42)
    with caller(here, 0, 514) as listener:
        control.connection.sendall(VECTORS["W06"])
        (kind, body), *others = greeted(here, listener).all()
    assert (kind, len(body), others) == (EXIT, 4, [])
    assert control.read() == (0x211, PORT.pack(0, 514))


def test_w07_a_call_between_qubes_reaches_the_agent_of_its_target(here: Place) -> None:
    policy = here.listen("policy.sock")
    source, target = here.daemon(43, "work"), here.daemon(77, "vault", user="user")
    ports = []
    for number in (9, 10):
        asked = (
            VECTORS["W11"]
            .replace(b"far-work", bytes(8))
            .replace(b"SOCKET12", b"SOCKET%02d" % number)
        )
        source.connection.sendall(asked)
        allow(here, policy, "target=vault", "requested_target=vault")
        ports.append(exactly(target, len(VECTORS["W07"])))
        kind, body = source.read() or (0, b"")
        assert (kind, body[:8]) == (CONNECT, PORT.pack(77, 513 + 2 * len(ports) - 2))
    assert ports == [VECTORS["W07"].replace(PORT.pack(43, 515), PORT.pack(43, 513)), VECTORS["W07"]]


@pytest.mark.parametrize(("name", "version"), [("W08", 2), ("W09", 3)])
def test_w08_w09_w14_older_agents_ask_and_are_refused(here: Place, name: str, version: int) -> None:
    policy = here.listen("policy.sock")
    agent = here.daemon(42, "work", version=version)
    agent.connection.sendall(VECTORS[name])
    asking = here.accept(policy)
    service = {"W08": PING, "W09": f"{PING}+x"}[name]
    said = f"source=work\nintended_target=vault\nservice_and_arg={service}\n\n".encode()
    assert exactly(asking, len(said)) == said
    asking.connection.sendall(b"result=deny")
    asking.connection.close()
    if name == "W08":
        heard(agent, "W14")
    else:
        assert agent.read() == (REFUSED, b"SOCKET11".ljust(32, b"\0"))


def test_w10_a_program_asks_its_agent(here: Place) -> None:
    agent = here.listen("agent.42")
    words = ("-a", here.agent_socket(42), "vault", f"{PING}+x")
    client = here.start("qrexec-client-vm", *words, domain=42)
    heard(here.accept(agent), "W10")
    client.kill()


def test_w11_the_agent_puts_its_own_number_in(here: Place) -> None:
    control = here.greeted_agent(42)
    for _ in range(20):
        words = ("-a", here.agent_socket(42), "--source-qube=far-work", "vault", f"{PING}+x")
        here.start("qrexec-client-vm", *words, domain=42)
        passed_on = exactly(control, len(VECTORS["W11"]))
        if b"SOCKET12" in passed_on:
            assert passed_on == VECTORS["W11"]
            return
    raise AssertionError("no request had the number 12")


def test_w12_dom0_connects_a_call_at_its_source(here: Place) -> None:
    target, source = here.listen("qrexec.vault"), here.listen("qrexec.43")
    words = ("-d", "vault", "-c", "SOCKET9,work,43", f"user:QUBESRPC {PING}+x work")
    client = here.start("qrexec-client", f"--socket-dir={here.directory}", *words)
    daemon = here.accept(target)
    daemon.connection.sendall(VECTORS["W02"])
    heard(daemon, "W02")
    assert daemon.read() == (0x200, PORT.pack(43, 0) + f"user:QUBESRPC {PING}+x work\0".encode())
    daemon.send(0x200, PORT.pack(77, 520))
    of_source = here.accept(source)
    of_source.connection.sendall(VECTORS["W02"])
    heard(of_source, "W02")
    heard(of_source, "W12")
    assert client.wait(20) == 0


def test_w13_w15_w16_w17_a_program_is_connected(here: Place) -> None:
    control = here.greeted_agent(42)
    words = ("-a", here.agent_socket(42), "vault", PING)
    client = here.start("qrexec-client-vm", *words, domain=42)
    request = exactly(control, 178)
    control.send(CONNECT, PORT.pack(43, 514) + request[136:168])
    channel = here.vchan(42, 43, 514)
    heard(channel, "W01")
    channel.connection.sendall(HELLO)
    assert client.stdin is not None
    client.stdin.write(b"hi\n")
    client.stdin.flush()
    heard(channel, "W16")
    client.stdin.close()
    client.stdin = None
    heard(channel, "W17")
    channel.connection.sendall(VECTORS["W18"] + VECTORS["W19"])
    channel.connection.close()
    assert client.wait(20) == 0
    heard(control, "W15")


def test_w13_the_agent_says_where_the_connection_is(here: Place) -> None:
    control = here.greeted_agent(42)
    asking = here.connect("agent.42")
    asking.connection.sendall(VECTORS["W10"])
    passed_on = exactly(control, 180)
    control.send(CONNECT, PORT.pack(43, 514) + passed_on[136:168])
    heard(asking, "W13")
    asking.connection.close()
    heard(control, "W15")


def test_w14_a_refusal_closes_what_it_names(here: Place) -> None:
    control = here.greeted_agent(42)
    asking = []
    while True:
        asking.append(here.connect("agent.42"))
        asking[-1].connection.sendall(VECTORS["W10"])
        if b"SOCKET7\0" in exactly(control, 180):
            break
        assert len(asking) < 20
    control.connection.sendall(VECTORS["W14"])
    assert rest(asking[-1]) == b""


def test_w16_to_w19_a_service_reads_to_the_end_and_says_how_it_ended(here: Place) -> None:
    control = here.greeted_agent(42)
    with caller(here, 0, 513) as listener:
        control.send(0x200, PORT.pack(0, 513) + f"{ME}:cat\0".encode())
        channel = greeted(here, listener)
    channel.connection.sendall(VECTORS["W16"] + VECTORS["W17"])
    ends = (VECTORS["W18"], bytes.fromhex("9101000000000000"))
    said = b"\x91\x01\0\0\3\0\0\0hi\n"
    found = rest(channel)
    assert found in (
        said + b"".join(ends) + VECTORS["W19"],
        said + b"".join(reversed(ends)) + VECTORS["W19"],
        ends[0] + said + ends[1] + VECTORS["W19"],
    )


def test_w20_a_service_that_cannot_be_started(here: Place) -> None:
    control = here.greeted_agent(42)
    with caller(here, 43, 515) as listener:
        control.connection.sendall(VECTORS["W07"].replace(b"user:QUBESRPC", b"user QUBESRPC"))
        assert rest(greeted(here, listener)) == VECTORS["W20"]


def test_w21_a_fork_server_is_given_the_call(here: Place) -> None:
    forks = here.listen("fork.user")
    control = here.greeted_agent(42, "-s", str(here.directory / "fork.%s"))
    control.connection.sendall(VECTORS["W07"])
    given = here.accept(forks)
    heard(given, "W21")
    given.connection.close()
    assert control.read() == (0x211, PORT.pack(43, 515))


def test_w21_a_fork_server_serves_the_call(here: Place) -> None:
    here.service(PING, 'echo "$1 $QREXEC_REMOTE_DOMAIN"')
    here.start(
        "qrexec-fork-server", str(here.directory / "fork"), domain=42, environment={"USER": ME}
    )
    with caller(here, 43, 515) as listener:
        given = here.connect("fork")
        given.connection.sendall(VECTORS["W21"])
        said = greeted(here, listener).all()
    assert (STDOUT, b"x work\n") in said
    assert rest(given) == b""


def test_w22_a_socket_is_told_who_calls(here: Place) -> None:
    service = here.listen(f"services/{PING}")
    control = here.greeted_agent(42)
    with caller(here, 43, 515) as listener:
        control.connection.sendall(VECTORS["W07"])
        channel = greeted(here, listener)
    heard(here.accept(service), "W22")
    heard(channel, "W18")


def test_w23_a_socket_of_dom0_is_told_what_was_to_be_reached(here: Place) -> None:
    service, policy = here.listen(f"services/{PING}"), here.listen("policy.sock")
    agent = here.daemon(42, "work")
    agent.connection.sendall(VECTORS["W11"].replace(b"far-work", bytes(8)))
    allow(here, policy, "target=dom0", "requested_target=@dispvm:web")
    assert agent.read() == (CONNECT, PORT.pack(0, 513) + b"SOCKET12".ljust(32, b"\0"))
    data = here.listen("vchan.42.0.513.sock")
    channel = here.accept(data)
    channel.connection.sendall(HELLO)
    heard(channel, "W01")
    heard(here.accept(service), "W23")
    assert channel.read() == (STDERR, b"")


def test_w24_the_policy_is_told_on_whose_behalf(here: Place) -> None:
    policy = here.listen("policy.sock")
    agent = here.daemon(42, "relay-a")
    agent.connection.sendall(VECTORS["W11"])
    heard(here.accept(policy), "W24")


def test_w25_a_disposable_is_made_by_uuid(here: Place) -> None:
    policy, qubesd = here.listen("policy.sock"), here.listen("qubesd.sock")
    agent = here.daemon(42, "work")
    agent.connection.sendall(VECTORS["W11"])
    uuid = "@dispvm:uuid:00000006-0000-4000-8000-000000000006"
    lines = ("target=@dispvm:web", f"target_uuid={uuid}", "requested_target=@dispvm")
    allow(here, policy, *lines)
    assert rest(here.accept(qubesd)) == VECTORS["W25"]
