"""A client that is told other addresses than it has (network-firewall.md section 4, end).

Its card lies in a network namespace of its own, which rewrites addresses packet by packet; a pair
of virtual cards joins that to the provider, whose end is the client's card to all else.
"""

from dataclasses import dataclass

from insula.guest.network.addresses import PROVIDER_MAC, Downlink

CLIENT_MAC = "00:16:3e:5e:6c:00"


@dataclass(frozen=True, slots=True)
class Names:
    """What belongs to a card: its namespace, and the pair's end in there."""

    card: str

    @property
    def namespace(self) -> str:
        return f"{self.card}-nat"

    @property
    def inner(self) -> str:
        return f"{self.card}-p"


def is_hidden(card: Downlink) -> bool:
    return card.visible is not None or card.visible_gateway is not None


def making(card: Downlink) -> list[str]:
    """For ip: move the card into a namespace of its own, and put the pair's end in its place."""
    names = Names(card.name)
    return [
        f"netns add {names.namespace}",
        f"link set dev {names.card} netns {names.namespace}",
        f"link add name {names.card} address {PROVIDER_MAC} type veth"
        f" peer name {names.inner} address {CLIENT_MAC} netns {names.namespace}",
    ]


def rules(card: Downlink) -> str:
    """For nft in the namespace: what passes, and as what."""
    names = Names(card.name)
    real, gateway = card.addresses[0], card.gateways[0]
    visible = card.visible or real
    visible_gateway = card.visible_gateway or gateway
    return f"""\
table netdev hidden
delete table netdev hidden
table netdev hidden {{
    chain from-client {{
        type filter hook ingress device "{names.card}" priority filter; policy drop;
        arp operation request arp saddr ip {visible} accept
        ip saddr != {visible} drop
        ip saddr set {real}
        ip daddr {visible_gateway} ip daddr set {gateway}
        meta protocol ip fwd to "{names.inner}"
    }}
    chain to-client {{
        type filter hook ingress device "{names.inner}" priority filter; policy drop;
        ip daddr != {real} drop
        ip daddr set {visible}
        ip saddr {gateway} ip saddr set {visible_gateway}
        meta protocol ip fwd to "{names.card}"
    }}
}}
"""


def inside(card: Downlink) -> list[str]:
    """For ip in the namespace: answer the client's questions for neighbours, and go up."""
    names = Names(card.name)
    visible = card.visible or card.addresses[0]
    visible_gateway = card.visible_gateway or card.gateways[0]
    return [
        f"addr replace {visible_gateway}/32 dev {names.card}",
        f"neigh replace {visible} dev {names.card} lladdr {card.client_mac} nud permanent",
        f"link set dev {names.card} up",
        f"link set dev {names.inner} up",
        f"route replace {visible} dev {names.card}",
        f"route replace default dev {names.inner}",
    ]


def leaving(card: str, spare_name: str, home: str) -> list[str]:
    """For ip in the namespace: send the card home, a path of a network namespace."""
    return [
        f"link set dev {card} down",
        f"link set dev {card} name {spare_name}",
        f"link set dev {spare_name} netns {home}",
    ]


def unmaking(card: str) -> list[str]:
    """For ip: remove what making() made."""
    return [f"netns del {Names(card).namespace}", f"link del dev {card}"]
