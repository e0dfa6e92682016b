"""A sender that tries to reach beyond the incoming directory, against the whole receiver."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from insula.protocol.filecopy import Reply
from insula.protocol.filecopy_names import is_shown_safely
from tests.unit.filecopy.test_unpacker import DIRECTORY, END, FILE, LINK, record, unpack

NOBODY = 65_534
SECRET = "untouched"


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    """An incoming directory beside a file and a directory that nothing may reach."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text(SECRET)
    (tmp_path / "inside").mkdir()
    return tmp_path / "inside"


TRICKS = {
    "parent": record(b"../outside/secret", FILE, b"bad"),
    "parent later": record(b"d", DIRECTORY) + record(b"d/../../outside/x", FILE, b"bad"),
    "absolute": record(b"/tmp/insula-bad", FILE, b"bad"),
    "dot": record(b"./x", FILE, b"bad"),
    "doubled": record(b"d", DIRECTORY) + record(b"d//x", FILE, b"bad"),
    "trailing": record(b"d/", DIRECTORY),
    "parent as a directory": record(b"..", DIRECTORY),
    "itself as a directory": record(b".", 0o040777),
    "hidden by a nul": record(b"..\0x", DIRECTORY),
    "no name": record(b"", FILE, b"bad"),
    "link, then through it": record(b"d", DIRECTORY)
    + record(b"d/l", LINK, b"../../outside")
    + record(b"d/l/secret", FILE, b"bad"),
    "link within, then through it": record(b"d", DIRECTORY)
    + record(b"d/e", DIRECTORY)
    + record(b"d/l", LINK, b"e")
    + record(b"d/l/x", FILE, b"bad"),
    "link, then a directory over it": record(b"d", DIRECTORY)
    + record(b"d/e", DIRECTORY)
    + record(b"d/l", LINK, b"e")
    + record(b"d/l", 0o040777),
    "link, then a file over it": record(b"d", DIRECTORY)
    + record(b"d/l", LINK, b"new")
    + record(b"d/l", FILE, b"bad"),
    "link in a name with a nul": record(b"d", DIRECTORY) + record(b"d/l\0x", LINK, b"../outside"),
    "link that hides its target": record(b"d", DIRECTORY) + record(b"d/l", LINK, b"/etc\0x"),
    "link up after an ordinary part": record(b"d", DIRECTORY)
    + record(b"d/l", LINK, b"x/../../outside"),
    "link of dots": record(b"d", DIRECTORY) + record(b"d/l", LINK, b"./.././../outside"),
    "file as a directory": record(b"x", FILE, b"a") + record(b"x/y", FILE, b"bad"),
    "link that is there": record(b"there/secret", FILE, b"bad"),
    "link that is there as a file": record(b"there file", FILE, b"bad"),
    "mode of a link that is there": record(b"there", 0o040777),
    "device": record(b"x", 0o020666),
    "socket of a huge size": record(b"x", 0o140666, length=2**64 - 1),
    "size": record(b"x", FILE, length=2**64 - 1),
    "size of a link": record(b"d", DIRECTORY) + record(b"d/l", LINK, length=2**62),
}


@pytest.mark.parametrize("trick", TRICKS.values(), ids=TRICKS.keys())
@pytest.mark.parametrize("options", [(), ("--allow-all-names",)], ids=["names", "all names"])
def test_no_trick_reaches_beyond_the_directory(
    inside: Path, trick: bytes, options: tuple[str, ...]
) -> None:
    (inside / "there").symlink_to("../outside")
    (inside / "there file").symlink_to("../outside/new")
    before = (inside.parent / "outside").stat()
    code, replied = unpack(inside, trick + END, *options)
    assert code
    assert Reply.decode(replied).code & 0xFF == code
    assert sorted(one.name for one in inside.parent.iterdir()) == ["inside", "outside"]
    outside = inside.parent / "outside"
    assert [one.name for one in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_text() == SECRET
    assert outside.stat().st_mode == before.st_mode
    assert not Path("/tmp/insula-bad").exists()


def test_a_type_that_is_none_is_told_whatever_its_size(tmp_path: Path) -> None:
    assert unpack(tmp_path, TRICKS["socket of a huge size"])[0] == 22


def test_a_link_at_the_top_is_told_before_its_characters(tmp_path: Path) -> None:
    code, replied = unpack(tmp_path, record(b"l", LINK, b"\x01") + END)
    assert (code, Reply.decode(replied).last_name) == (67, b"\x01")


def test_sizes_of_directories_count_for_what_comes_after(tmp_path: Path) -> None:
    large = record(b"d", DIRECTORY, length=100)
    assert unpack(tmp_path, large + END, UPDATES_MAX_BYTES="50")[0] == 0
    after = large + record(b"x", FILE)
    assert unpack(tmp_path, after + END, UPDATES_MAX_BYTES="50")[0] == 122


@pytest.fixture
def ones_own() -> Iterator[tuple[str, Path]]:
    """A user without privileges, by number, and a directory of theirs."""
    place = Path(tempfile.mkdtemp(prefix="insula-copy-"))
    user = os.getuid() or NOBODY
    os.chown(place, user, -1)
    try:
        yield str(user), place
    finally:
        for name, _, _ in os.walk(place):
            Path(name).chmod(0o700)
        shutil.rmtree(place)


def test_a_directory_that_its_mode_closes_stays_closed(ones_own: tuple[str, Path]) -> None:
    user, place = ones_own
    closed = record(b"d", DIRECTORY) + record(b"d/a", FILE, b"x") + record(b"d", 0o040000)
    code, replied = unpack(place, closed + record(b"d/b", FILE, b"x") + END, user=user)
    assert code == 13
    assert Reply.decode(replied).last_name == b"d"


def test_as_many_characters_are_allowed_as_are_known() -> None:
    every = (chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    assert sum(is_shown_safely(one.encode()) for one in every) == 115_608
