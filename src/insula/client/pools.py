"""Pools as objects."""

from typing import TYPE_CHECKING

from insula.client.by_name import ByName
from insula.client.errors import NotThereError
from insula.protocol.admin import parse_pairs

if TYPE_CHECKING:
    from insula.client.app import App


class Pool:
    """One pool."""

    def __init__(self, app: "App", name: str) -> None:
        self._app = app
        self.name = name

    def info(self) -> dict[str, str]:
        """Its driver and settings, and its size and usage in bytes where they are known."""
        return parse_pairs(self._call("Info").decode())

    @property
    def driver(self) -> str:
        """What keeps its volumes."""
        return self.info()["driver"]

    @property
    def size(self) -> int | None:
        """Bytes that it can hold, where that is known."""
        size = self.info().get("size", "")
        return int(size) if size else None

    @property
    def usage(self) -> int | None:
        """Bytes that are used of it, where that is known."""
        usage = self.info().get("usage", "")
        return int(usage) if usage else None

    @property
    def revisions_to_keep(self) -> int:
        """How many former states volumes made later keep."""
        return int(self.info()["revisions_to_keep"])

    @revisions_to_keep.setter
    def revisions_to_keep(self, value: int) -> None:
        self._set("revisions_to_keep", value)

    @property
    def ephemeral_volatile(self) -> bool:
        """Whether volatile volumes made later are encrypted under a throw-away key."""
        return self.info().get("ephemeral_volatile") == "True"

    @ephemeral_volatile.setter
    def ephemeral_volatile(self, value: bool) -> None:
        self._set("ephemeral_volatile", value)

    def usage_details(self) -> dict[str, str]:
        """What is used of it, in bytes."""
        return parse_pairs(self._call("UsageDetails").decode())

    def volumes(self) -> list[str]:
        """The vids of all volumes in it."""
        return self._call("volume.List").decode().splitlines()

    def remove(self) -> None:
        """Take it away; its data stay on disk.

        Raises:
            QubesPoolInUseError: volumes lie in it, or a property names it.
        """
        self._call("Remove")

    def _set(self, name: str, value: object) -> None:
        self._call(f"Set.{name}", str(value).encode())

    def _call(self, kind: str, payload: bytes = b"") -> bytes:
        return self._app.call(f"admin.pool.{kind}", self.name, payload)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"Pool({self.name!r})"


class Pools(ByName[Pool]):
    """All pools by their names."""

    def __init__(self, app: "App") -> None:
        self._app = app

    def names(self) -> list[str]:
        """The names of all."""
        return self._app.call("admin.pool.List").decode().splitlines()

    def named(self, name: str) -> Pool:
        """A pool that is known to exist, without asking."""
        return Pool(self._app, name)

    def missing(self, name: str, known: list[str]) -> KeyError:
        """The error for a name that there is not."""
        return NotThereError(f"no such pool: {name!r}\nThere are {', '.join(known)}")

    def drivers(self) -> dict[str, list[str]]:
        """Drivers that a pool can have, each with its settings."""
        lines = self._app.call("admin.pool.ListDrivers").decode().splitlines()
        return {words[0]: words[1:] for line in lines if (words := line.split())}

    def add(self, name: str, driver: str, **settings: str) -> Pool:
        """Make a pool. settings: as drivers() lists them.

        Raises:
            QubesException: no such driver, or a setting is missing, unknown or not acceptable.
            QubesDaemonAccessError: the name is taken or cannot be.
        """
        lines = "".join(f"{key}={value}\n" for key, value in {"name": name, **settings}.items())
        self._app.call("admin.pool.Add", driver, lines.encode())
        return Pool(self._app, name)
