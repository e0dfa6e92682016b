"""qvm-open-in-dvm: open files of this host, or addresses, each in a new disposable.

What the disposable sends back is untrusted content. It replaces the file only whole, after the
viewer has ended well, and never by more than a limit.
"""

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from insula.client import errors
from insula.client.local_socket import LocalRequest
from insula.protocol.open_in_vm import SERVICE, encode_name
from insula.qrexec.data_connection import DataConnection
from insula.qrexec.relay import relay
from insula.qrexec.sinks import HARMLESS, DescriptorSink, Sink
from insula.tools.command import Parser, UsageError, completed, run, say, show

_PROGRAM = "qvm-open-in-dvm"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+]*://", re.ASCII)
_URL_SERVICE = "qubes.OpenURL"
_MAX_GROWTH = 256 << 20  # bytes by which an edited file may be larger than it was
_EXIT_REFUSED = 255


def main(argv: Sequence[str] | None = None) -> int:
    """qvm-open-in-dvm."""
    parser = Parser(
        _PROGRAM,
        "Open files or addresses, each in a new disposable.",
        examples={
            f"{_PROGRAM} invoice.pdf": "look at it, or edit it, where it can do no harm",
            f"{_PROGRAM} --view-only a.odt b.odt": "and keep no changes",
            f"{_PROGRAM} https://www.qubes-os.org": "open an address in a browser",
        },
        exit_codes={
            _EXIT_REFUSED: "a disposable could not be had",
            "other": "the highest status of what opened the files",
        },
        notes=(
            "An edited file takes the place of the old one only whole, and after what opened it "
            "has ended well. Where the directory cannot be written to it is kept elsewhere, and "
            "its name is told.",
        ),
    )
    files = parser.add_argument("files", metavar="FILE|URL", nargs="+", help="what to open")
    completed(files, "files")
    parser.add_argument("--view-only", action="store_true", help="drop changes")
    return run(parser, _run, argv)


class _Edited(Sink):
    """Keeps what comes back in a nameless file. Once it cannot, it is broken: trouble says why."""

    def __init__(self, limit: int) -> None:
        self.size = 0
        self.trouble: str | None = None
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as this
        self._limit = limit

    def write(self, data: memoryview) -> int:
        self.size += len(data)
        try:
            if self.size > self._limit:
                self.trouble = "the disposable sends back far more than it was given"
            elif self.trouble is None:
                self.file.write(data)
        except OSError as error:
            self.trouble = f"what comes back could not be kept: {error.strerror}"
        self.broken = self.trouble is not None
        return len(data)


class _Opened:
    """One file or address in its disposable."""

    def __init__(self, what: str, view_only: bool) -> None:
        self.what = what
        self.path: Path | None = Path(what).resolve() if Path(what).exists() else None
        self._view_only = view_only
        self._edited: _Edited | None = None
        self.connection: DataConnection | None = None

    def begin(self, closing: ExitStack) -> None:
        """Have the daemon make the disposable and connect."""
        source = None
        if self.path is None:
            service, first = _URL_SERVICE, self.what.encode() + b"\n"
        else:
            service = SERVICE
            first = encode_name(os.fsencode(self.path.name), view_only=self._view_only)
            source = closing.enter_context(self.path.open("rb")).fileno()
            if not self._view_only:
                self._edited = _Edited(os.fstat(source).st_size + _MAX_GROWTH)
                closing.callback(self._edited.file.close)
        request = closing.enter_context(LocalRequest())
        fields = {"target": "@dispvm", "service": service, "gui": True}
        request.ask("call", fields, timeout=None)
        table = HARMLESS if os.isatty(2) else None
        self.connection = DataConnection(
            request.descriptors[0],
            bytes.fromhex(request.fields["nonce"]),
            source=source,
            first=first,
            output=self._edited or Sink(),
            errors=DescriptorSink(2, table=table),
        )
        closing.callback(self.connection.close)

    def finish(self) -> int:
        """Take the edited file over, if there is one; returns the exit code."""
        assert self.connection is not None
        code, lost = self.connection.code or 0, self.connection.lost
        if self._edited is not None and self._edited.trouble:
            lost = f"{self._edited.trouble}; the file is as it was"
        if lost or code:
            say(_PROGRAM, f"{self.what}: {lost or f'could not be opened (status {code})'}")
            return code or 1
        if self.path is not None and self._edited is not None and self._edited.size:
            _replace(self.path, self._edited)
        return 0


def _run(arguments: argparse.Namespace) -> int:
    for what in arguments.files:
        if Path(what).is_dir():
            raise UsageError(f"{what} is a directory")
        if not Path(what).exists() and _URL.match(what) is None:
            raise UsageError(f"there is no file {what}")
    opened, codes = [], [0]
    with ExitStack() as closing:
        for what in arguments.files:
            one = _Opened(what, arguments.view_only)
            try:
                one.begin(closing)
            except errors.DaemonNotRunningError:
                raise
            except errors.QubesException as error:
                show(error, f"{_PROGRAM}: error: {what}: ")
                codes.append(_EXIT_REFUSED)
            except OSError as error:
                print(f"{_PROGRAM}: error: {what}: {error.strerror}", file=sys.stderr)
                codes.append(1)
            else:
                opened.append(one)
        relay([one.connection for one in opened if one.connection is not None])
        codes += [one.finish() for one in opened]
    return max(codes)


def _replace(path: Path, edited: _Edited) -> None:
    """Put what came back in the file's place, at once or not at all."""
    import shutil  # noqa: PLC0415 - only after an edit

    mode = path.stat().st_mode & 0o777
    try:
        descriptor, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    except OSError:
        descriptor, name = tempfile.mkstemp(prefix="file_edited_in_dvm.")
        say(_PROGRAM, f"{path.parent} is not to be written to; the edited file is {name}")
        path = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            edited.file.seek(0)
            shutil.copyfileobj(edited.file, file)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
