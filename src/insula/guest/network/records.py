"""What cards were configured with, so that an agent that was started anew knows it, too."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from insula.protocol.errors import ProtocolError
from insula.protocol.frames import HEADER
from insula.protocol.links import Link


@dataclass(frozen=True, slots=True)
class Record:
    """A card that was configured. index: the kernel's number of it; commands: what `ip` did."""

    link: Link
    index: int
    commands: tuple[str, ...]

    def encode(self) -> bytes:
        link = self.link.encode()[HEADER.size :]
        return link + b"\n" + json.dumps([self.index, self.commands]).encode()

    @classmethod
    def decode(cls, data: bytes) -> "Record":
        """Raises: ValueError, ProtocolError: it is not whole."""
        link, rest = data.split(b"\n")
        index, commands = json.loads(rest)
        return cls(Link.decode(link), index, tuple(commands))


class Records:
    """All of them, by the links' numbers, in a directory."""

    def __init__(self, place: Path) -> None:
        """Raises: OSError: the directory cannot be used."""
        self._place = place
        place.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._records: dict[int, Record] = {}
        for path in place.glob("*.link"):
            try:
                record = Record.decode(path.read_bytes())
            except (ValueError, ProtocolError):
                continue  # It was being written when the agent ended.
            self._records[record.link.number] = record

    def __iter__(self) -> Iterator[Record]:
        return iter(tuple(self._records.values()))

    def get(self, number: int) -> Record | None:
        """What is known of a link; None when nothing is."""
        return self._records.get(number)

    def keep(self, record: Record) -> None:
        """Remember a link."""
        self._records[record.link.number] = record
        self._path(record.link.number).write_bytes(record.encode())

    def drop(self, number: int) -> None:
        """Forget a link."""
        self._records.pop(number, None)
        self._path(number).unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self._place / f"{number}.link"
