"""Sinks: they never wait, they leave others' descriptors as they are, they keep terminals safe."""

import os
import pty
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from insula.qrexec.sinks import HARMLESS, DescriptorSink, Sink

MUCH = memoryview(bytes(1_000_000))


def test_a_full_pipe_takes_nothing_and_stays_blocking_for_others() -> None:
    reading, writing = os.pipe()
    sink = DescriptorSink(writing)
    taken = 0
    while count := sink.write(MUCH):
        taken += count
    assert 0 < taken < len(MUCH)
    assert os.get_blocking(writing)
    assert os.get_blocking(reading)
    os.read(reading, 65_536)
    assert sink.write(MUCH) > 0
    sink.end()
    os.close(reading)
    os.close(writing)


def test_a_pipe_that_cannot_be_opened_anew_is_written_piece_by_piece(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_arguments: object) -> int:
        raise PermissionError

    reading, writing = os.pipe()
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        sink = DescriptorSink(writing)
    taken = 0
    while count := sink.write(MUCH):
        taken += count
    assert 0 < taken < len(MUCH)
    sink.end()
    os.close(reading)
    os.close(writing)


def test_a_full_socket_takes_nothing_and_stays_blocking_for_others() -> None:
    near, far = socket.socketpair()
    with near, far:
        sink = DescriptorSink(near.fileno())
        while sink.write(MUCH):
            pass
        assert near.getblocking()
        assert os.get_blocking(near.fileno())
        sink.end()
        near.send(b"", socket.MSG_DONTWAIT)


def test_a_file_is_written_where_its_descriptor_stands(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb", buffering=0) as file:
        file.write(b"before ")
        sink = DescriptorSink(file.fileno())
        assert sink.write(memoryview(b"after")) == 5
        sink.end()
    assert (tmp_path / "file").read_bytes() == b"before after"


def test_a_terminal_gets_no_escape_sequences() -> None:
    controller, terminal = pty.openpty()
    sink = DescriptorSink(terminal, table=HARMLESS)
    text = b"\x1b]0;title\a \x9b31m caf\xc3\xa9\tok\r"
    assert sink.write(memoryview(text)) == len(text)
    assert os.read(controller, 100) == b"_]0;title\a _31m caf__\tok\r"
    sink.end()
    os.close(controller)
    os.close(terminal)


def test_only_the_bytes_of_the_specification_pass_the_filter() -> None:
    passed = {byte for byte in range(256) if HARMLESS[byte] == byte}
    assert passed == {7, 8, 9, 10, 13, *range(0x20, 0x7F)}


def test_a_sink_whose_reader_is_gone_takes_all_and_says_so() -> None:
    reading, writing = os.pipe()
    sink = DescriptorSink(writing)
    os.close(reading)
    assert sink.write(memoryview(b"x")) == 1
    assert sink.broken
    assert sink.write(memoryview(b"xy")) == 2
    sink.end()
    sink.end()
    assert sink.write(memoryview(b"xyz")) == 3
    os.close(writing)


def test_a_sink_of_nothing_takes_everything() -> None:
    assert Sink().write(MUCH) == len(MUCH)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- 2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_lead_nowhere(closed: str, tmp_path: Path) -> None:
    script = (
        "import os, pathlib, sys; from insula.qrexec.sinks import open_missing; open_missing(); "
        "kinds = [os.path.realpath(f'/proc/self/fd/{number}') for number in range(3)]; "
        f"pathlib.Path({str(tmp_path / 'found')!r}).write_text(' '.join(kinds))"
    )
    words = ["sh", "-c", f'exec "$0" -c "$1" </dev/null >/dev/null 2>/dev/null {closed}']
    subprocess.run([*words, sys.executable, script], check=True, timeout=60)
    assert (tmp_path / "found").read_text() == "/dev/null /dev/null /dev/null"
