"""Things of a qube or of the system by their names, which the daemon lists."""

from collections.abc import Iterator, Mapping
from typing import TypeVar

Item = TypeVar("Item")


class ByName(Mapping[str, Item]):
    """A mapping whose names are asked for at each look."""

    def names(self) -> list[str]:
        """All names, as the daemon lists them."""
        raise NotImplementedError

    def named(self, name: str) -> Item:
        """One that is known to exist, without asking whether it does."""
        raise NotImplementedError

    def missing(self, name: str, known: list[str]) -> KeyError:
        """The error for a name that there is not."""
        raise NotImplementedError

    def __getitem__(self, name: str) -> Item:
        if name not in (known := self.names()):
            raise self.missing(name, known)
        return self.named(name)

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())
