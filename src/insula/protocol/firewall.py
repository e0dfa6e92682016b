"""Firewall rules as the Admin API and QubesDB spell them (admin-api.md section 3.8)."""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from insula.protocol.errors import ProtocolError

ACTIONS = ("accept", "drop")
PROTOCOLS = ("tcp", "udp", "icmp")
DEFAULT = "action=accept"  # the rules of a qube that never had any set
_HOST_KEYS = ("dsthost", "dst4", "dst6", "dstname")
_KEYS = ("action", "expire", *_HOST_KEYS, "proto", "specialtarget", "dstports", "icmptype")
_VALUE = re.compile(r"[A-Za-z0-9:;,./\-_\[\]]+", re.ASCII)
_COMMENT = re.compile(r"[A-Za-z0-9:;,./\-_\[\] ]*", re.ASCII)
_NAME = re.compile(r"[a-z0-9._-]+", re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,19}", re.ASCII)
_HIGHEST_PORT = 65_535
_HIGHEST_ICMP = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule. host: its key and value; ports: first and last; expire: seconds since the epoch."""

    action: str
    expire: int | None = None
    host: tuple[str, str] | None = None
    proto: str | None = None
    specialtarget: str | None = None
    ports: tuple[int, int] | None = None
    icmptype: int | None = None
    comment: str | None = None

    def __str__(self) -> str:
        """The rule in the order in which answers have it."""
        items = [f"action={self.action}"]
        if self.expire is not None:
            items.append(f"expire={self.expire}")
        if self.host is not None:
            items.append("=".join(self.host))
        if self.proto is not None:
            items.append(f"proto={self.proto}")
        if self.specialtarget is not None:
            items.append(f"specialtarget={self.specialtarget}")
        if self.ports is not None:
            items.append(f"dstports={self.ports[0]}-{self.ports[1]}")
        if self.icmptype is not None:
            items.append(f"icmptype={self.icmptype}")
        if self.comment is not None:
            items.append(f"comment={self.comment}")
        return " ".join(items)

    def expired(self, now: float) -> bool:
        """Whether its time is over."""
        return self.expire is not None and self.expire <= now

    def enforced(self) -> str:
        """The rule as its enforcer gets it: told while it holds, and without words to people."""
        return str(replace(self, expire=None, comment=None))


def published(address: str, rules: Sequence[Rule], now: float) -> list[tuple[str, str]]:
    """Entries of a provider's QubesDB that tell it a client's rules, in this order.

    address: one of the client's; rules for the other family are left out, and those whose time is
    over. The last entry is the sign that all are there.

    Raises:
        ValueError: it is no address.
    """
    path = f"/qubes-firewall/{address}"
    other = {4: "dst6", 6: "dst4"}[ipaddress.ip_address(address).version]
    found = [
        (f"{path}/{number:04}", rule.enforced())
        for number, rule in enumerate(rules)
        if not rule.expired(now) and (rule.host is None or rule.host[0] != other)
    ]
    return [*found, (f"{path}/policy", "drop"), (path, "")]


def parse_rules(untrusted: str) -> list[Rule]:
    """Rules one a line; none is none.

    Raises:
        ProtocolError: a line is not a rule.
    """
    if not untrusted:
        return []
    return [parse_rule(line) for line in untrusted.removesuffix("\n").split("\n")]


def parse_rule(untrusted: str) -> Rule:
    """One rule.

    Raises:
        ProtocolError: it is none.
    """
    head, comment = _comment(untrusted)
    fields: dict[str, str] = {}
    for item in head.split(" "):
        key, equals, value = item.partition("=")
        if not equals or key not in _KEYS or _VALUE.fullmatch(value) is None:
            raise ProtocolError(f"not an item of a rule: {item[:80]!r}")
        key = "dsthost" if key in _HOST_KEYS else key
        if key in fields:
            raise ProtocolError(f"{key} is given twice")
        fields[key] = value
    rule = Rule(
        action=_one_of("action", fields.get("action", ""), ACTIONS),
        expire=_number(fields["expire"]) if "expire" in fields else None,
        host=parse_host(fields["dsthost"]) if "dsthost" in fields else None,
        proto=_one_of("proto", fields["proto"], PROTOCOLS) if "proto" in fields else None,
        specialtarget=(
            _one_of("specialtarget", fields["specialtarget"], ("dns",))
            if "specialtarget" in fields
            else None
        ),
        ports=_ports(fields["dstports"]) if "dstports" in fields else None,
        icmptype=_icmp(fields["icmptype"]) if "icmptype" in fields else None,
        comment=comment,
    )
    if rule.ports is not None and rule.proto not in ("tcp", "udp"):
        raise ProtocolError("dstports needs proto tcp or udp")
    if rule.icmptype is not None and rule.proto != "icmp":
        raise ProtocolError("icmptype needs proto icmp")
    return rule


def parse_host(text: str) -> tuple[str, str]:
    """Key and value of a host, a network or a name.

    Raises:
        ProtocolError: it is none of them.
    """
    address, slash, length = text.partition("/")
    version = _version(address)
    if version is None:
        if slash or _NAME.fullmatch(text) is None:
            raise ProtocolError(f"not a host: {text[:80]!r}")
        return "dsthost", text
    longest = 32 if version == 4 else 128
    if not slash:
        length = str(longest)
    elif _DIGITS.fullmatch(length) is None or int(length) > longest:
        raise ProtocolError(f"not the length of a network's address: {length[:20]!r}")
    return f"dst{version}", f"{address}/{int(length)}"


def _comment(text: str) -> tuple[str, str | None]:
    """A rule without its comment, which takes the rest of the line, and that."""
    head, found, comment = text.partition(" comment=")
    if not found:
        return text, None
    if _COMMENT.fullmatch(comment) is None:
        raise ProtocolError("a comment has characters that it may not have")
    return head, comment


def _version(address: str) -> int | None:
    for version, kind in ((4, ipaddress.IPv4Address), (6, ipaddress.IPv6Address)):
        try:
            kind(address)
        except ValueError:
            continue
        return version
    return None


def _one_of(key: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ProtocolError(f"{key} is one of {', '.join(known)}, not {value[:80]!r}")
    return value


def _number(text: str) -> int:
    if _DIGITS.fullmatch(text) is None:
        raise ProtocolError(f"not a number: {text[:80]!r}")
    return int(text)


def _ports(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    lowest = _number(first)
    highest = _number(last) if dash else lowest
    if not lowest <= highest <= _HIGHEST_PORT:
        raise ProtocolError(f"not ports: {text[:80]!r}")
    return lowest, highest


def _icmp(text: str) -> int:
    if len(text) > 3 or (number := _number(text)) > _HIGHEST_ICMP:
        raise ProtocolError(f"not an ICMP type: {text[:80]!r}")
    return number
