"""The card that leads out of a qube, as commands of `ip` (network-firewall.md section 3)."""

from insula.guest.network.addresses import PROVIDER_MAC, Outward


def commands(name: str, card: Outward, *, default_route: bool) -> list[str]:
    """Configure the card, which is down or has been configured by the same commands before.

    Each can be given again without a packet being lost.
    """
    lines = [
        f"addr replace {address} dev {name}{_now(address.version)}" for address in card.addresses
    ]
    lines += neighbours(name, card)
    lines.append(f"link set dev {name} group {card.group} up")
    lines += [
        f"route replace {gateway} dev {name}" + (" scope link" if gateway.version == 4 else "")
        for gateway in card.gateways
        if not gateway.is_link_local
    ]
    if default_route:
        lines += [
            f"route replace default via {gateway} dev {name} onlink" for gateway in card.gateways
        ]
    return lines


def neighbours(name: str, card: Outward) -> list[str]:
    """Know the gateways, which nobody is asked for."""
    if not card.neighbours:
        return []
    return [
        f"neigh replace {gateway} dev {name} lladdr {PROVIDER_MAC} nud permanent"
        for gateway in card.gateways
    ]


def _now(version: int) -> str:
    """IPv6 would first look for others that have the address: there are none on such a link."""
    return " nodad" if version == 6 else ""
