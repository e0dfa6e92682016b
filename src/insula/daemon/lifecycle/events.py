"""Telling whoever listens what happens in the system."""

from collections.abc import Callable, Iterable

from insula.daemon.model.edit import event
from insula.daemon.model.qube import Qube
from insula.protocol.admin import Event

Listener = Callable[[Event], None]


class Events:
    """Passes events on to listeners at once, in the order in which things happen."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def add(self, listener: Listener) -> None:
        """Have listener called with every event from now on; it must neither block nor raise."""
        self._listeners.append(listener)

    def remove(self, listener: Listener) -> None:
        """Tell it no more."""
        self._listeners.remove(listener)

    def send(self, events: Iterable[Event]) -> None:
        """Tell of events that were put together before."""
        for one in events:
            for listener in tuple(self._listeners):
                listener(one)

    def tell(self, qube: Qube | None, name: str, /, **fields: object) -> None:
        """Tell of one event of a qube, or of the system."""
        self.send([event(qube, name, **fields)])
