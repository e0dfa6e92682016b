"""Questions for the virtual name servers go to those that this qube uses itself.

Source: network-firewall.md section 5.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address
from itertools import cycle
from pathlib import Path

_STUB = IPv4Address("127.0.0.53")


def rules(virtual: Sequence[IPv4Address], real: Sequence[IPv4Address]) -> str:
    """For nft, in one transaction: the i-th virtual server is the i-th real one."""
    verdicts = cycle([f"dnat to {server}" for server in real] or ["drop"])
    lines = [
        f"        ip daddr {server} {protocol} dport 53 {verdict}\n"
        for server, verdict in zip(virtual, verdicts, strict=False)
        for protocol in ("udp", "tcp")
    ]
    chain = "ip qubes dnat-dns"
    hook = "type nat hook prerouting priority dstnat; policy accept;"
    return (
        f"add table ip qubes\nadd chain {chain} {{ {hook} }}\ndelete chain {chain}\n"
        f"table ip qubes {{\n    chain dnat-dns {{\n        {hook}\n{''.join(lines)}    }}\n}}\n"
    )


def real_servers(resolv_conf: Path, resolved: Path) -> list[IPv4Address]:
    """The servers that this qube asks. resolved: where systemd-resolved says whom it asks."""
    servers = _servers(resolv_conf)
    if _STUB in servers:
        return _servers(resolved)
    return servers


def _servers(path: Path) -> list[IPv4Address]:
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return []
    found: list[IPv4Address] = []
    for line in text.splitlines():
        match line.split():
            case ["nameserver", value, *_]:
                try:
                    found.append(IPv4Address(value))
                except ValueError:
                    continue
    return found
