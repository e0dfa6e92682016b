"""The network as a tree, read from the Admin API: who gets it from whom."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from insula.client import errors
from insula.client.app import App, Qube
from insula.protocol.firewall import Rule
from insula.tools.net.counters import Counted
from insula.tools.net.counters import read as read_counters
from insula.tools.net.reaching import in_short

OUTSIDE = "what is outside"
THROUGH_TOR = "through Tor alone"
_GATEWAY_TAG = "anon-gateway"
_DEFERRED = "deferred-netvm-original"
_ENFORCING = "service.qubes-firewall"


@dataclass(slots=True)
class Node:
    """A qube in the network. netvm: through whom; reaches: in words what it may reach there.

    notes: what a person should know of it. clients: who reaches something through it. xid: of its
    domain, -1 when it does not run. counted: what its provider says went through, or None.
    """

    name: str
    label: str
    state: str
    ip: str
    ip6: str
    netvm: str | None
    provides_network: bool
    rules: list[Rule] = field(default_factory=list)
    reaches: str = ""
    notes: list[str] = field(default_factory=list)
    clients: list["Node"] = field(default_factory=list)
    xid: int = -1
    counted: Counted | None = None

    def walk(self) -> Iterator["Node"]:
        """It, and all that are behind it."""
        yield self
        for client in self.clients:
            yield from client.walk()


@dataclass(slots=True)
class Network:
    """roots: qubes that get their network from no other, and provide it. apart: all without one."""

    roots: list[Node]
    apart: list[Node]


def read(app: App) -> Network:
    """The network as it is set; app: with a cache, as every qube is asked for all it has.

    Raises:
        QubesException: the daemon refuses a part.
    """
    qubes: dict[str, Qube] = {}
    nodes: dict[str, Node] = {}
    for qube in app.domains:
        try:
            if (node := _node(qube)) is not None:
                nodes[node.name], qubes[node.name] = node, qube
        except errors.QubesVMNotFoundError:
            continue  # A disposable that is gone meanwhile.
    for node in nodes.values():
        provider = nodes.get(node.netvm or "")
        if provider is not None:
            provider.clients.append(node)
            _look_at_rules(node, qubes[node.name], qubes[provider.name])
        elif node.netvm is None and node.provides_network:
            node.reaches = OUTSIDE
    free = [node for node in nodes.values() if node.netvm not in nodes]
    return Network(
        [node for node in free if node.provides_network],
        [node for node in free if not node.provides_network],
    )


def _node(qube: Qube) -> Node | None:
    """None for what is no machine of ours."""
    answers = qube.get_all()
    if "netvm" not in answers:
        return None
    values = {name: answer.value for name, answer in answers.items()}
    return Node(
        name=qube.name,
        label=values["label"],
        state=qube.state,
        ip=values["ip"],
        ip6=values["ip6"],
        netvm=values["netvm"] or None,
        provides_network=values["provides_network"] == "True",
        xid=int(values["xid"] or -1),
    )


def count(network: Network) -> None:
    """Ask providers that run how much went through them."""
    nodes = [node for root in network.roots for node in root.walk()]
    running = [node for node in nodes if node.provides_network and node.state == "Running"]
    said = read_counters(node.name for node in running if any(one.xid >= 0 for one in node.clients))
    for node in running:
        for client in node.clients:
            client.counted = said.get(node.name, {}).get(client.xid)


def _look_at_rules(node: Node, qube: Qube, provider: Qube) -> None:
    node.rules = qube.firewall.rules
    if _GATEWAY_TAG in provider.tags:
        node.reaches = THROUGH_TOR
    else:
        node.reaches = in_short(node.rules, time.time())
        if provider.features.check(_ENFORCING) == "":
            node.notes.append(f"{provider} enforces no rules")
    deferred = qube.features.check(_DEFERRED) if node.state == "Paused" else None
    if deferred is not None:
        node.notes.append(f"until it goes on: {deferred or 'no network'}")
