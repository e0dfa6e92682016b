"""Volumes of a qube as objects."""

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from insula.client.by_name import ByName
from insula.client.errors import NotThereError, QubesException
from insula.protocol.admin import parse_pairs

if TYPE_CHECKING:
    from insula.client.qube import Qube


class Volume:
    """One volume. Each look at it is a call; info() has everything in one."""

    def __init__(self, qube: "Qube", name: str) -> None:
        self.qube = qube
        self.name = name

    def info(self) -> dict[str, str]:
        """What admin.vm.volume.Info answers: pool, vid, size and so on."""
        return parse_pairs(self._call("Info").decode())

    @property
    def size(self) -> int:
        """Bytes that it can hold."""
        return int(self.info()["size"])

    @property
    def usage(self) -> int:
        """Bytes that it takes on disk."""
        return int(self.info()["usage"])

    @property
    def pool(self) -> str:
        """The pool in which it lies."""
        return self.info()["pool"]

    @property
    def vid(self) -> str:
        """What its pool calls it."""
        return self.info()["vid"]

    @property
    def source(self) -> str | None:
        """The vid of the volume of which it is a snapshot."""
        return self.info()["source"] or None

    @property
    def snap_on_start(self) -> bool:
        """Whether it begins as its source's state at each start."""
        return self.info()["snap_on_start"] == "True"

    @property
    def is_outdated(self) -> bool | None:
        """Whether its source has changed since; None where that cannot be known."""
        found = self.info().get("is_outdated")
        return None if found is None else found == "True"

    @property
    def save_on_stop(self) -> bool:
        """Whether what the qube writes is there at its next start."""
        return self.info()["save_on_stop"] == "True"

    @property
    def rw(self) -> bool:
        """Whether the qube may write it."""
        return self.info()["rw"] == "True"

    @rw.setter
    def rw(self, value: bool) -> None:
        self._set("rw", value)

    @property
    def ephemeral(self) -> bool:
        """Whether it is encrypted under a throw-away key."""
        return self.info()["ephemeral"] == "True"

    @ephemeral.setter
    def ephemeral(self, value: bool) -> None:
        self._set("ephemeral", value)

    @property
    def revisions_to_keep(self) -> int:
        """How many former states are kept."""
        return int(self.info()["revisions_to_keep"])

    @revisions_to_keep.setter
    def revisions_to_keep(self, value: int) -> None:
        self._set("revisions_to_keep", value)

    def revisions(self) -> list[str]:
        """Former states to which it can be reverted, oldest first."""
        return self._call("ListSnapshots").decode().splitlines()

    def resize(self, size: int) -> None:
        """Give it more room, in bytes; a running qube's file system grows with it.

        Raises:
            QubesException: it cannot be that small, or there is no room.
        """
        self._call("Resize", str(size).encode())

    def revert(self, revision: str | None = None) -> None:
        """Go back to a former state, the newest unless one is named.

        Raises:
            QubesException: there is none, or the volume is being written.
        """
        if revision is None:
            if not (kept := self.revisions()):
                text = f"volume {self.name} of {self.qube} has no former state"
                raise QubesException(text)
            revision = kept[-1]
        self._call("Revert", revision.encode())

    def clear(self) -> None:
        """Let it be blank.

        Raises:
            QubesVMNotHaltedError: the qube is up.
        """
        self._call("Clear")

    def clone_from(self, other: "Volume") -> None:
        """Take over another volume's state.

        Raises:
            QubesVMNotHaltedError: this qube is up.
            QubesException: the other volume cannot be copied now.
        """
        token = other.qube.call("admin.vm.volume.CloneFrom", other.name)
        self._call("CloneTo", token)

    def import_data(self, source: BinaryIO, size: int | None = None) -> None:
        """Replace its content by what a stream holds.

        size: its size from then on, in bytes; None as it is.

        Raises:
            QubesVMNotHaltedError: the qube is up.
            QubesException: the stream does not hold as much as it should.
        """
        from insula.client.importing import import_volume  # noqa: PLC0415 - few programs import

        import_volume(self.qube.name, self.name, source, size)

    def import_file(self, path: Path | str) -> None:
        """Replace its content by a file's, and its size by that file's.

        Raises:
            OSError: the file cannot be read.
            QubesException: as of import_data.
        """
        with Path(path).open("rb") as source:
            self.import_data(source, Path(path).stat().st_size)

    def _set(self, name: str, value: object) -> None:
        self._call(f"Set.{name}", str(value).encode())

    def _call(self, kind: str, payload: bytes = b"") -> bytes:
        return self.qube.call(f"admin.vm.volume.{kind}", self.name, payload)

    def __repr__(self) -> str:
        return f"Volume({self.qube.name!r}, {self.name!r})"


class Volumes(ByName[Volume]):
    """A qube's volumes by their names."""

    def __init__(self, qube: "Qube") -> None:
        self._qube = qube

    def names(self) -> list[str]:
        """The names of all."""
        return self._qube.call("admin.vm.volume.List").decode().splitlines()

    def named(self, name: str) -> Volume:
        """A volume that is known to exist, without asking."""
        return Volume(self._qube, name)

    def missing(self, name: str, known: list[str]) -> KeyError:
        """The error for a name that there is not."""
        text = f"{self._qube} has no volume {name!r}\nIt has {', '.join(known) or 'none'}"
        return NotThereError(text)
