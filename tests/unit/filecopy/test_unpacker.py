"""The receiving end of a copy, by what it makes and what it replies (filecopy.md section 10)."""

import os
import stat
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insula.filecopy.receiving import BadTimesError, Receiver, Rules

TIMEOUT = 30.0  # seconds
END = bytes(32)
SECOND = 1_700_000_000
TIME = (SECOND, 0)
FILE, DIRECTORY, LINK = 0o100644, 0o040755, 0o120777


def record(
    name: bytes,
    mode: int,
    data: bytes = b"",
    atime: tuple[int, int] = TIME,
    mtime: tuple[int, int] = TIME,
    *,
    length: int | None = None,
) -> bytes:
    raw = name + b"\0"
    size = len(data) if length is None else length
    return struct.pack("<IIQIIII", len(raw), mode, size, *atime, *mtime) + raw + data


def reply(code: int, crc: int, last: bytes | None = None) -> bytes:
    out = struct.pack("<IIQ", code, 0, crc)
    return out if last is None else out + struct.pack("<I", len(last)) + last


def unpack(
    directory: Path, stream: bytes, *options: str, user: str = "", **environment: str
) -> tuple[int, bytes]:
    """Exit status and reply of a whole process."""
    done = subprocess.run(
        [sys.executable, "-m", "insula.filecopy.unpacker", *options, "--", user, str(directory)],
        input=stream,
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
        env={**os.environ, **environment},
    )
    assert b"not confined" not in done.stderr
    return done.returncode, done.stdout


HELLO = b"Hello, Qubes!\n"
V1 = record(b"hello.txt", FILE, HELLO, mtime=(SECOND, 123_456_789))
V1_ALL = 0x73332CE6


def test_nothing_is_a_whole_copy(tmp_path: Path) -> None:
    expected = bytes.fromhex("0000000000000000ad550a190000000000000000")
    assert unpack(tmp_path, END) == (0, expected)


def test_a_file_has_its_content_mode_and_times(tmp_path: Path) -> None:
    code, replied = unpack(tmp_path, V1 + END)
    assert (code, replied) == (0, reply(0, V1_ALL, b"hello.txt"))
    made = tmp_path / "hello.txt"
    assert made.read_bytes() == HELLO
    status = made.stat()
    assert stat.S_IMODE(status.st_mode) == 0o644
    assert status.st_mtime_ns == SECOND * 10**9 + 123_456_789


def test_a_tree_with_a_link(tmp_path: Path) -> None:
    stream = (
        record(b"d", DIRECTORY)
        + record(b"d/a", 0o100600, atime=(SECOND, 1), mtime=(SECOND, 2))
        + record(b"d/l", LINK, b"a")
        + record(b"d", DIRECTORY)
        + END
    )
    assert unpack(tmp_path, stream) == (0, reply(0, 0x564683EE, b"d"))
    assert (tmp_path / "d" / "l").readlink() == Path("a")
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o755
    assert (tmp_path / "d").stat().st_mtime_ns == SECOND * 10**9


def test_a_name_that_leads_out_is_refused_before_its_content(tmp_path: Path) -> None:
    stream = record(b"../x", FILE, b"hi") + END
    assert unpack(tmp_path, stream)[1] == bytes.fromhex(
        "54000000000000001d0b840000000000040000002e2e2f78"
    )
    assert not (tmp_path.parent / "x").exists()


def test_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "hello.txt").write_text("mine")
    code, replied = unpack(tmp_path, V1 + END)
    assert code == 17
    assert replied in (reply(17, 0x8F879972, b"hello.txt"), reply(17, 0x194B5E45, b"hello.txt"))
    assert (tmp_path / "hello.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (record(b"l", LINK, b"a") + END, "43000000000000004472b6ed000000000100000061"),
        (V1[:47], "765edf0100000000821deaec000000000900000068656c6c6f2e747874"),
        (struct.pack("<IIQIIII", 16384, FILE, 0, 0, 0, 0, 0), "240000000000000011ff3e0c00000000"),
        (V1, "7900000000000000455e4b19000000000900000068656c6c6f2e747874"),
        (V1 + bytes(31), "7900000000000000455e4b19000000000900000068656c6c6f2e747874"),
        (record(b"q/x", FILE, b"hi"), "0200000000000000edfe9927000000000100000071"),
        (b"", "7900000000000000000000000000000000000000"),
    ],
    ids=["link", "content", "long", "no end", "stray", "no parent", "empty"],
)
def test_what_is_not_acceptable_is_told_as_is_known(
    tmp_path: Path, stream: bytes, expected: str
) -> None:
    code, replied = unpack(tmp_path, stream)
    assert replied.hex() == expected
    assert code == int.from_bytes(replied[:4], "little") & 0xFF


def test_names_may_have_letters_of_many_scripts(tmp_path: Path) -> None:
    name = "za\u017c\u00f3\u0142\u0107 \u20ac.txt".encode()
    stream = record(name, FILE, b"x", mtime=(0, 0), atime=TIME) + END
    code, replied = unpack(tmp_path, stream)
    assert code == 0
    assert replied == reply(0, zlib.crc32(stream), name)
    assert (tmp_path / name.decode()).read_bytes() == b"x"


@pytest.mark.parametrize(
    "name", [b"a\xff", b"a\x1b[m", "a\u202eb".encode(), "\U0001f600".encode(), b"a\nb"]
)
def test_other_characters_have_to_be_allowed(tmp_path: Path, name: bytes) -> None:
    stream = record(name, FILE, b"x") + END
    assert unpack(tmp_path, stream)[0] == 84
    assert unpack(tmp_path, stream, "--allow-all-names")[0] == 0
    assert (tmp_path / os.fsdecode(name)).read_bytes() == b"x"


@pytest.mark.parametrize(
    ("name", "target", "code"),
    [
        (b"d/l", b"/etc/passwd", 67),
        (b"d/l", b"../x", 67),
        (b"d/l", b"a/../b", 67),
        (b"d/l", b"a\x01", 84),
        (b"d/l", b".//a/", 0),
        (b"d/l", b"", 2),
        (b"d/d/l", b"../x", 0),
        (b"d/d/l", b"../../x", 67),
    ],
)
def test_links_stay_inside(tmp_path: Path, name: bytes, target: bytes, code: int) -> None:
    stream = record(b"d", DIRECTORY) + record(b"d/d", DIRECTORY) + record(name, LINK, target) + END
    assert unpack(tmp_path, stream)[0] == code


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    inside = tmp_path / "inside"
    for place in (outside, inside):
        place.mkdir()
    (inside / "d").symlink_to(outside)
    stream = record(b"d/x", FILE, b"bad") + END
    assert unpack(inside, stream)[0] in (20, 40)
    assert unpack(inside, record(b"d", DIRECTORY) + END)[0] in (20, 40)
    assert [*outside.iterdir()] == []


def test_devices_are_none_of_it(tmp_path: Path) -> None:
    assert unpack(tmp_path, record(b"n", 0o020666) + END)[0] == 22
    assert [*tmp_path.iterdir()] == []


def test_limits_hold_before_the_content_comes(tmp_path: Path) -> None:
    stream = record(b"a", FILE, length=2**40)
    assert unpack(tmp_path, stream, UPDATES_MAX_BYTES="1000")[0] == 122
    many = b"".join(record(b"%d" % number, FILE) for number in range(4)) + END
    assert unpack(tmp_path, many, UPDATES_MAX_FILES="3")[0] == 122
    assert unpack(tmp_path, record(b"b", FILE, length=2**63))[0] == 122


def test_times_that_are_none_get_no_reply(tmp_path: Path) -> None:
    assert unpack(tmp_path, record(b"a", FILE, mtime=(0, 10**9)) + END) == (1, b"")


def test_a_source_whose_name_is_a_path_is_none() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "insula.filecopy.unpacker"],
        input=END,
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
        env={**os.environ, "QREXEC_REMOTE_DOMAIN": "../x"},
    )
    assert (done.returncode, done.stdout) == (1, b"")


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"a", b"b", b"d", b"d/a", b"d/d", b"../a", b"/a", b"d/../../a", b""]),
            st.sampled_from([FILE, DIRECTORY, LINK, 0o060666, 0, 2**32 - 1]),
            st.sampled_from([b"", b"x", b"..", b"../..", b"/", b"a" * 300, b"../outside"]),
            st.sampled_from([None, 0, 1, 2**63]),
        ),
        max_size=8,
    ),
    st.integers(0, 40),
)
@settings(deadline=None, max_examples=200)
def test_whatever_comes_stays_inside(
    records: list[tuple[bytes, int, bytes, int | None]], cut: int
) -> None:
    stream = b"".join(record(name, mode, data, length=size) for name, mode, data, size in records)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        inside = place / "inside"
        inside.mkdir()
        reading, writing = os.pipe()
        os.write(writing, stream[: len(stream) - cut] + END)
        os.close(writing)
        top = os.open(inside, os.O_RDONLY)
        processes = os.open("/proc/self/fd", os.O_RDONLY)
        try:
            replied = Receiver(reading, top, processes, Rules()).receive()
            assert len(replied.encode()) >= 16
        except BadTimesError:
            pass
        finally:
            for descriptor in (reading, top, processes):
                os.close(descriptor)
        assert [one.name for one in place.iterdir()] == ["inside"]
