"""Features, services and tags of a qube as collections (admin-api.md section 4.4)."""

from collections.abc import Iterator, MutableMapping, MutableSet
from contextlib import suppress
from typing import TYPE_CHECKING

from insula.client import errors
from insula.client.holder import lines

if TYPE_CHECKING:
    from insula.client.qube import Qube

_SERVICE = "service."


class Features(MutableMapping[str, str]):
    """A qube's own features. A missing one is a QubesFeatureNotFoundError, which is a KeyError."""

    def __init__(self, qube: "Qube") -> None:
        self._qube = qube

    def __getitem__(self, name: str) -> str:
        return self._qube.call("admin.vm.feature.Get", name).decode()

    def __setitem__(self, name: str, value: str | bool | int) -> None:
        """Set a feature; a boolean becomes what the daemon takes for it: "1" or nothing.

        Raises:
            QubesValueError: name or value is not acceptable.
        """
        text = ("1" if value else "") if isinstance(value, bool) else str(value)
        self._qube.call("admin.vm.feature.Set", name, text.encode())
        self._qube.app.forget_properties()  # Some follow features.

    def __delitem__(self, name: str) -> None:
        self._qube.call("admin.vm.feature.Remove", name)
        self._qube.app.forget_properties()

    def __iter__(self) -> Iterator[str]:
        return iter(lines(self._qube.call("admin.vm.feature.List").decode()))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def check(self, name: str, scope: str = "WithTemplate") -> str | None:
        """A feature where others may set it, too; None when none of them does.

        scope: WithTemplate, WithNetvm, WithAdminVM or WithTemplateAndAdminVM.
        """
        try:
            return self._qube.call(f"admin.vm.feature.Check{scope}", name).decode()
        except errors.QubesFeatureNotFoundError:
            return None


class Services(MutableMapping[str, bool]):
    """A qube's own services: its features `service.NAME`, on or off."""

    def __init__(self, qube: "Qube") -> None:
        self._features = qube.features

    def __getitem__(self, name: str) -> bool:
        return bool(self._features[_SERVICE + name])

    def __setitem__(self, name: str, value: bool) -> None:
        self._features[_SERVICE + name] = "1" if value else ""

    def __delitem__(self, name: str) -> None:
        del self._features[_SERVICE + name]

    def __iter__(self) -> Iterator[str]:
        return (one.removeprefix(_SERVICE) for one in self._features if one.startswith(_SERVICE))

    def __len__(self) -> int:
        return len(list(iter(self)))


class Tags(MutableSet[str]):
    """A qube's tags."""

    def __init__(self, qube: "Qube") -> None:
        self._qube = qube

    def __contains__(self, tag: object) -> bool:
        return self._qube.call("admin.vm.tag.Get", str(tag)) == b"1"

    def __iter__(self) -> Iterator[str]:
        return iter(lines(self._qube.call("admin.vm.tag.List").decode()))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def add(self, value: str) -> None:
        """Give the tag; harmless when it is there."""
        self._qube.call("admin.vm.tag.Set", value)

    def discard(self, value: str) -> None:
        """Take the tag away; harmless when it is not there."""
        with suppress(errors.QubesTagNotFoundError):
            self._qube.call("admin.vm.tag.Remove", value)
