"""What was made once, so that it is not made again after somebody removed or changed it.

The record is a feature of dom0: names, those still being made with a mark behind them.
"""

from insula.client import errors
from insula.client.app import App
from insula.protocol.admin import ADMIN_QUBE

FEATURE = "insula-init"
_BEING_MADE = ":making"


class Record:
    """Reads the record once, and writes each change."""

    def __init__(self, app: App) -> None:
        self._features = app.domains.known(ADMIN_QUBE).features
        try:
            self._words = self._features[FEATURE].split()
        except errors.QubesFeatureNotFoundError:
            self._words = []

    def has(self, name: str) -> bool:
        """Whether it was made."""
        return name in self._words

    def was_begun(self, name: str) -> bool:
        """Whether it was begun, and an end of that not seen."""
        return name + _BEING_MADE in self._words

    def begin(self, name: str) -> None:
        """Note that it is being made."""
        self._write(name, name + _BEING_MADE)

    def end(self, name: str, *, made: bool) -> None:
        """Note that it was made, or that nothing of it is left."""
        self._write(name, name if made else None)

    def _write(self, name: str, word: str | None) -> None:
        others = [one for one in self._words if one not in (name, name + _BEING_MADE)]
        self._words = others + ([word] if word else [])
        self._features[FEATURE] = " ".join(self._words)
