"""What a client may reach: texts of QubesDB to matches, which nft gets and flows are held to.

Source: network-firewall.md sections 7 and 8.
"""

import enum
import ipaddress
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from insula.protocol.errors import ProtocolError
from insula.protocol.firewall import Rule, parse_rule

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Names = Mapping[str, frozenset[str]]  # names of hosts, and addresses of one family

DNS_PORT = 53
_NUMBER = re.compile(r"[0-9]{4,6}", re.ASCII)
_PROTOCOLS = {
    (4, "tcp"): socket.IPPROTO_TCP,
    (4, "udp"): socket.IPPROTO_UDP,
    (4, "icmp"): socket.IPPROTO_ICMP,
    (6, "tcp"): socket.IPPROTO_TCP,
    (6, "udp"): socket.IPPROTO_UDP,
    (6, "icmp"): socket.IPPROTO_ICMPV6,
}


class BadRulesError(Exception):
    """Rules of a client cannot be enforced as they are."""


class Unknown(enum.Enum):
    """What becomes of rules whose name has no address yet."""

    ERROR = "error"
    CLOSED = "closed"  # nothing is accepted that the whole of the rules might not accept
    OPEN = "open"  # everything is accepted that the whole of the rules might accept


@dataclass(frozen=True, slots=True)
class Client:
    """An address of a client, and the rules for it in their order."""

    address: str
    rules: tuple[Rule, ...]
    policy: str

    @property
    def version(self) -> int:
        return ipaddress.ip_address(self.address).version

    @property
    def names(self) -> frozenset[str]:
        """Names of hosts in the rules."""
        return frozenset(
            rule.host[1]
            for rule in self.rules
            if rule.host is not None and rule.host[0] == "dsthost"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Where a connection goes, as the forward hook sees it. protocol: its number in IP."""

    protocol: int
    target: Address
    port: int | None = None
    icmp_type: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A rule of the filter; what is None does not matter.

    named: the networks are addresses of a name. dns: the target is a resolver. port_protocol: what
    the ports are of, whether or not protocol is named for itself.
    """

    accept: bool
    version: int
    protocol: str | None = None
    networks: tuple[Network, ...] | None = None
    named: bool = False
    dns: bool = False
    port_protocol: str | None = None
    ports: tuple[int, int] | None = None
    icmp_type: int | None = None

    def holds(self, flow: Flow, resolvers: frozenset[Address]) -> bool:
        """Whether a connection is of this kind."""
        for protocol in (self.protocol, self.port_protocol):
            if protocol is not None and _PROTOCOLS[self.version, protocol] != flow.protocol:
                return False
        if self.networks is not None and not any(flow.target in one for one in self.networks):
            return False
        if self.dns and flow.target not in resolvers:
            return False
        if self.ports is not None and not (
            flow.port is not None and self.ports[0] <= flow.port <= self.ports[1]
        ):
            return False
        return self.icmp_type is None or self.icmp_type == flow.icmp_type


def accepted(matches: tuple[Match, ...], flow: Flow, resolvers: frozenset[Address]) -> bool:
    """Whether a connection passes; the first match decides."""
    for match in matches:
        if match.holds(flow, resolvers):
            return match.accept
    return False


def parse(address: str, untrusted: Mapping[str, str]) -> Client:
    """A client of what is in QubesDB below its address.

    Raises:
        BadRulesError: something there is no rule, or the policy is missing.
    """
    texts = dict(untrusted)
    policy = texts.pop("policy", None)
    if policy not in ("accept", "drop"):
        raise BadRulesError(f"the policy is {policy!r}" if policy else "there is no policy")
    strange = sorted(key for key in texts if _NUMBER.fullmatch(key) is None)
    if strange:
        raise BadRulesError(f"{strange[0]!r} is not the number of a rule")
    version = ipaddress.ip_address(address).version
    rules = tuple(_rule(texts[key], version) for key in sorted(texts, key=int))
    return Client(address, rules, policy)


def _rule(text: str, version: int) -> Rule:
    try:
        rule = parse_rule(text)
    except ProtocolError as error:
        raise BadRulesError(str(error)) from None
    if rule.expire is not None or rule.comment is not None:
        raise BadRulesError(f"not for whoever enforces rules: {text[:80]!r}")
    if rule.host is not None and rule.host[0] == {4: "dst6", 6: "dst4"}[version]:
        raise BadRulesError(f"{rule.host[1]} is of the other family")
    return rule


def nothing(version: int) -> tuple[Match, ...]:
    """Matches of a client that reaches nothing."""
    return (Match(accept=False, version=version),)


def matches_of(client: Client, names: Names, unknown: Unknown) -> tuple[Match, ...]:
    """Matches in their order; the last is the policy and holds for all.

    Raises:
        BadRulesError: a name has no address, and that is an error.
    """
    found: list[Match] = []
    networks: tuple[Network, ...] | None
    for rule in client.rules:
        if rule.host is None:
            networks = None
        elif rule.host[0] != "dsthost":
            networks = (ipaddress.ip_network(rule.host[1], strict=False),)
        elif (addresses := names.get(rule.host[1])) is not None:
            networks = tuple(map(ipaddress.ip_network, sorted(addresses)))
        elif unknown is Unknown.ERROR:
            raise BadRulesError(f"{rule.host[1]} has no address")
        elif (rule.action == "accept") == (unknown is Unknown.CLOSED):
            continue
        else:
            networks = None  # It might be any.
        found += _matches(rule, client.version, networks)
    return (*found, Match(accept=client.policy == "accept", version=client.version))


def _matches(rule: Rule, version: int, networks: tuple[Network, ...] | None) -> Iterator[Match]:
    match = Match(
        accept=rule.action == "accept",
        version=version,
        protocol=rule.proto,
        networks=networks,
        named=rule.host is not None and rule.host[0] == "dsthost",
        port_protocol=rule.proto if rule.ports is not None else None,
        ports=rule.ports,
        icmp_type=rule.icmptype,
    )
    if rule.specialtarget is None:
        yield match
    elif rule.ports is None or rule.ports[0] <= DNS_PORT <= rule.ports[1]:
        for protocol in ("tcp", "udp"):
            if rule.proto in (None, protocol):
                ports = (DNS_PORT, DNS_PORT)
                yield replace(match, dns=True, port_protocol=protocol, ports=ports)
