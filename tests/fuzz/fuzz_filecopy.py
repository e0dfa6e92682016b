"""What a qube sends as a copy of its files, and what it replies to one."""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from insula.filecopy.receiving import BadTimesError, Receiver, Rules
from insula.protocol.errors import ProtocolError
from insula.protocol.filecopy import Reply

_PIPE = 60_000  # bytes that a pipe takes while nobody reads
_SENTINEL = "untouched"
_holder = tempfile.TemporaryDirectory(prefix="insula-fuzz-")
_place = Path(_holder.name)
_inside = _place / "inside"
_outside = _place / "outside"
_outside.write_text(_SENTINEL)


def fuzz(data: bytes) -> None:
    """One input: options, then a stream into a directory that already has links out of it."""
    options, stream = data[:1] or b"\0", data[1:_PIPE]
    _inside.mkdir()
    (_inside / "file").symlink_to("../outside")
    (_inside / "up").symlink_to("..")
    (_inside / "d").mkdir()
    try:
        _receive(stream, options[0])
        assert sorted(one.name for one in _place.iterdir()) == ["inside", "outside"]
        assert _outside.read_text() == _SENTINEL
        assert (_inside / "up").is_symlink()
    finally:
        for name, _, _ in os.walk(_inside):
            Path(name).chmod(0o700)
        shutil.rmtree(_inside)
    with suppress(ProtocolError):
        assert Reply.decode(data).shown_name.isascii()
    assert 0 <= Reply.wanted(data) <= 20 + 16_384


def _receive(stream: bytes, options: int) -> None:
    reading, writing = os.pipe()
    os.write(writing, stream)
    os.close(writing)
    top = os.open(_inside, os.O_RDONLY)
    processes = os.open("/proc/self/fd", os.O_RDONLY) if options & 1 else -1
    rules = Rules(any_names=bool(options & 2), max_files=options >> 4, max_bytes=1 << 20)
    try:
        reply = Receiver(reading, top, processes, rules).receive()
        assert Reply.decode(reply.encode()) is not None
    except BadTimesError:
        pass
    finally:
        for descriptor in (reading, top, processes):
            if descriptor >= 0:
                os.close(descriptor)
