"""qfile-agent: send files on standard output, take the reply from standard input."""

import errno
import os
import select
import sys
from collections.abc import Callable, Sequence

from insula.filecopy.sending import Sender, SourceError
from insula.protocol.errors import ProtocolError
from insula.protocol.filecopy import Reply

_EXIT_FAILED, _EXIT_CANCELLED = 1, 32
_KIB = 1024
_MEANINGS = {
    errno.EEXIST: "already exists in the incoming directory",
    errno.EINVAL: "the data that came was corrupted",
    errno.EILSEQ: "a forbidden character in a file name or a link's target",
    errno.ENOLINK: "refused to make a symbolic link that might be broken",
}


class _CancelledError(Exception):
    """The person closed what shows the progress."""


def main(words: Sequence[str] | None = None) -> int:
    """Send the files that are named, and wait until the other side has them."""
    ignore_links, paths = _parse(sys.argv[1:] if words is None else words)
    if not paths or "" in paths:
        print("usage: qfile-agent [--ignore-symlinks] [--] FILE...", file=sys.stderr)
        return _EXIT_FAILED
    told, done = _progress()
    whole = False
    sender = Sender(1, _is_answered, told, ignore_links=ignore_links)
    try:
        if all(sender.send(os.fsencode(path.rstrip("/") or path)) for path in paths):
            sender.end()
            whole = True
            told(sender.sent)
    except SourceError as error:
        print(f"qfile-agent: {error}", file=sys.stderr)
        return _EXIT_FAILED
    except RecursionError:
        print("qfile-agent: directories lie too deep in each other", file=sys.stderr)
        return _EXIT_FAILED
    except _CancelledError:
        return _EXIT_CANCELLED
    except OSError:
        pass  # It takes no more: its reply says why.
    done()
    return _conclude(sender.crc, whole=whole)


def _parse(words: Sequence[str]) -> tuple[bool, list[str]]:
    rest, ignore_links = list(words), False
    while rest and rest[0].startswith("--"):
        word = rest.pop(0)
        if word == "--":
            break
        if word != "--ignore-symlinks":
            return False, []
        ignore_links = True
    return ignore_links, rest


def _is_answered() -> bool:
    return bool(select.select([0], [], [], 0)[0])


def _conclude(crc: int, *, whole: bool) -> int:
    """Read the reply; the exit code."""
    received = b""
    while (wanted := Reply.wanted(received)) and (data := os.read(0, wanted)):
        received += data
    try:
        reply = Reply.decode(received)
    except ProtocolError:
        return _EXIT_FAILED  # Whoever broke off has said why.
    if reply.code == errno.EDQUOT and os.environ.get("FILECOPY_IGNORE_QUOTA_ERROR"):
        return 0
    if reply.code:
        name = f': "{reply.shown_name}"' if reply.shown_name else ""
        print(f"qfile-agent: {_meaning(reply.code)}{name}", file=sys.stderr)
        return _EXIT_FAILED
    if reply.crc != crc or not whole:
        print("qfile-agent: what arrived is not what was sent", file=sys.stderr)
        return _EXIT_FAILED
    return 0


def _meaning(code: int) -> str:
    number = code if code < 1 << 31 else (1 << 32) - code
    return _MEANINGS.get(number) or (
        os.strerror(number) if number in errno.errorcode else "the transfer broke off"
    )


def _progress() -> tuple[Callable[[int], None], Callable[[], None]]:
    """How the bytes sent so far are told, and what ends that."""
    match os.environ.get("PROGRESS_TYPE"):
        case "console":
            total = int(os.environ.get("FILECOPY_TOTAL_BYTES") or 0)
            return lambda sent: _on_console(sent, total), lambda: print(file=sys.stderr)
        case "gui":
            output = int(os.environ.get("SAVED_FD_1") or 1)
            return lambda sent: _to_program(output, sent), lambda: None
        case _:
            return lambda _sent: None, lambda: None


def _on_console(sent: int, total: int) -> None:
    shown = f"sent {-(-sent // _KIB)}/{-(-total // _KIB)} KB\r"
    print(shown, end="", file=sys.stderr, flush=True)


def _to_program(output: int, sent: int) -> None:
    try:
        os.write(output, f"{sent}\n".encode())
    except BrokenPipeError:
        raise _CancelledError from None


if __name__ == "__main__":
    sys.exit(main())
