"""admin.vm.volume.Import and its twin with a size: what a policy runs for these two calls.

As the specification has them (admin-api.md section 1.5): the calling qube and the one called for
are in the environment, the volume is the argument, standard input is a size (in the twin) and the
data, standard output the answer.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import BinaryIO

from insula.client.admin import ask_raw
from insula.client.importing import INTERNAL_SOCKET, copy_exactly, failed
from insula.protocol import admin
from insula.protocol.errors import ProtocolError, ReportableError
from insula.tools.command import Parser, UsageError, run

SOURCE, TARGET = "QREXEC_REMOTE_DOMAIN", "QREXEC_REQUESTED_TARGET"
_LONGEST_SIZE = 20  # characters
_BEGIN, _END = "internal.vm.volume.ImportBegin", "internal.vm.volume.ImportEnd"


def own_size(argv: Sequence[str] | None = None) -> int:
    """admin.vm.volume.Import."""
    text = "Replace what a volume holds by as much data on standard input as it has room for."
    return _main("admin.vm.volume.Import", text, argv, sized=False)


def with_size(argv: Sequence[str] | None = None) -> int:
    """admin.vm.volume.ImportWithSize."""
    text = "Replace what a volume holds by standard input: a line with a size, then as much data."
    return _main("admin.vm.volume.ImportWithSize", text, argv, sized=True)


def _main(program: str, description: str, argv: Sequence[str] | None, *, sized: bool) -> int:
    parser = Parser(
        program,
        description,
        plain=True,
        notes=(
            f"{SOURCE} in the environment names the qube that calls, {TARGET} the one whose volume "
            "it is. What the daemon answers goes to standard output as it came.",
            "It serves calls of that name: a policy that allows them runs it.",
        ),
        exit_codes={1: "the import did not begin; standard output says why"},
    )
    parser.add_argument("volume", metavar="VOLUME", help="name of the volume")
    return run(parser, partial(_import, sized=sized), argv)


def _import(arguments: argparse.Namespace, *, sized: bool) -> int:
    source, target = (os.environ.get(key, "") for key in (SOURCE, TARGET))
    if not source or not target:
        raise UsageError(f"{SOURCE} and {TARGET} have to name qubes")
    ask = partial(_ask, source, target, arguments.volume)
    stream = sys.stdin.buffer
    begun = ask(_BEGIN, _size(stream) if sized else b"")
    place = _place(begun)
    if place is None:
        _answer(begun)
        return 1
    verdict = b"ok"
    try:
        copy_exactly(stream, place[1], place[0])
    except (OSError, ReportableError) as error:
        verdict = failed(error)
    except BaseException as error:
        ask(_END, failed(error))
        raise
    _answer(ask(_END, verdict))
    return 0


def _ask(source: str, target: str, volume: str, method: str, payload: bytes) -> bytes:
    try:
        request = admin.encode_request(method, volume, target, payload, source=source)
    except ProtocolError as error:
        raise ReportableError(str(error)) from None
    return ask_raw(request, INTERNAL_SOCKET)


def _size(stream: BinaryIO) -> bytes:
    """The first line, which is for the daemon to read.

    Raises:
        ReportableError: it is no printable text, or too long.
    """
    untrusted = stream.readline(_LONGEST_SIZE + 1)
    line = untrusted.removesuffix(b"\n")
    if line == untrusted or not line or not (line.isascii() and line.decode("ascii").isprintable()):
        raise ReportableError("the first line has to be a size in bytes")
    return line


def _place(answer: bytes) -> tuple[int, str] | None:
    """How many bytes go where; None when the answer is a refusal."""
    try:
        content = admin.decode_answer(answer)
    except ProtocolError as error:
        raise ReportableError(f"the daemon does not answer as it should: {error}") from None
    if not isinstance(content, bytes):
        return None
    size, _, path = content.decode().rstrip("\n").partition(" ")
    if not size.isdecimal() or not path:
        raise ReportableError(f"not the beginning of an import: {content!r}")
    return int(size), path


def _answer(answer: bytes) -> None:
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
