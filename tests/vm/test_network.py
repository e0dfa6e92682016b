"""Networks of real qubes: a client behind a firewall qube behind a net qube, and what is beyond."""

import hashlib
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.vm.instance import Instance, wait_for
from tests.vm.world import HOST, OTHER, SERVER, TCP, UDP, World

pytestmark = pytest.mark.timeout(900)
_CHAIN = ("t-net", "t-fire", "t-work", "t-play")
_READY = 300.0  # seconds: a provider's first start boots it
# Programs of a qube: what they say when they come through, and nothing when they do not.
_TCP = "timeout {wait} bash -c 'exec 3<>/dev/tcp/{host}/{port}; head -n1 <&3'"
_UDP = (
    "timeout {wait} python3 -c 'import socket; s = socket.socket(type=socket.SOCK_DGRAM); "
    's.settimeout({wait}); s.sendto(b"datagram", ("{host}", {port})); print(s.recv(99).decode())\''
)


@pytest.fixture(scope="module")
def beyond(outside: World | None) -> World:
    """The servers outside."""
    if outside is None:
        pytest.skip("only root may make network namespaces to test with")
    return outside


@pytest.fixture(scope="module", autouse=True)
def chain(instance: Instance, beyond: World) -> Iterator[None]:
    """Two clients of a firewall qube of a net qube, all running and connected."""
    assert beyond
    for name, label in zip(_CHAIN, ("red", "green", "blue", "yellow"), strict=True):
        instance.say("qvm-create", "--label", label, name)
    for name, netvm in zip(_CHAIN, ("", "t-net", "t-fire", "t-fire"), strict=True):
        instance.say("qvm-prefs", name, "netvm", netvm)
        if netvm != "t-fire":
            instance.say("qvm-prefs", name, "provides_network", "True")
    try:
        instance.say("qvm-start", "t-work", "t-play", timeout=_READY)
        for name in ("t-work", "t-play"):
            wait_for(partial(reaches, instance, name), f"the network of {name}", timeout=180)
    except BaseException:
        print(instance.logs())
        raise
    yield
    for name in reversed(_CHAIN):
        instance.command("qvm-kill", name)
        instance.remove(name)


def within(instance: Instance, qube: str, command: str, user: str = "root") -> str:
    """What a command in a qube says, however it ends."""
    return instance.command("qvm-run", "-p", "-u", user, qube, command).stdout.decode()


def reaches(instance: Instance, qube: str, host: str = SERVER, *, wait: float = 3) -> bool:
    """Whether a qube gets an answer by TCP."""
    said = within(instance, qube, _TCP.format(host=host, port=TCP, wait=wait), "user")
    return said == "hello\n"


def asks(instance: Instance, qube: str, host: str = SERVER, *, wait: float = 3) -> bool:
    """Whether it gets one by UDP."""
    said = within(instance, qube, _UDP.format(host=host, port=UDP, wait=wait), "user")
    return said == "datagram\n"


def came(beyond: World, action: Callable[[], object]) -> int:
    """How many connections and datagrams came to the servers while something was done."""
    before = len(beyond.seen())
    action()
    time.sleep(0.3)
    return sum(one["kind"] in ("tcp", "udp") for one in beyond.seen()[before:])


def test_a_client_reaches_what_is_beyond_through_its_chain(
    instance: Instance, beyond: World
) -> None:
    assert came(beyond, lambda: reaches(instance, "t-work")) == 1
    assert asks(instance, "t-work")
    said = within(instance, "t-work", "getent ahostsv4 some.where.test | head -n1")
    assert said.split()[0] == SERVER


def test_a_listener_of_the_computer_itself_is_out_of_reach(
    instance: Instance, beyond: World
) -> None:
    """Even of a net qube that was taken over and sends what its kernel would not."""
    seize = (
        "sysctl -qw net.ipv4.conf.all.route_localnet=1 net.ipv4.conf.eth0.route_localnet=1; "
        "ip route del local 127.0.0.0/8 dev lo table local; ip route add 127.0.0.0/8 via 10.0.2.2; "
        "ip route del local 127.0.0.1 dev lo table local"
    )
    free = (
        "ip route add local 127.0.0.0/8 dev lo table local; ip route del 127.0.0.0/8 via 10.0.2.2"
    )
    with beyond.listener("127.0.0.1", 9555) as loopback, beyond.listener("0.0.0.0", 9556) as any_:
        within(instance, "t-net", seize)
        for host, port in (
            *(("127.0.0.1", 9555), ("10.0.2.2", 9555)),
            *(("127.9.9.9", 9556), ("10.0.2.2", 9556), (HOST, 9556)),
        ):
            within(instance, "t-net", _TCP.format(host=host, port=port, wait=2))
            within(instance, "t-net", _UDP.format(host=host, port=port, wait=1))
        within(instance, "t-net", free)
        assert reaches(instance, "t-work")
    assert loopback == []
    assert any_ == []


@contextmanager
def only_tcp_to_the_server(instance: Instance) -> Iterator[None]:
    """Rules of a running client, in force for as long as the block."""

    def in_force() -> bool:
        return SERVER in within(instance, "t-fire", "nft list table ip qubes-firewall")

    instance.say("qvm-firewall", "t-work", "del", "--rule-no", "0")
    instance.say("qvm-firewall", "t-work", "add", "accept", f"dsthost={SERVER}", "proto=tcp")
    try:
        wait_for(in_force, "the rules")
        yield
    finally:
        instance.say("qvm-firewall", "t-work", "reset")
        wait_for(lambda: not in_force(), "the end of the rules")


def test_rules_of_a_running_qube_are_enforced(instance: Instance, beyond: World) -> None:
    with only_tcp_to_the_server(instance):
        assert reaches(instance, "t-work")
        assert came(beyond, lambda: reaches(instance, "t-work", OTHER)) == 0
        assert came(beyond, lambda: asks(instance, "t-work")) == 0
        assert asks(instance, "t-play")
    assert asks(instance, "t-work")


def test_clients_of_one_provider_do_not_reach_each_other(instance: Instance) -> None:
    within(instance, "t-play", "nft add rule ip qubes custom-input accept")
    within(instance, "t-play", "systemd-run --quiet python3 -m http.server 8000 --bind 0.0.0.0")
    address = within(instance, "t-play", "qubesdb-read /qubes-ip").strip()
    wait_for(
        lambda: within(instance, "t-play", "ss -ltn | grep -c 8000").strip() == "1", "the server"
    )
    said = within(
        instance, "t-work", f"timeout 3 bash -c 'echo > /dev/tcp/{address}/8000'; echo $?"
    )
    assert said.strip() != "0"


def test_a_source_that_is_not_ones_own_is_dropped(instance: Instance, beyond: World) -> None:
    other = within(instance, "t-play", "qubesdb-read /qubes-ip").strip()
    # Its own rules would give what it sends its own address.
    within(instance, "t-work", "nft flush chain ip qubes postrouting")
    for address in (other, "192.0.2.77"):
        spoof = (
            f"ip addr add {address}/32 dev eth0; "
            f"timeout 3 python3 -c 'import socket; s = socket.socket(type=socket.SOCK_DGRAM); "
            f's.bind(("{address}", 0)); s.sendto(b"spoofed", ("{SERVER}", {UDP}))\'; '
            f"ip addr del {address}/32 dev eth0"
        )
        assert came(beyond, lambda spoof=spoof: within(instance, "t-work", spoof)) == 0  # type: ignore[misc]
    assert reaches(instance, "t-work")


def test_a_netvm_can_be_taken_from_a_running_qube_and_given_back(
    instance: Instance, beyond: World
) -> None:
    instance.say("qvm-prefs", "t-work", "netvm", "")
    wait_for(lambda: not reaches(instance, "t-work", wait=1), "the end of the network")
    assert came(beyond, lambda: reaches(instance, "t-work", wait=1)) == 0
    instance.say("qvm-prefs", "t-work", "netvm", "t-fire")
    wait_for(lambda: reaches(instance, "t-work", wait=1), "the network")


def test_a_provider_that_ends_and_returns_finds_its_clients(instance: Instance) -> None:
    for name in ("t-net", "t-fire"):
        instance.say("qvm-kill", name)
        assert not reaches(instance, "t-work", wait=1)
        instance.say("qvm-start", name, timeout=_READY)
        wait_for(lambda: reaches(instance, "t-work"), f"{name} with its clients")


def test_nothing_leaks_while_a_firewall_qube_restarts_and_a_stream_goes_on(
    instance: Instance, beyond: World
) -> None:
    """A client sends what its rules forbid all the while, and goes on with what they allow."""

    def restarted() -> None:
        instance.say("qvm-kill", "t-fire")
        instance.say("qvm-start", "t-fire", timeout=_READY)
        before = _steps(instance)
        wait_for(lambda: _steps(instance) > before + 5, "the stream to go on", timeout=120)

    programs = {"flood": _FLOOD.format(host=SERVER, port=UDP)}
    programs["stream"] = _STREAM.format(host=SERVER, port=TCP)
    with only_tcp_to_the_server(instance):
        try:
            for unit, program in programs.items():
                run = f"systemd-run --quiet --unit={unit} python3 -c '{program}'"
                within(instance, "t-work", run)
            wait_for(lambda: _steps(instance) > 0, "the stream")
            assert came(beyond, restarted) == 0
            assert int(within(instance, "t-work", "cat /run/flood")) > 0
        finally:
            within(instance, "t-work", "systemctl stop flood stream")


_FLOOD = """
import socket, time
s = socket.socket(type=socket.SOCK_DGRAM)
sent = 0
while True:
    try:
        s.sendto(b"forbidden", ("{host}", {port}))
        sent += 1
        open("/run/flood", "w").write(str(sent))
    except OSError:
        pass
    time.sleep(0.01)
"""
_STREAM = """
import socket, time
s = socket.create_connection(("{host}", {port}), 20)
s.recv(99)
s.settimeout(120)
step = 0
while True:
    s.sendall(b"step")
    s.recv(99)
    step += 1
    open("/run/stream", "w").write(str(step))
    time.sleep(0.1)
"""


def _steps(instance: Instance) -> int:
    return int(within(instance, "t-work", "cat /run/stream 2>/dev/null || echo 0") or 0)


def test_a_template_is_updated_by_a_net_qubes_proxy_alone(
    instance: Instance, beyond: World
) -> None:
    """A repository of one package lies outside; the template has no network of its own."""
    package = _package(beyond.notes.parent / "www")
    policy = instance.home / "policy.d" / "30-user.policy"
    before = policy.read_bytes()
    policy.write_text("qubes.UpdatesProxy * @type:TemplateVM @default allow target=t-net\n")
    instance.say("qvm-clone", "debian-12", "t-tree", timeout=_READY)
    try:
        instance.say("qvm-start", "t-tree", timeout=_READY)
        source = f"deb [trusted=yes] http://{SERVER}/ ./"
        fetch = (
            "rm -rf /etc/apt/sources.list.d; "
            f"echo '{source}' > /etc/apt/sources.list && apt-get -qq update && "
            f"apt-get -qq install -y {package} > /dev/null && cat /usr/share/{package}"
        )
        assert within(instance, "t-tree", fetch) == "from outside\n"
        assert not reaches(instance, "t-tree", wait=1)
        assert {one["peer"] for one in beyond.seen() if one["kind"] == "http"} == {HOST}
    finally:
        policy.write_bytes(before)
        instance.command("qvm-kill", "t-tree")
        instance.remove("t-tree")


def _package(repository: Path) -> str:
    """Make a package, and the list that names it; its name."""
    name = "from-outside"
    tree = repository.parent / "package"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN").chmod(0o755)
    (tree / "usr/share").mkdir(parents=True)
    (tree / "usr/share" / name).write_text("from outside\n")
    control = (
        f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: nobody <a@b.test>\n"
        "Description: a package of the tests\n"
    )
    (tree / "DEBIAN" / "control").write_text(control)
    file = repository / f"{name}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, file], check=True, timeout=60)
    content = file.read_bytes()
    listed = f"Filename: ./{file.name}\nSize: {len(content)}\n"
    listed += f"SHA256: {hashlib.sha256(content).hexdigest()}\n"
    (repository / "Packages").write_text(control + listed)
    return name


def test_the_daemon_and_the_machines_have_no_network(instance: Instance) -> None:
    status = instance.status()
    pids = [status["pid"], *(one["pid"] for one in status["running"])]
    assert len(pids) >= len(_CHAIN)
    for pid in pids:
        devices = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
        assert [line.split(":")[0].strip() for line in devices] == ["lo"], pid
        assert "Seccomp:\t2" in Path(f"/proc/{pid}/status").read_text()
