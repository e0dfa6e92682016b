"""Texts for nft: the tables qubes-firewall, that is what clients may reach.

Source: network-firewall.md section 8.
"""

import ipaddress
import subprocess
from collections.abc import Iterable, Iterator, Sequence

from insula.guest.firewall.clients import Match

FAMILIES = {4: "ip", 6: "ip6"}
TABLE = "qubes-firewall"
_NFT = "/usr/sbin/nft"
_TIMEOUT = 60.0  # seconds; a transaction of a thousand rules takes one under emulation


class NotAppliedError(Exception):
    """nft did not take a text; nothing of it is in force."""


def apply(text: str) -> None:
    """Change rules, all at once.

    Raises:
        NotAppliedError: they are as before.
    """
    try:
        done = subprocess.run(
            [_NFT, "-f", "-"],
            input=text,
            text=True,
            stderr=subprocess.PIPE,
            timeout=_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise NotAppliedError(str(error)) from None
    if done.returncode:
        raise NotAppliedError(done.stderr[:1000])


def removed() -> str:
    """A text that removes the tables, whether they are there or not."""
    return "".join(
        f"add table {family} {TABLE}\ndelete table {family} {TABLE}\n"
        for family in FAMILIES.values()
    )


def none_enforced() -> None:
    """Let clients reach what they like: this provider does not look at rules of theirs.

    Raises:
        NotAppliedError: they still reach nothing.
    """
    apply(removed())


def closed() -> str:
    """A text that makes the tables, or lets no client pass where they are already.

    What is kept from being impersonated stays so until connected() says otherwise.
    Chains that packets come to are flushed, never removed: a packet may find its way between the
    end of one and the beginning of the next, even in one transaction.
    """
    return "".join(
        f"""\
table {family} {TABLE} {{
    set dns-addr {{
        type ipv{version}_addr
    }}
    chain qubes-forward {{
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
    }}
    chain prerouting {{
        type filter hook prerouting priority raw; policy accept;
    }}
    chain postrouting {{
        type filter hook postrouting priority raw; policy accept;
    }}
}}
flush set {family} {TABLE} dns-addr
flush chain {family} {TABLE} qubes-forward
flush chain {family} {TABLE} forward
table {family} {TABLE} {{
    chain forward {{
        ct state established,related accept
        iifname != "vif*" accept
        jump qubes-forward
    }}
}}
"""
        for version, family in FAMILIES.items()
    )


def chain_of(address: str) -> str:
    """The name of the chain that has a client's rules."""
    return "qbs-" + address.replace(".", "-").replace(":", "-")


def resolvers(version: int, addresses: Iterable[str]) -> str:
    """A text that says which servers are meant where a rule says dns."""
    family = FAMILIES[version]
    text = f"flush set {family} {TABLE} dns-addr\n"
    if members := ", ".join(addresses):
        text += f"add element {family} {TABLE} dns-addr {{ {members} }}\n"
    return text


def client(address: str, matches: Sequence[Match], *, new: bool) -> str:
    """A text that gives a client its rules. new: it has no chain yet."""
    version = matches[0].version
    family, chain = FAMILIES[version], chain_of(address)
    rules = "".join(f"        {_rule(match)}\n" for match in matches)
    return (
        f"add chain {family} {TABLE} {chain}\n"
        + f"flush chain {family} {TABLE} {chain}\n"
        + f"table {family} {TABLE} {{\n    chain {chain} {{\n{rules}    }}\n}}\n"
        + (_jump(family, address) if new else "")
    )


def without(version: int, address: str, others: Iterable[str]) -> str:
    """A text that removes a client's chain. others: clients of the family whose chains stay."""
    family = FAMILIES[version]
    return (
        f"flush chain {family} {TABLE} qubes-forward\n"
        + "".join(_jump(family, other) for other in others)
        + _gone(family, address)
    )


def connected(version: int, addresses: Iterable[str]) -> str:
    """A text that keeps addresses of configured clients from being used or reached elsewhere."""
    family = FAMILIES[version]
    text = "".join(
        f"flush chain {family} {TABLE} {chain}\n" for chain in ("prerouting", "postrouting")
    )
    if members := ", ".join(addresses):
        text += (
            f"add rule {family} {TABLE} prerouting"
            f' iifname != "vif*" {family} saddr {{ {members} }} drop\n'
            f"add rule {family} {TABLE} postrouting"
            f' oifname != "vif*" {family} daddr {{ {members} }} drop\n'
        )
    return text


def _jump(family: str, address: str) -> str:
    chain = chain_of(address)
    return f"add rule {family} {TABLE} qubes-forward {family} saddr {address} jump {chain}\n"


def _gone(family: str, address: str) -> str:
    """What removes a client's chain, to which nothing jumps by now."""
    chain = chain_of(address)
    return f"flush chain {family} {TABLE} {chain}\ndelete chain {family} {TABLE} {chain}\n"


def _rule(match: Match) -> str:
    return " ".join(_words(match))


def _words(match: Match) -> Iterator[str]:
    family = FAMILIES[match.version]
    icmp = "icmp" if match.version == 4 else "icmpv6"
    if match.protocol is not None:
        key = "ip protocol" if match.version == 4 else "ip6 nexthdr"
        yield f"{key} {icmp if match.protocol == 'icmp' else match.protocol}"
    if match.networks is not None:
        members = ", ".join(map(str, match.networks))
        yield f"{family} daddr {f'{{ {members} }}' if match.named else members}"
    if match.dns:
        yield f"{family} daddr @dns-addr"
    if match.ports is not None:
        first, last = match.ports
        yield f"{match.port_protocol} dport {first if first == last else f'{first}-{last}'}"
    if match.icmp_type is not None:
        yield f"{icmp} type {match.icmp_type}"
    yield "accept" if match.accept else f"reject with {icmp} type admin-prohibited"


def emptied(addresses: Iterable[str]) -> str:
    """A text after which no client passes. addresses: of all clients that have chains, which go."""
    text = "".join(f"flush chain {family} {TABLE} qubes-forward\n" for family in FAMILIES.values())
    for address in addresses:
        family = FAMILIES[ipaddress.ip_address(address).version]
        text += _gone(family, address)
    return text
