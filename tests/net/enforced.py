"""A provider that enforces its clients' rules: its QubesDB, the resolver it asks, the program."""

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import insula
from insula.guest.commands.qubesdb import Database, NotFoundError
from insula.guest.qubesdb import Server, Store
from insula.protocol.firewall import parse_rule, published
from insula.protocol.qubesdb import MessageType
from insula.qrexec.loop import Loop
from tests.net.world import IPV4, TIMEOUT, Family, World

_START = """
set -e
mount --bind "$1" /etc/resolv.conf
shift
exec "$@"
"""
_MAIN = """
import sys
from insula.guest.firewall.__main__ import main
from insula.guest.firewall.enforcing import Times
given = (word.split("=") for word in sys.argv[1:])
sys.exit(main(Times(**{key: float(value) for key, value in given})))
"""


def until(condition: Callable[[], object]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "it does not come to hold"
        time.sleep(0.01)


class Resolver:
    """A DNS server outside; addresses: of names. Silent: it answers nothing."""

    def __init__(self, world: World) -> None:
        self.addresses: dict[str, list[str]] = {}
        self.silent = False
        self.asked = 0
        self.at = IPV4.served[2]
        self._socket = world.outside.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((self.at, 53))
        self._socket.settimeout(0.1)
        self._over = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._over = True
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while not self._over:
            try:
                query, sender = self._socket.recvfrom(512)
            except TimeoutError:
                continue
            self.asked += 1
            if not self.silent:
                self._socket.sendto(self._answer(query), sender)

    def _answer(self, query: bytes) -> bytes:
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += 1 + query[at]
        kind = int.from_bytes(query[at + 1 : at + 3], "big")
        question = query[12 : at + 5]
        known = self.addresses.get(".".join(labels))
        found = [a for a in known or [] if (":" in a) == (kind == 28)]
        answers = b""
        for address in found:
            packed = socket.inet_pton(socket.AF_INET6 if kind == 28 else socket.AF_INET, address)
            answers += struct.pack("!HHHIH", 0xC00C, kind, 1, 1, len(packed)) + packed
        flags = 0x8180 if known is not None else 0x8183
        return query[:2] + struct.pack("!HHHHH", flags, 1, len(found), 0, 0) + question + answers


class Provider:
    """The provider of a world. directory: where its database's socket is, and other files."""

    def __init__(self, world: World, directory: Path) -> None:
        self.world, self.directory = world, directory
        self.database_path = directory / "qubesdb.sock"
        self._serve()
        self.process: subprocess.Popen[bytes] | None = None
        self.resolv_conf = directory / "resolv.conf"
        self.use_resolver(IPV4.served[2])
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._listener.bind(str(directory / "notify"))
        self._listener.settimeout(TIMEOUT)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._listener.close()
        self._end_serving()

    def _serve(self) -> None:
        self._loop = Loop()
        self._server = Server(self._loop, self.database_path, Store(), lambda _key, _value: None)
        self._thread = threading.Thread(target=self._loop.run)
        self._thread.start()
        self.dom0 = Database(str(self.database_path))

    def _end_serving(self) -> None:
        self._loop.running = False
        with socket.socket(socket.AF_UNIX) as wake:
            wake.connect(str(self.database_path))
        self._thread.join()
        self._server.close()
        self.dom0.close()

    def restart_database(self) -> None:
        """End the server of the database, and start one that has nothing yet."""
        self._end_serving()
        self._serve()

    def use_resolver(self, *addresses: str) -> None:
        """Have it ask these."""
        lines = [f"nameserver {address}\n" for address in addresses]
        self.resolv_conf.write_text("".join([*lines, "options timeout:1 attempts:1\n"]))

    def start(self, **times: float) -> None:
        """Start the program; returns when it is ready. times: other than it has by itself."""
        words = ["unshare", "--mount", "/bin/sh", "-c", _START, "sh", str(self.resolv_conf)]
        words += [sys.executable, "-c", _MAIN, *(f"{key}={value}" for key, value in times.items())]
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(insula.__file__).parent.parent),
            "INSULA_QUBESDB_SOCKET": str(self.database_path),
            "NOTIFY_SOCKET": str(self.directory / "notify"),
        }
        log = (self.directory / "log").open("ab")
        with log:
            self.process = self.world.provider.popen(words, env=environment, stdout=log, stderr=log)
        self.told("READY=1")
        for listed in ("192.0.2.200", ""):  # It is watching once it does what is new.
            self.dom0.write("/connected-ips", listed.encode())
            until(lambda listed=listed: bool(self.chain(IPV4, "prerouting")) == bool(listed))  # type: ignore[misc]

    def told(self, text: str) -> None:
        """Wait until the program has said something to systemd."""
        while not self._listener.recv(1000).decode().startswith(text):
            pass

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End the program; returns its exit code."""
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(TIMEOUT)

    def handled(self, address: str) -> int:
        """How often rules for an address were put in force."""
        return int(self.read(f"/qubes-firewall-handled/{address}") or "0")

    def read(self, key: str) -> str | None:
        try:
            return self.dom0.read(key).decode()
        except NotFoundError:
            return None

    def publish(self, address: str, rules: Sequence[str]) -> None:
        """Write a client's rules as dom0 does."""
        entries = published(address, [parse_rule(rule) for rule in rules], 0.0)
        self.write(address, entries)

    def write(self, address: str, entries: Sequence[tuple[str, str]]) -> None:
        self.withdraw(address, commit=False)
        for key, value in entries:
            self.dom0.write(key, value.encode())

    def withdraw(self, address: str, *, commit: bool = True) -> None:
        """Remove a client's rules; commit: and say that this is all."""
        for key in [f"/qubes-firewall/{address}/"] + [f"/qubes-firewall/{address}"] * commit:
            if any(True for _ in list(self.dom0.below(key, MessageType.LIST))):
                self.dom0.remove(key)

    def enforce(self, address: str, rules: Sequence[str]) -> None:
        """Publish rules, and wait until they are in force."""
        before = self.handled(address)
        self.publish(address, rules)
        until(lambda: self.handled(address) > before)

    def chain(self, family: Family, name: str) -> list[str]:
        """Rules of a chain as nft shows them."""
        text = self.world.provider.run(
            *("nft", "--stateless", "--numeric", "list", "chain", family.nft, "qubes-firewall"),
            name,
        )
        lines = [line.strip() for line in text.splitlines()[2:-2]]
        return [line for line in lines if not line.startswith("type ")]
