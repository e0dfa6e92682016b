"""qubesd-query: one request to the daemon as it stands, and its answer as it stands."""

import argparse
import socket
import sys
from collections.abc import Sequence

from insula.client import instance
from insula.protocol.admin import MAX_REQUEST
from insula.protocol.errors import ReportableError
from insula.tools.command import Parser, run

_MAX_LINE = 1024  # bytes
_CHUNK = 65_536
_NO_ANSWER = 1


def main(argv: Sequence[str] | None = None) -> int:
    """qubesd-query."""
    parser = Parser(
        "qubesd-query",
        "Send a request to the daemon, its payload from standard input, and print the raw answer.",
        plain=True,
        examples={
            "qubesd-query -e dom0 admin.vm.List dom0": "list all qubes",
            "echo -n blue | qubesd-query dom0 admin.vm.property.Set work label": "set a property",
        },
        exit_codes={"N": "with --fail: the kind of the answer; 1 also where there is none"},
    )
    parser.add_argument(
        "-c", "--connect", metavar="SOCKET", help="the daemon's socket; default: the Admin API's"
    )
    parser.add_argument("-e", "--empty", action="store_true", help="send no payload")
    ending = parser.add_mutually_exclusive_group()
    ending.add_argument("--fail", action="store_true", help="tell the kind of answer by exit code")
    ending.add_argument("--null", action="store_true", help="end the output with a NUL")
    parser.add_argument(
        "--max-bytes", type=int, metavar="N", help="refuse a payload of more than N bytes"
    )
    parser.add_argument(
        "--single-line", action="store_true", help="the payload is one line of printable ASCII"
    )
    for name, text in (
        ("source", "the qube in whose name to ask"),
        ("method", "what to ask for"),
        ("destination", "the qube that it is about"),
    ):
        parser.add_argument(name, metavar=name.upper(), help=text)
    parser.add_argument("argument", metavar="ARGUMENT", nargs="?", default="", help="further word")
    return run(parser, _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    payload = b"" if arguments.empty else _payload(arguments)
    header = f"{arguments.method}+{arguments.argument} {arguments.source} name "
    request = header.encode() + arguments.destination.encode() + b"\0" + payload
    answer = _ask(arguments.connect or instance.socket_path(instance.ADMIN_SOCKET), request)
    sys.stdout.buffer.write(answer + (b"\0" if arguments.null else b""))
    sys.stdout.buffer.flush()
    if not arguments.fail:
        return 0
    return int(answer[:1]) if answer[:1].isdigit() else _NO_ANSWER


def _payload(arguments: argparse.Namespace) -> bytes:
    """What standard input holds.

    Raises:
        ReportableError: it is too much, or not the one line that it has to be.
    """
    usual = _MAX_LINE if arguments.single_line else MAX_REQUEST
    limit = usual if arguments.max_bytes is None else min(arguments.max_bytes, MAX_REQUEST)
    payload = sys.stdin.buffer.read(limit + 2)
    if arguments.single_line:
        line, _, rest = payload.partition(b"\n")
        if rest or not all(0x20 <= byte <= 0x7E for byte in line):
            raise ReportableError("standard input is not one line of printable ASCII")
        payload = line
    if len(payload) > limit:
        raise ReportableError(f"the payload has more than {limit} bytes")
    return payload


def _ask(path: str, request: bytes) -> bytes:
    received = b""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(path)
        except OSError as error:
            text = f"{path} cannot be reached: {error.strerror}"
            unreachable = ReportableError(text)
            unreachable.hint = "Start the daemon with: insula up"
            raise unreachable from None
        try:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(_CHUNK):
                received += chunk
        except (BrokenPipeError, ConnectionResetError):
            pass  # A refusal without a word.
    return received
