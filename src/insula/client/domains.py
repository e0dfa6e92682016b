"""All qubes by their names."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from insula.client import admin, errors
from insula.client.qube import Qube
from insula.protocol.admin import ADMIN_QUBE, ListedQube, parse_listed_qubes
from insula.protocol.errors import ProtocolError

if TYPE_CHECKING:
    from insula.client.app import App


class Domains:
    """All qubes by name, in the daemon's order: dom0, then by name; iterating gives the qubes."""

    def __init__(self, app: "App") -> None:
        self._app = app
        self._known: dict[str, Qube] = {}  # with a cache: each qube is one object
        self._listed = False

    def listing(self, destination: str = ADMIN_QUBE) -> list[ListedQube]:
        """admin.vm.List: of dom0 all qubes, of another qube that one."""
        content = admin.call(destination, "admin.vm.List").decode()
        try:
            return parse_listed_qubes(content)
        except ProtocolError as error:
            raise errors.QubesDaemonCommunicationError(str(error)) from None

    def _all(self) -> dict[str, Qube]:
        if self._listed:
            return self._known
        if not self._app.cached:
            return {one.name: Qube(self._app, one.name, one) for one in self.listing()}
        found = {}
        for one in self.listing():
            qube = self.known(one.name)
            qube.relist(one)
            found[one.name] = qube
        self._known, self._listed = found, True
        return found

    def known(self, name: str) -> Qube:
        """A qube that is known to exist, without asking."""
        if not self._app.cached:
            return Qube(self._app, name)
        return self._known.setdefault(name, Qube(self._app, name))

    def get(self, name: str) -> Qube | None:
        """A qube, or None when there is none of that name."""
        return self._all().get(name)

    def names(self) -> list[str]:
        """The names of all qubes."""
        return list(self._all())

    def forget(self) -> None:
        """Drop the cached list; qubes that are still there stay the same objects."""
        self._listed = False

    def cached_qubes(self) -> list[Qube]:
        """Qubes of which the cache may have something."""
        return list(self._known.values())

    def __getitem__(self, name: str) -> Qube:
        try:
            return self._all()[name]
        except KeyError:
            text = f"no such qube: {name!r}\nList qubes with: qvm-ls"
            raise errors.QubesVMNotFoundError(text) from None

    def __contains__(self, name: object) -> bool:
        return str(name) in self._all()  # a Qube, too

    def __iter__(self) -> Iterator[Qube]:
        return iter(self._all().values())

    def __len__(self) -> int:
        return len(self._all())
