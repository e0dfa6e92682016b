"""Labels as objects."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from insula.client.errors import QubesLabelNotFoundError

if TYPE_CHECKING:
    from insula.client.app import App


@dataclass(frozen=True, slots=True)
class Label:
    """One label. color: "0x" and six hexadecimal digits."""

    name: str
    index: int
    color: str

    def __str__(self) -> str:
        return self.name


class Labels(Mapping[str, Label]):
    """All labels by their names, in the order of their numbers."""

    def __init__(self, app: "App") -> None:
        self._app = app

    def __getitem__(self, name: str) -> Label:
        if name not in (known := self._names()):
            text = f"no such label: {name!r}\nThere are {', '.join(known)}"
            raise QubesLabelNotFoundError(text)
        color = self._app.call("admin.label.Get", name).decode()
        return Label(name, int(self._app.call("admin.label.Index", name)), color)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def create(self, name: str, color: str) -> Label:
        """Make a label. color: "0x" and six hexadecimal digits.

        Raises:
            QubesValueError: there is one of that name.
            QubesDaemonAccessError: name or colour cannot be.
        """
        self._app.call("admin.label.Create", name, color.encode())
        return self[name]

    def remove(self, name: str) -> None:
        """Take a label away.

        Raises:
            QubesException: a qube has it.
            QubesDaemonAccessError: it is built in.
        """
        self._app.call("admin.label.Remove", name)

    def _names(self) -> list[str]:
        return self._app.call("admin.label.List").decode().splitlines()
