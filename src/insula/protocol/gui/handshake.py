"""Version and screen, exchanged before the first message (gui.md section 2.3)."""

import struct
from typing import NamedTuple

from insula.protocol.errors import ProtocolError

MAJOR = 1
MINOR = 8
VERSION_SIZE = 4
OLDEST_TWO_WAY = 4  # the first minor version in which the viewer sends a version word
_VERSION = struct.Struct("<I")
_XCONF = struct.Struct("<IIII")
ANSWER_SIZE = VERSION_SIZE + _XCONF.size  # what an agent of today waits for


class Screen(NamedTuple):
    """The viewer's root window. Pixels; memory is KiB."""

    width: int
    height: int
    depth: int
    memory: int


class VersionError(ProtocolError):
    """The agent has another major version; newer: than ours."""

    def __init__(self, text: str, *, newer: bool) -> None:
        super().__init__(text)
        self.newer = newer


def agent_opening() -> bytes:
    """The agent's first bytes: its version."""
    return _VERSION.pack(MAJOR << 16 | MINOR)


def effective_minor(untrusted: bytes) -> int:
    """The minor version both sides speak, from the agent's first VERSION_SIZE bytes.

    Raises:
        VersionError: the agent has another major version; it says which side is to be updated.
    """
    word: int = _VERSION.unpack(untrusted)[0]
    spoken = (
        f"the window agent speaks version {word >> 16}.{word & 0xFFFF}, we speak {MAJOR}.{MINOR}"
    )
    if word >> 16 > MAJOR:
        raise VersionError(f"{spoken}: dom0 must be updated", newer=True)
    if word >> 16 < MAJOR:
        raise VersionError(
            f"{spoken}: it must be updated; the qube starts without windows by qvm-start --no-guid,"
            " and qvm-console-dispvm opens its console",
            newer=False,
        )
    return min(word & 0xFFFF, MINOR)


def viewer_answer(minor: int, width: int, height: int, depth: int) -> bytes:
    """What the viewer answers: the effective version, unless the agent is too old, and xconf."""
    rounded = (width + 7) // 8 * 8
    xconf = _XCONF.pack(rounded, height, depth, rounded * height * 4 // 1024 + 1)
    if minor < OLDEST_TWO_WAY:
        return xconf
    return _VERSION.pack(MAJOR << 16 | minor) + xconf


def agent_accepts(answer: bytes) -> tuple[int, Screen]:
    """The minor version and the screen, from the viewer's ANSWER_SIZE bytes.

    Raises:
        ProtocolError: the version is not one that this agent speaks.
    """
    (word,) = _VERSION.unpack_from(answer)
    if word >> 16 != MAJOR or not OLDEST_TWO_WAY <= word & 0xFFFF <= MINOR:
        raise ProtocolError(f"viewer of version {word >> 16}.{word & 0xFFFF}")
    return word & 0xFFFF, Screen(*_XCONF.unpack_from(answer, VERSION_SIZE))
