"""The sending end of a copy, against the receiving one."""

import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.filecopy.checking import check
from insula.filecopy.sending import SourceError
from insula.protocol.filecopy import Reply

TIMEOUT = 30.0  # seconds


def pack(
    directory: Path, *words: str, replied: bytes = b"", **environment: str
) -> "tuple[int, bytes, str]":
    """Exit status, stream and messages of the sender, given a reply at its end."""
    done = subprocess.run(
        [sys.executable, "-m", "insula.filecopy.packer", *words],
        input=replied,
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
        cwd=directory,
        env={**os.environ, **environment},
    )
    return done.returncode, done.stdout, done.stderr.decode()


def copy(source: Path, target: Path, *words: str) -> tuple[int, int, str]:
    """Both ends, connected; their exit statuses and what the sender said."""
    receiver = subprocess.Popen(
        [sys.executable, "-m", "insula.filecopy.unpacker", "", str(target)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    sender = subprocess.Popen(
        [sys.executable, "-m", "insula.filecopy.packer", *words],
        stdin=receiver.stdout,
        stdout=receiver.stdin,
        stderr=subprocess.PIPE,
        cwd=source,
    )
    for pipe in (receiver.stdin, receiver.stdout):
        assert pipe is not None
        pipe.close()
    said = sender.communicate(timeout=TIMEOUT)[1].decode()
    return sender.returncode, receiver.wait(TIMEOUT), said


def test_a_tree_arrives_as_it_is(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    target.mkdir()
    (source / "d" / "e").mkdir(parents=True)
    (source / "d" / "big").write_bytes(os.urandom(300_000))
    (source / "d" / "e" / "script").write_text("#!/bin/sh\n")
    (source / "d" / "e" / "script").chmod(0o751)
    (source / "d" / "e" / "link").symlink_to("script")
    os.mkfifo(source / "d" / "pipe")
    os.utime(source / "d" / "big", ns=(1, 10**18 + 7))
    assert copy(source, target, "--", "d/") == (0, 0, "")
    compared = subprocess.run(
        ["diff", "-r", "--no-dereference", source / "d", target / "d"],
        capture_output=True, text=True, check=False, timeout=TIMEOUT,
    )  # fmt: skip
    assert "pipe" in compared.stdout
    assert len(compared.stdout.splitlines()) == 1
    assert (target / "d" / "e" / "script").stat().st_mode & 0o777 == 0o751
    assert (target / "d" / "big").stat().st_mtime_ns == 10**18 + 7


def test_what_the_receiver_says_is_told(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for place in (source, target):
        place.mkdir()
        (place / "a").write_bytes(b"x" * 3_000_000)
    code, _, said = copy(source, target, "a")
    assert code == 1
    assert 'already exists in the incoming directory: "a"' in said


def test_a_reply_that_is_wrong_or_none_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    good = pack(tmp_path, "a", replied=Reply(0, 1).encode())
    assert good[0] == 1
    assert "not what was sent" in good[2]
    assert pack(tmp_path, "a")[0] == 1
    bad = Reply(84, 0, b'\x1b[31m"x').encode()
    assert '"_[31m_x"' in pack(tmp_path, "a", replied=bad)[2]


def test_links_can_be_left_out(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    target.mkdir()
    (source / "d").mkdir(parents=True)
    (source / "d" / "link").symlink_to("/etc/passwd")
    assert copy(source, target, "d")[0] == 1
    assert copy(source, target, "--ignore-symlinks", "d")[0] == 0
    assert [*(target / "d").iterdir()] == []


def test_names_and_links_are_looked_at_before(tmp_path: Path) -> None:
    place = tmp_path / "d"
    place.mkdir()
    (place / "a").write_bytes(b"12345")
    (place / "l").symlink_to("a")
    path = os.fsencode(place)
    assert check([path], ignore_links=False).size == 6
    assert check([path], ignore_links=True).size == 5
    (place / "\u202e").write_bytes(b"")
    assert not check([path], ignore_links=False).safe
    (place / "out").symlink_to("../../x")
    with pytest.raises(SourceError, match="--ignore-symlinks"):
        check([path], ignore_links=False)
    with pytest.raises(SourceError):
        check([b".."], ignore_links=False)


def test_a_reply_is_taken_without_waiting_for_the_end_of_the_connection(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    sent = pack(tmp_path, "a")[1]
    reading, writing = os.pipe()
    try:
        os.write(writing, Reply(0, zlib.crc32(sent), b"a").encode())
        # It is there from the start, so it comes before all is sent: no success.
        done = subprocess.run(
            [sys.executable, "-m", "insula.filecopy.packer", "a"],
            stdin=reading,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
            cwd=tmp_path,
        )
    finally:
        os.close(reading)
        os.close(writing)
    assert done.returncode == 1
    assert b"not what was sent" in done.stderr


@given(st.builds(Reply, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.binary()))
def test_a_reply_wants_exactly_its_own_bytes(reply: Reply) -> None:
    whole = reply.encode()
    received = b""
    while wanted := Reply.wanted(received):
        assert len(received) + wanted <= len(whole)
        received += whole[len(received) :][:wanted]
    assert Reply.decode(received) == reply
