"""What a qube says while it installs updates in itself, a line each, for the dom0 that asked it."""

import re
from dataclasses import dataclass

from insula.protocol.errors import ProtocolError

SERVICE = "insula.UpdateQube"
MAX_LINE = 512  # bytes
MAX_PACKAGES = 20_000
_PROGRESS = re.compile(rb"progress (\d{1,3})", re.ASCII)
_WORD = rb"([A-Za-z0-9.+:~_^-]{1,120})"
_PACKAGE = re.compile(rb"package " + _WORD + b" " + _WORD + b" " + _WORD, re.ASCII)
_NONE = "-"  # for the former version of a package that was not there


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is, from 0 to 100."""

    percent: int

    def __str__(self) -> str:
        return f"progress {self.percent}"


@dataclass(frozen=True, slots=True)
class Package:
    """A package that is updated. old: the version before; None where there was none."""

    name: str
    old: str | None
    new: str

    def __str__(self) -> str:
        return f"package {self.name} {self.old or _NONE} {self.new}"


def parse_line(untrusted: bytes) -> Progress | Package:
    """Read a line without its end.

    Raises:
        ProtocolError: it is not one that a qube says.
    """
    if (found := _PROGRESS.fullmatch(untrusted)) is not None and int(found[1]) <= 100:
        return Progress(int(found[1]))
    if (found := _PACKAGE.fullmatch(untrusted)) is not None:
        name, old, new = (word.decode("ascii") for word in found.groups())
        return Package(name, None if old == _NONE else old, new)
    raise ProtocolError(f"not a line of an update: {untrusted[:80]!r}")
