"""qvm-copy-to-vm and qvm-move-to-vm: send files of this host to a qube.

The files are read by a process of its own, and the reply of the qube is untrusted: only its numbers
and a cleaned name of it are shown.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from insula.client import errors
from insula.client.local_socket import LocalRequest
from insula.filecopy.checking import check
from insula.filecopy.removing import remove
from insula.filecopy.sending import SourceError
from insula.qrexec.data_connection import DataConnection
from insula.qrexec.relay import relay
from insula.qrexec.sinks import HARMLESS, DescriptorSink
from insula.tools.command import Parser, completed, run, say, show

_SERVICE, _ANY_NAMES = "qubes.Filecopy", "+allow-all-names"
_EXIT_REFUSED = 255


def copy_to_vm(argv: Sequence[str] | None = None) -> int:
    """qvm-copy-to-vm."""
    return run(_parser("qvm-copy-to-vm", "Copy"), _copy, argv)


def move_to_vm(argv: Sequence[str] | None = None) -> int:
    """qvm-move-to-vm."""
    return run(_parser("qvm-move-to-vm", "Move"), _move, argv)


def _parser(program: str, does: str) -> Parser:
    parser = Parser(
        program,
        f"{does} files and directories of this host into a qube, below ~/QubesIncoming/dom0.",
        examples={f"{program} work report.pdf photos": f"{does.lower()} a file and a directory"},
        exit_codes={_EXIT_REFUSED: "the qube could not be reached"},
        notes=(
            "Nothing that is in the qube already is overwritten. A file is moved by removing it "
            "here once the qube has confirmed that all of it is on its disk.",
        ),
    )
    parser.set_defaults(program=program)
    parser.add_argument("name", metavar="VMNAME", help="the qube")
    files = parser.add_argument("files", metavar="FILE", nargs="+", help="what to send")
    completed(files, "files")
    parser.add_argument(
        "--with-progress", dest="progress", action="store_true", default=True,
        help="tell how far it is; the default",
    )  # fmt: skip
    parser.add_argument("--without-progress", dest="progress", action="store_false", help="do not")
    parser.add_argument("--ignore-symlinks", action="store_true", help="leave symbolic links out")
    parser.add_argument(
        "--no-ignore-symlinks", dest="ignore_symlinks", action="store_false",
        help="send them; the default",
    )  # fmt: skip
    return parser


def _copy(arguments: argparse.Namespace) -> int:
    return _send(arguments, _paths(arguments))


def _move(arguments: argparse.Namespace) -> int:
    paths = _paths(arguments)
    return _send(arguments, paths) or remove(paths)


def _paths(arguments: argparse.Namespace) -> list[str]:
    files: list[str] = arguments.files
    return [path[:-1] if path.endswith("/") and path != "/" else path for path in files]


def _send(arguments: argparse.Namespace, paths: list[str]) -> int:
    try:
        found = check([os.fsencode(path) for path in paths], ignore_links=arguments.ignore_symlinks)
    except SourceError as error:
        say(arguments.program, str(error))
        return 1
    request = LocalRequest()
    fields = {
        "target": arguments.name,
        "service": _SERVICE if found.safe else _SERVICE + _ANY_NAMES,
        "gui": False,
    }
    with ExitStack() as closing:
        closing.enter_context(request)
        try:
            request.ask("call", fields, timeout=None)
        except errors.DaemonNotRunningError:
            raise
        except errors.QubesException as error:
            show(error, f"{arguments.program}: error: ")
            return _EXIT_REFUSED
        return _connect(request, arguments, paths, found.size)


def _connect(
    request: LocalRequest, arguments: argparse.Namespace, paths: list[str], size: int
) -> int:
    """Let a sender and the qube talk to each other; the exit code of both."""
    # Without the working directory on its path: what lies there is not ours.
    words = [sys.executable, "-P", "-m", "insula.filecopy.packer"]
    words += ["--ignore-symlinks"] if arguments.ignore_symlinks else []
    pipe = subprocess.PIPE
    environment = {
        **os.environ,
        "PROGRESS_TYPE": "console" if arguments.progress and not arguments.quiet else "none",
        "FILECOPY_TOTAL_BYTES": str(size),
    }
    with subprocess.Popen(
        [*words, "--", *paths], stdin=pipe, stdout=pipe, env=environment
    ) as sender:
        assert sender.stdin is not None
        assert sender.stdout is not None
        replies = DescriptorSink(sender.stdin.fileno())
        sender.stdin.close()
        connection = DataConnection(
            request.descriptors[0],
            bytes.fromhex(request.fields["nonce"]),
            source=sender.stdout.fileno(),
            output=replies,
            errors=DescriptorSink(2, table=HARMLESS),
        )
        try:
            relay([connection])
        finally:
            connection.close()
            replies.end()
            sender.stdout.close()
        sent = sender.wait()
    if connection.lost is not None:
        say(arguments.program, connection.lost)
    return 1 if sent or connection.lost or connection.code else 0
