"""qvm-open-in-vm and qvm-open-in-dvm: open a file or an address elsewhere (in-qube.md 4.2)."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from insula.guest.commands.calling import call_words
from insula.guest.dialogs import confirmed
from insula.protocol.open_in_vm import SERVICE, encode_name

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+]*://", re.ASCII)
_URL_SERVICE = "qubes.OpenURL"
_OPENING = frozenset((SERVICE, _URL_SERVICE))
_EXIT_USAGE = 2
_CHUNK = 65_536
_QUESTION = (
    "A program that another qube had started here wants to open\n\n{}\n\nin one more disposable."
)


def in_vm(words: Sequence[str] | None = None) -> int:
    """qvm-open-in-vm [--view-only] [--] QUBE FILE|URL"""
    return _main("qvm-open-in-vm", words, None)


def in_dvm(words: Sequence[str] | None = None) -> int:
    """qvm-open-in-dvm [--view-only] [--] FILE|URL"""
    return _main("qvm-open-in-dvm", words, "@dispvm")


def _main(program: str, words: Sequence[str] | None, target: str | None) -> int:
    rest = list(sys.argv[1:] if words is None else words)
    view_only = False
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word == "--":
            break
        if word in ("-h", "--help"):
            print(_usage(program, named=target is None))
            return 0
        if word != "--view-only":
            print(f"{program}: unknown option {word}", file=sys.stderr)
            return _EXIT_USAGE
        view_only = True
    if len(rest) != (1 if target else 2):
        print(_usage(program, named=target is None), file=sys.stderr)
        return _EXIT_USAGE
    what = rest.pop()
    if Path(what).is_dir():
        print(f"{program}: {what} is a directory", file=sys.stderr)
        return _EXIT_USAGE
    if target and _opened_for_another() and not confirmed(_QUESTION.format(what), "Open"):
        return 1
    return _open(program, target or rest[0], what, view_only=view_only)


def _open(program: str, target: str, what: str, *, view_only: bool) -> int:
    path = Path(what)
    if not path.exists() and _URL.match(what):
        return _open_address(target, what)
    return _open_file(program, target, path, view_only=view_only)


def _opened_for_another() -> bool:
    """Whether this runs in what another qube had opened here: such may go on without an end."""
    service, _, _ = os.environ.get("QREXEC_SERVICE_FULL_NAME", "").partition("+")
    return service in _OPENING


def _open_address(target: str, address: str) -> int:
    words = call_words(target, _URL_SERVICE)
    return subprocess.run(words, input=address.encode() + b"\n", check=False).returncode


def _open_file(program: str, target: str, path: Path, *, view_only: bool) -> int:
    """Send a file; what comes back takes its place, once it is whole."""
    try:
        source = path.open("rb")
    except OSError as error:
        print(f"{program}: {path}: {error.strerror}", file=sys.stderr)
        return 1
    with source, tempfile.TemporaryFile() as edited:
        process = subprocess.Popen(
            call_words(target, SERVICE), stdin=subprocess.PIPE, stdout=edited
        )
        assert process.stdin is not None
        try:
            process.stdin.write(encode_name(os.fsencode(path.name), view_only=view_only))
            while data := source.read(_CHUNK):
                process.stdin.write(data)
            process.stdin.close()
        except BrokenPipeError:
            pass  # Its exit code says why.
        code = process.wait()
        size = edited.seek(0, os.SEEK_END)
        if code == 0 and size and not view_only:
            edited.seek(0)
            _replace(program, path, edited.fileno())
    return code


def _replace(program: str, path: Path, edited: int) -> None:
    try:
        descriptor, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    except OSError:
        descriptor, name = tempfile.mkstemp(prefix="file_edited_in_dvm.", dir="/tmp")
        print(f"{program}: {path.parent} cannot be written to; see {name}", file=sys.stderr)
        _fill(descriptor, edited)
        return
    try:
        _fill(descriptor, edited)
        Path(name).chmod(path.stat().st_mode & 0o7777)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _fill(descriptor: int, edited: int) -> None:
    with os.fdopen(descriptor, "wb") as file:
        while data := os.read(edited, _CHUNK):
            file.write(data)
        file.flush()
        os.fsync(descriptor)


def _usage(program: str, *, named: bool) -> str:
    return (
        f"usage: {program} [--view-only] [--] {'QUBE ' if named else ''}FILE|URL\n\n"
        f"Opens a file or an address in {'another qube' if named else 'a new disposable'}. "
        "If the file is changed\nthere, it takes the place of the one here, unless --view-only "
        "is given."
    )
