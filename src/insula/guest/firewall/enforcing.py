"""What clients may reach, kept as QubesDB says it (network-firewall.md section 8)."""

import ipaddress
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from insula.guest.commands.qubesdb import Database, NotFoundError
from insula.guest.conntrack import Connection, Connections
from insula.guest.firewall import tables
from insula.guest.firewall.clients import (
    BadRulesError,
    Client,
    Flow,
    Match,
    Unknown,
    accepted,
    matches_of,
    nothing,
    parse,
)
from insula.guest.firewall.names import Name, resolvers
from insula.guest.firewall.tables import NotAppliedError
from insula.protocol.errors import ProtocolError
from insula.protocol.qubesdb import MessageType

RULES = "/qubes-firewall/"
CONNECTED = {"/connected-ips": 4, "/connected-ips6": 6}
_MOST_JUDGED = 10_000  # connections of one client; of one that has more, all are forgotten


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds: how long names are waited for; when a client whose name has no address, or that is
    gone, is looked at again; when the addresses of names are looked up again."""

    names: float = 5.0
    again: float = 15.0
    gone: float = 2.0
    refresh: float = 600.0


@dataclass(slots=True)
class _Waiting:
    """A client whose names are looked up. refresh: nothing but their addresses may have changed."""

    client: Client
    until: float
    missing: set[Name]
    refresh: bool
    answers: dict[str, frozenset[str]] = field(default_factory=dict)


class Firewall:
    """The tables, and what is on its way into them.

    database: is to be set before clients are looked at. look_up: has a name looked up, of which
    answered() is told. complain: tells people of rules that cannot be enforced.
    """

    database: Database

    def __init__(
        self,
        look_up: Callable[[Name], None],
        complain: Callable[[str], None],
        times: Times,
    ) -> None:
        self._look_up, self._complain, self._times = look_up, complain, times
        self._in_force: dict[str, tuple[Match, ...]] = {}  # chains, by the addresses of clients
        self._clients: dict[str, Client] = {}  # those that have names in their rules
        self._waiting: dict[str, _Waiting] = {}
        self._again: dict[str, float] = {}  # when to look at a client once more
        self._blocked: dict[str, str] = {}  # and why
        self._known: dict[Name, frozenset[str]] = {}
        self._refresh = time.monotonic() + times.refresh

    def open_tables(self) -> None:
        """Begin: no client passes.

        Raises:
            NotAppliedError: the tables are as they were.
        """
        tables.apply(tables.closed())
        self._in_force.clear()

    def close_tables(self) -> None:
        """End: no client passes.

        Raises:
            NotAppliedError: the tables are as they were.
        """
        tables.apply(tables.emptied(self._in_force))

    def connected(self, key: str) -> None:
        """Take over the list of all clients' addresses of a family.

        Raises:
            NotAppliedError: it is not in force.
        """
        version = CONNECTED[key]
        try:
            words = self.database.read(key).decode("ascii", "replace").split()
        except NotFoundError:
            words = []
        addresses = [word for word in dict.fromkeys(words) if _version(word) == version]
        if len(addresses) != len(set(words)):
            print(f"{key}: some are no addresses: {words!r}", flush=True)
        tables.apply(tables.connected(version, addresses))

    def look_at_all(self) -> None:
        """Take over the rules of all clients, in one transaction."""
        found = self._read(RULES)
        self._take(
            {
                address: entries
                for address, entries in found.items()
                if "" in entries and _version(address)
            }
        )

    def look_at(self, addresses: Iterable[str]) -> None:
        """Take over the rules of some clients."""
        found = {}
        for address in addresses:
            if _version(address) is None:
                print(f"no address has rules: {address!r}", flush=True)
                continue
            entries = self._read(RULES + address).get(address, {})
            if "" in entries:
                found[address] = entries
            elif address in self._in_force:
                # Perhaps new rules are on their way.
                self._again.setdefault(address, time.monotonic() + self._times.gone)
        self._take(found)

    def answered(self, name: Name, addresses: frozenset[str] | None) -> None:
        """Take note of what a name stands for; go_on() does what follows."""
        if addresses is not None:
            self._known[name] = addresses
        for waiting in self._waiting.values():
            if name in waiting.missing:
                waiting.missing.discard(name)
                if addresses is not None:
                    waiting.answers[name.host] = addresses

    def go_on(self) -> None:
        """Do what can be done by now, or has to be."""
        now = time.monotonic()
        self._finish(
            [
                waiting
                for waiting in self._waiting.values()
                if not waiting.missing or waiting.until <= now
            ]
        )
        for address in [address for address, when in self._again.items() if when <= now]:
            del self._again[address]
            entries = self._read(RULES + address).get(address, {})
            if "" in entries:
                self._take({address: entries}, again=True)
            elif address in self._in_force:
                self._remove(address)
        if self._clients and self._refresh <= now:
            self._look_names_up(now)

    def patience(self) -> float | None:
        """Seconds until go_on() has something to do though nothing came; None: it never has."""
        times = [waiting.until for waiting in self._waiting.values()] + list(self._again.values())
        if self._clients:
            times.append(self._refresh)
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _read(self, prefix: str) -> dict[str, dict[str, str]]:
        """What is in the database, by addresses and what comes after those; "" marks its end."""
        found: dict[str, dict[str, str]] = {}
        for path, value in self.database.below(prefix, MessageType.MULTIREAD):
            rest = path.decode("ascii", "replace").removeprefix(RULES)
            address, _, key = rest.partition("/")
            found.setdefault(address, {})[key] = value.decode("ascii", "replace")
        return found

    def _take(self, found: Mapping[str, Mapping[str, str]], *, again: bool = False) -> None:
        """Put rules in force, as far as they can be yet. again: they are in force, all closed."""
        wanted, done = {}, []
        for address, entries in found.items():
            self._forget(address)
            try:
                client = parse(address, {key: text for key, text in entries.items() if key})
            except BadRulesError as error:
                self._block(address, str(error))
                wanted[address] = nothing(_version_of(address))
                done.append(address)
                continue
            names = {Name(client.version, host) for host in client.names}
            if names:
                self._wait(client, names, refresh=False)
            else:
                done.append(address)
                self._blocked.pop(address, None)
            if not names or not again:
                wanted[address] = matches_of(client, self._addresses(client), Unknown.CLOSED)
        self._put(wanted)
        for address in wanted:
            if address in done:
                self._cut(address, self._in_force[address])
                self._tell(address, {})
            else:
                client = self._waiting[address].client
                self._cut(address, matches_of(client, self._addresses(client), Unknown.OPEN))

    def _forget(self, address: str) -> None:
        self._waiting.pop(address, None)
        self._clients.pop(address, None)
        self._again.pop(address, None)

    def _addresses(self, client: Client) -> dict[str, frozenset[str]]:
        """What is known of a client's names."""
        names = {host: Name(client.version, host) for host in client.names}
        return {host: self._known[name] for host, name in names.items() if name in self._known}

    def _wait(self, client: Client, names: set[Name], *, refresh: bool) -> None:
        until = time.monotonic() + self._times.names
        self._waiting[client.address] = _Waiting(client, until, set(names), refresh)
        for name in names:
            self._look_up(name)

    def _finish(self, over: list[_Waiting]) -> None:
        """Put rules in force whose names were looked up."""
        wanted, told = {}, []
        for waiting in over:
            client = waiting.client
            address = client.address
            self._forget(address)
            names = {**(self._addresses(client) if waiting.refresh else {}), **waiting.answers}
            try:
                wanted[address] = matches_of(client, names, Unknown.ERROR)
                self._blocked.pop(address, None)
                self._clients[address] = client
            except BadRulesError as error:
                self._block(address, str(error))
                wanted[address], names = nothing(client.version), {}
                self._again[address] = time.monotonic() + self._times.again
            told.append((address, names, waiting.refresh))
        before = dict(self._in_force)
        self._put({a: matches for a, matches in wanted.items() if before.get(a) != matches})
        for address, names, refresh in told:
            if not refresh:
                self._cut(address, self._in_force[address])
                self._tell(address, names)
            elif before.get(address) != self._in_force[address]:
                self._tell_names(address, names)

    def _put(self, wanted: Mapping[str, tuple[Match, ...]]) -> None:
        """Have rules be in force, all in one transaction if that is possible."""
        if not wanted:
            return
        versions = sorted({_version_of(address) for address in wanted})
        text = "".join(tables.resolvers(version, resolvers(version)) for version in versions)
        for address, matches in wanted.items():
            text += tables.client(address, matches, new=address not in self._in_force)
        try:
            tables.apply(text)
        except NotAppliedError as error:
            if len(wanted) > 1:
                for address, matches in wanted.items():
                    self._put({address: matches})
                return
            (address,) = wanted
            if wanted[address] == nothing(versions[0]):
                raise  # Whoever starts the program anew begins with no client passing.
            self._block(address, str(error))
            self._put({address: nothing(versions[0])})
            return
        self._in_force.update(wanted)

    def _remove(self, address: str) -> None:
        """Take the chain of a client away that is gone."""
        self._forget(address)
        self._blocked.pop(address, None)
        version = _version_of(address)
        del self._in_force[address]
        others = [other for other in self._in_force if _version_of(other) == version]
        tables.apply(tables.without(version, address, others))
        self._cut(address, nothing(version))

    def _block(self, address: str, reason: str) -> None:
        if self._blocked.get(address) != reason:
            self._blocked[address] = reason
            self._complain(f"{address} is blocked: {reason}")

    def _cut(self, address: str, matches: tuple[Match, ...]) -> None:
        """End connections of a client that these would not accept."""
        version = _version_of(address)
        known = frozenset(map(ipaddress.ip_address, resolvers(version)))
        allowed = partial(accepted, matches, resolvers=known)
        try:
            with Connections(version) as connections:
                found = list(connections.begun_by(address))
                if len(found) <= _MOST_JUDGED:
                    found = [one for one in found if not allowed(_flow(one))]
                connections.forget(found)
        except OSError as error:
            print(f"connections of {address} are not ended: {error}", flush=True)
            self._again.setdefault(address, time.monotonic() + self._times.again)

    def _tell(self, address: str, names: Mapping[str, frozenset[str]]) -> None:
        """Let others see that the rules of a client are in force."""
        self._tell_names(address, names)
        key = f"/qubes-firewall-handled/{address}"
        try:
            count = int(self.database.read(key))
        except (NotFoundError, ValueError):
            count = 0
        self._write(key, str(count + 1))

    def _tell_names(self, address: str, names: Mapping[str, frozenset[str]]) -> None:
        with suppress(NotFoundError):
            self.database.remove(f"/dns/{address}/")
        for host, addresses in names.items():
            self._write(f"/dns/{address}/{host}", " ".join(sorted(addresses)))

    def _write(self, key: str, value: str) -> None:
        try:
            self.database.write(key, value.encode())
        except ProtocolError as error:
            print(f"{key}: {error}", flush=True)

    def _look_names_up(self, now: float) -> None:
        self._refresh = now + self._times.refresh
        for client in tuple(self._clients.values()):
            names = {Name(client.version, host) for host in client.names}
            if client.address not in self._waiting:
                self._wait(client, names, refresh=True)


def _flow(connection: Connection) -> Flow:
    return Flow(
        protocol=connection.protocol,
        target=ipaddress.ip_address(connection.target),
        port=connection.target_port,
        icmp_type=connection.icmp_type,
    )


def _version(address: str) -> int | None:
    """The family of an address in its usual form; None when it is none."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    return parsed.version if "%" not in address else None


def _version_of(address: str) -> int:
    return ipaddress.ip_address(address).version
