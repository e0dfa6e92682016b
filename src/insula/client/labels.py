"""Labels as objects."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from insula.client.by_name import ByName
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


class Labels(ByName[Label]):
    """All labels by their names, in the order of their numbers."""

    def __init__(self, app: "App") -> None:
        self._app = app

    def names(self) -> list[str]:
        """The names of all, in the order of their numbers."""
        return self._app.call("admin.label.List").decode().splitlines()

    def named(self, name: str) -> Label:
        """A label that is known to exist."""
        color = self._app.call("admin.label.Get", name).decode()
        return Label(name, int(self._app.call("admin.label.Index", name)), color)

    def missing(self, name: str, known: list[str]) -> KeyError:
        """The error for a name that there is not."""
        text = f"no such label: {name!r}\nThere are {', '.join(known)}"
        return QubesLabelNotFoundError(text)

    def create(self, name: str, color: str) -> Label:
        """Make a label. color: "0x" and six hexadecimal digits.

        Raises:
            QubesValueError: there is one of that name.
            QubesDaemonAccessError: name or colour cannot be.
        """
        self._app.call("admin.label.Create", name, color.encode())
        return self.named(name)

    def remove(self, name: str) -> None:
        """Take a label away.

        Raises:
            QubesException: a qube has it.
            QubesDaemonAccessError: it is built in.
        """
        self._app.call("admin.label.Remove", name)
