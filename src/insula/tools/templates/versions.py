"""Versions of packages, ordered as rpm orders them, and specs that stand for packages."""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import total_ordering
from itertools import zip_longest
from typing import NamedTuple

_SEGMENT = re.compile(r"[0-9]+|[A-Za-z]+|~|\^", re.ASCII)


@total_ordering
class Version:
    """Epoch, version and release of a package."""

    def __init__(self, epoch: str, version: str, release: str) -> None:
        self.epoch, self.version, self.release = epoch, version, release

    def __str__(self) -> str:
        return f"{self.epoch}:{self.version}-{self.release}"

    def __repr__(self) -> str:
        return f"Version({self})"

    def __hash__(self) -> int:
        return hash(str(self))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and not self._compare(other)

    def __lt__(self, other: "Version") -> bool:
        return self._compare(other) < 0

    def _compare(self, other: "Version") -> int:
        epochs = int(self.epoch) - int(other.epoch)
        return (
            epochs or compare(self.version, other.version) or compare(self.release, other.release)
        )


def compare(one: str, other: str) -> int:
    """Negative where one is the older, positive where it is the newer, 0 for the same.

    Runs of digits and of letters are compared in turn, other characters only separate them: numbers
    are newer than letters; ~ comes before everything, even before the end, and ^ right after it.
    """
    for mine, theirs in zip_longest(_SEGMENT.findall(one), _SEGMENT.findall(other)):
        if mine != theirs and (found := _compare_segments(mine, theirs)):
            return found
    return 0


def _compare_segments(mine: str | None, theirs: str | None) -> int:
    ranks = _rank(mine), _rank(theirs)
    if ranks[0] != ranks[1]:
        return ranks[0] - ranks[1]
    assert mine is not None
    assert theirs is not None
    if mine.isdigit():
        return int(mine) - int(theirs)
    return (mine > theirs) - (mine < theirs)


def _rank(segment: str | None) -> int:
    match segment:
        case "~":
            return 0
        case None:
            return 1
        case "^":
            return 2
    return 4 if segment.isdigit() else 3


class Named(NamedTuple):
    """A package by its name, without the prefix that templates have, and its version."""

    name: str
    version: Version

    def matches(self, spec: str) -> bool:
        """Whether a spec (a glob) stands for it."""
        return any(fnmatchcase(form, spec) for form in self._forms())

    def _forms(self) -> Iterator[str]:
        epoch, version, release = self.version.epoch, self.version.version, self.version.release
        yield self.name
        yield f"{self.name}-{version}"
        yield f"{self.name}-{version}-{release}"
        yield f"{self.name}-{epoch}:{version}"
        yield f"{self.name}-{epoch}:{version}-{release}"
