"""Qubes in a row, each a network namespace whose links an agent's own thread sets up."""

import errno
import itertools
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import insula.guest
from insula.guest.firewall import tables
from insula.guest.network.configuring import Configuring
from insula.guest.network.links import Links
from insula.guest.network.places import Places
from insula.protocol.control import ControlType
from insula.protocol.links import Link, LinkRole, LinkStatus
from insula.qrexec.loop import Loop
from tests.net.namespaces import Namespace, join
from tests.net.world import BOTH, IPV4, TIMEOUT, Family, Udp, pinged

FILES = Path(insula.guest.__file__).with_name("files")
BASE_RULES = FILES / "firewall" / "base.nft"
CLIENT_MAC, PROVIDER_MAC = "00:16:3e:5e:6c:00", "fe:ff:ff:ff:ff:ff"
VIRTUAL_DNS = ("10.139.1.1", "10.139.1.2")
REAL_DNS, OTHER_DNS = "203.0.113.53", "198.51.100.7"
_NET_ADDRESSES = ("192.0.2.2/24", "2001:db8::2/64")
_GATEWAYS = ("192.0.2.1", "2001:db8::1")
_cards = itertools.count(1)


class Qube:
    """A qube by its number: namespace, keys, files, and what its agent does about links."""

    def __init__(self, number: int, directory: Path, *, provides: bool) -> None:
        self.number = number
        self.ip, self.ip6 = f"10.137.0.{number}", f"fd09:24ef:4179::a89:{number:x}"
        self.namespace = Namespace()
        self.namespace.run("nft", "-f", str(BASE_RULES))
        with self.namespace.entered():
            tables.none_enforced()
        directory.mkdir()
        self.directory = directory
        self.places = Places(
            state=directory / "state",
            base_rules=directory / "base-rules",
            services=directory,
            config=directory,
            resolv_conf=directory / "resolv.conf",
            resolved=directory / "resolved.conf",
        )
        self.places.base_rules.touch()
        self.keys: dict[str, str] = {}
        if provides:
            self.keys |= {
                "/qubes-netvm-network": self.ip,
                "/qubes-netvm-gateway": self.ip,
                "/qubes-netvm-gateway6": self.ip6,
                "/qubes-netvm-primary-dns": VIRTUAL_DNS[0],
                "/qubes-netvm-secondary-dns": VIRTUAL_DNS[1],
            }
        self._answers: list[tuple[ControlType, LinkStatus]] = []
        self.start_agent()

    def start_agent(self) -> None:
        """Have a new agent, which knows nothing but what the former left in files."""
        self._loop = Loop()
        self._links = Links(
            self._loop, lambda: Configuring(self.keys.get, self.places), self._answered
        )

    def _answered(self, kind: ControlType, status: LinkStatus) -> None:
        self._answers.append((kind, status))
        self._stop()

    def _stop(self) -> None:
        self._loop.running = False

    def link(self, link: Link) -> LinkStatus:
        """Set a link up; returns the agent's answer."""
        self.begin_link(link)
        return self.answer(ControlType.LINKED, link.number)

    def begin_link(self, link: Link) -> None:
        with self.namespace.entered():  # in which the thread is that does it
            self._links.link(link)

    def unlink(self, number: int) -> LinkStatus:
        with self.namespace.entered():
            self._links.unlink(number)
        return self.answer(ControlType.UNLINKED, number)

    def answer(self, kind: ControlType, number: int) -> LinkStatus:
        if not self._answers:
            self._loop.after(TIMEOUT, self._stop)
            self._loop.running = True
            self._loop.run()
        said, status = self._answers.pop(0)
        assert (said, status.number) == (kind, number)
        return status

    def wait_for_carrier(self, name: str) -> None:
        """Wait until the kernel sends by a card, which it may notice late of such pairs."""
        deadline = time.monotonic() + TIMEOUT
        while " UP " not in self.ip_shows("-br", "link", "show", name):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def ip_shows(self, *what: str) -> str:
        return self.namespace.run("ip", *what)

    def nft_shows(self, *what: str) -> str:
        return self.namespace.run("nft", "list", *what)


def plug(provider: Qube | Namespace, mac: str, client: Qube | Namespace, client_mac: str) -> None:
    """A cable between two, with cards of any name at its ends."""
    ends = [each.namespace if isinstance(each, Qube) else each for each in (provider, client)]
    names = [f"nic{next(_cards)}" for _ in ends]
    join(ends[0], names[0], ends[1], names[1])
    for end, name, address in zip(ends, names, (mac, client_mac), strict=True):
        end.ip(f"link set {name} address {address}")


def unplug(qube: Qube) -> None:
    """Remove the cards that were taken down, and the cards at their other ends."""
    for line in qube.ip_shows("-br", "link").splitlines():
        if line.startswith("off"):
            qube.namespace.ip(f"link del {line.split('@')[0]}")


def downlink(client: Qube, **changes: object) -> Link:
    """What the provider is told of a client."""
    link = Link(
        number=client.number,
        role=LinkRole.DOWNLINK,
        mac=f"00:16:3e:5e:80:{client.number:02x}",
        name=f"vif{client.number}.0",
        own_mac=PROVIDER_MAC,
        client_mac=CLIENT_MAC,
        ips=(client.ip, client.ip6),
    )
    return replace(link, **changes)  # type: ignore[arg-type]


def uplink() -> Link:
    """What a client is told."""
    return Link(number=0, role=LinkRole.UPLINK, mac=CLIENT_MAC, name="eth0")


def outside_link(dns: str = REAL_DNS) -> Link:
    """What a net qube is told of its card."""
    return Link(
        number=0,
        role=LinkRole.OUTSIDE,
        mac="02:00:00:00:00:02",
        name="eth0",
        ips=_NET_ADDRESSES,
        gateways=_GATEWAYS,
        dns=(dns,),
    )


def client_keys(provider: Qube, client: Qube) -> dict[str, str]:
    """What is in the client's QubesDB."""
    return {
        "/qubes-ip": client.ip,
        "/qubes-netmask": "255.255.255.255",
        "/qubes-gateway": provider.ip,
        "/qubes-primary-dns": VIRTUAL_DNS[0],
        "/qubes-secondary-dns": VIRTUAL_DNS[1],
        "/qubes-ip6": client.ip6,
        "/qubes-gateway6": provider.ip6,
    }


def connect(provider: Qube, client: Qube, **changes: object) -> None:
    """Join two as the daemon does: the provider's end first."""
    link = downlink(client, **changes)
    plug(provider, link.mac, client, CLIENT_MAC)
    assert provider.link(link).code == 0
    client.keys |= client_keys(provider, client)
    if link.visible_ip:
        client.keys["/qubes-ip"] = link.visible_ip
        del client.keys["/qubes-ip6"], client.keys["/qubes-gateway6"]
    if link.visible_gateway:
        client.keys["/qubes-gateway"] = link.visible_gateway
    assert client.link(uplink()).code == 0
    provider.wait_for_carrier(link.name)
    client.wait_for_carrier("eth0")


class Chain:
    """client and sibling - firewall - net - outside; the clients are joined by the test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.outside = Namespace()
        self.net = Qube(3, directory / "net", provides=True)
        self.firewall = Qube(4, directory / "firewall", provides=True)
        self.client = Qube(5, directory / "client", provides=False)
        self.sibling = Qube(6, directory / "sibling", provides=False)
        plug(self.outside, "02:00:00:00:00:01", self.net, "02:00:00:00:00:02")
        (lan,) = (line.split(":")[1].split("@")[0].strip() for line in self._outside_cards())
        self.outside.ip(f"link set {lan} name lan", "link set lan up")
        for family in BOTH:
            length, flag = (24, "") if family.version == 4 else (64, "nodad")
            self.outside.ip(
                f"addr add {family.outside}/{length} dev lan {flag}",
                *(f"addr add {served}/{family.length} dev lo {flag}" for served in family.served),
                # So that what is outside can try to reach whom it must not.
                f"route add {family.clients[0]} via {family.uplink}",
            )
        assert self.net.link(outside_link()).code == 0
        self.net.wait_for_carrier("eth0")
        connect(self.net, self.firewall)

    def _outside_cards(self) -> list[str]:
        return [line for line in self.outside.run("ip", "-o", "link").splitlines() if "nic" in line]

    @property
    def qubes(self) -> tuple[Qube, ...]:
        return (self.net, self.firewall, self.client, self.sibling)

    def close(self) -> None:
        for qube in self.qubes:
            qube.namespace.close()
        self.outside.close()


@contextmanager
def chain(directory: Path) -> Iterator[Chain]:
    made = Chain(directory)
    try:
        yield made
    finally:
        made.close()


def exchanged(
    client: Namespace, outside: Namespace, family: socket.AddressFamily, at: tuple[str, int]
) -> str | None:
    """Send a megabyte there and back by TCP; whom the server saw, or None when nothing came."""
    sent = bytes(range(256)) * 4096
    with outside.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(at)
        listener.listen()
        listener.settimeout(3.0)
        seen: list[str] = []
        echo = threading.Thread(target=_echo, args=(listener, len(sent), seen))
        echo.start()
        got = bytearray()
        try:
            with client.socket(family, socket.SOCK_STREAM) as connection:
                connection.settimeout(2.0)
                connection.connect(at)
                writer = threading.Thread(target=connection.sendall, args=(sent,))
                writer.start()
                while len(got) < len(sent) and (data := connection.recv(65_536)):
                    got += data
                writer.join(TIMEOUT)
        except OSError:
            return None
        finally:
            echo.join(TIMEOUT)
    assert got == sent
    return seen[0]


def _echo(listener: socket.socket, size: int, seen: list[str]) -> None:
    try:
        connection, sender = listener.accept()
    except TimeoutError:
        return
    seen.append(sender[0])
    with connection:
        connection.settimeout(TIMEOUT)
        while size and (data := connection.recv(65_536)):
            size -= len(data)
            connection.sendall(data)


def asked(row: Chain, family: Family, at: tuple[str, int], server: tuple[str, int]) -> str | None:
    """Ask by UDP; who the server saw, if the answer came from whom was asked."""
    client = row.client.namespace.socket(family.socket, socket.SOCK_DGRAM)
    with client, Udp(row.outside, family, *server) as outside:
        client.settimeout(1.0)
        client.connect(at)  # so that nothing from elsewhere is taken
        client.send(b"question")
        outside.socket.settimeout(1.0)
        try:
            data, sender = outside.socket.recvfrom(100)
            outside.socket.sendto(b"answer", sender)
            assert (data, client.recv(100)) == (b"question", b"answer")
        except TimeoutError:
            return None
    found: str = sender[0]
    return found


def reaches(qube: Qube, family: Family = IPV4) -> bool:
    """Whether pings to the outside come to be answered."""
    deadline = time.monotonic() + TIMEOUT
    while not is_answered(qube, family):
        if time.monotonic() > deadline:
            return False
    return True


def is_answered(qube: Qube, family: Family = IPV4) -> bool:
    """Whether one ping to the outside is."""
    try:
        return pinged(qube.namespace, family, family.served[0])
    except OSError as error:
        if error.errno != errno.ENETUNREACH:
            raise
        return False
