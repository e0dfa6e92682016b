"""Which applications a search finds, and in which order qubes are shown."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from insula.menus.system import Item, MenuQube
from insula.protocol.menus import Application

_WORD = re.compile(r"[a-z0-9]+", re.ASCII)
_STATES = {
    "Running": "running",
    "Transient": "starting",
    "Paused": "paused",
    "Suspended": "asleep",
    "Halting": "shutting down",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """An application of a qube. disposables: the template for starting it in a new disposable."""

    qube: MenuQube
    item: Item
    disposables: str | None

    @property
    def application(self) -> Application:
        """What is started."""
        return self.item.application


def entries(qube: MenuQube, others: Mapping[str, MenuQube]) -> list[Entry]:
    """What a qube's menu shows."""
    known = dict(others)
    return [
        Entry(qube, item, qube.in_disposable(item.application.id, known)) for item in qube.shown
    ]


def found(every: Iterable[Entry], text: str) -> list[Entry]:
    """The entries in which every word of a text is somewhere; the likeliest first."""
    words = text.lower().split()
    ranked = [(rank, entry) for entry in every if (rank := _rank(entry, words)) is not None]
    return [
        entry
        for _, entry in sorted(
            ranked, key=lambda one: (one[0], one[1].application.name.lower(), one[1].qube.name)
        )
    ]


def _rank(entry: Entry, words: Sequence[str]) -> int | None:
    """0 where the name begins so, 1 where each is in the name or the qube's, 2 elsewhere.

    Elsewhere only the beginnings of words count: who looks for work does not mean networks.
    """
    application = entry.application
    name = application.name.lower()
    near = f"{name} {entry.qube.name.lower()}"
    far = " ".join((application.generic_name, application.comment, *application.categories))
    others = _WORD.findall(far.lower())
    missing = [word for word in words if word not in near]
    if not all(any(other.startswith(word) for other in others) for word in missing):
        return None
    if missing:
        return 2
    return 0 if words and name.startswith(words[0]) else 1


def in_order(qubes: Iterable[MenuQube], labels: Sequence[str]) -> list[MenuQube]:
    """Qubes by the order of labels, then by name."""
    places = {label: place for place, label in enumerate(labels)}
    return sorted(qubes, key=lambda one: (places.get(one.label, len(places)), one.name))


def state_text(state: str) -> str:
    """What is said of a power state; nothing of a qube that is down."""
    return _STATES.get(state, "")
