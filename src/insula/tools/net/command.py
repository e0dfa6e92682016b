"""What `insula net` shows."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence

from insula.client.app import App
from insula.tools.command import print_json
from insula.tools.net.tree import Network, Node, count, read
from insula.tools.sizes import human_size
from insula.tools.table import print_table

_LINES = ("├─ ", "└─ ", "│  ", "   ")
_PLAIN = ("|- ", "`- ", "|  ", "   ")
# Each column of the tree beside the names: its heading, and what it says of a qube.
_COLUMNS: dict[str, Callable[[Node], str]] = {
    "LABEL": lambda node: node.label,
    "STATE": lambda node: node.state,
    "ADDRESS": lambda node: " ".join(filter(None, (node.ip, node.ip6))) or "-",
    "SENT": lambda node: human_size(node.counted.sent) if node.counted else "-",
    "RECEIVED": lambda node: human_size(node.counted.received) if node.counted else "-",
    "REACHES": lambda node: "; ".join([node.reaches, *node.notes]),
}


def run(arguments: argparse.Namespace) -> int:
    """Show the tree."""
    network = read(App(cache=True))
    count(network)
    if arguments.json:
        print_json(
            {
                "roots": [_as_json(node) for node in network.roots],
                "without_network": [node.name for node in network.apart],
            }
        )
        return 0
    _show(network)
    return 0


def _show(network: Network) -> None:
    lines = _LINES if (sys.stdout.encoding or "").lower().startswith("utf") else _PLAIN
    rows = [("QUBE", *_COLUMNS)]
    for root in network.roots:
        for name, node in _drawn(root, "", "", lines):
            rows.append((name, *(column(node) for column in _COLUMNS.values())))
    if len(rows) > 1:
        print_table(rows)
    else:
        print("No qube provides a network. The usual ones are made by: insula init")
    if network.apart:
        print(f"\nWithout a network: {', '.join(node.name for node in network.apart)}")


def _drawn(node: Node, first: str, rest: str, lines: Sequence[str]) -> Iterator[tuple[str, Node]]:
    """Names with the branches before them. first: what is before this one; rest: below it."""
    branch, last, through, after = lines
    yield first + node.name, node
    for client in node.clients:
        end = client is node.clients[-1]
        yield from _drawn(client, rest + (last if end else branch),
                          rest + (after if end else through), lines)  # fmt: skip


def _as_json(node: Node) -> dict[str, object]:
    return {
        "name": node.name,
        "label": node.label,
        "state": node.state,
        "ip": node.ip or None,
        "ip6": node.ip6 or None,
        "netvm": node.netvm,
        "provides_network": node.provides_network,
        "firewall": [str(rule) for rule in node.rules],
        "reaches": node.reaches,
        "notes": node.notes,
        "sent": node.counted.sent if node.counted else None,
        "received": node.counted.received if node.counted else None,
        "clients": [_as_json(client) for client in node.clients],
    }
