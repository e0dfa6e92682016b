"""What qrexec-client is told."""

import getopt
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from insula.dom0.daemon_socket import DIRECTORY

_SHORT = "+d:l:ec:EtTw:Wkp:h"
_LONG = ["no-exit-code", "socket-dir=", "use-stdin-socket", "prefix-data=", "help"]
_TIMEOUT = 5  # seconds
_LONGEST_ID = 31
_LONGEST_COMMAND = 65_534


class UsageError(Exception):
    """The words are none that the command takes."""


class AcceptedCall(NamedTuple):
    """A call of a qube that waits to be connected: its id, the qube's name and domain number."""

    request_id: str
    name: str
    domain: int


@dataclass(slots=True, kw_only=True)
class Options:
    """local: a command to connect. timeout: seconds for the data connection, 0 for no limit."""

    target: str
    command: str
    local: str | None
    call: AcceptedCall | None
    just_exec: bool
    no_exit_code: bool
    filter_stdout: bool
    filter_stderr: bool
    timeout: int
    wait: bool
    kill: bool
    prefix_data: bytes
    use_stdin_socket: bool
    directory: Path


def usage() -> str:
    """What the command takes."""
    return (
        "usage: qrexec-client [options] -d TARGET [-l COMMAND | -c ID,NAME,DOMAIN | -e] COMMAND\n\n"
        "Runs COMMAND (USER:..., or USER:QUBESRPC SERVICE SOURCE) in a qube.\n\n"
        "  -d TARGET               a qube's name, domain number or uuid:..., or dom0\n"
        "  -l COMMAND              run COMMAND here and connect the two\n"
        "  -c ID,NAME,DOMAIN       connect a call that a qube makes\n"
        "  -e                      only start it\n"
        "  -E, --no-exit-code      exit 0 whatever it exits with\n"
        "  -t, -T                  replace what could act on a terminal in output, in errors\n"
        "  -w SECONDS              wait so long for the connection; 0 for ever\n"
        "  -W                      with -c: wait for the end of the call\n"
        "  -k                      kill the target afterwards\n"
        "  -p, --prefix-data=TEXT  send TEXT before anything else\n"
        "      --socket-dir=PATH   where the sockets of daemons are\n"
        "      --use-stdin-socket  standard input is a socket, for both directions\n"
        "  -h, --help              this text"
    )


def parse(words: Sequence[str]) -> Options | None:
    """Read the words; None where help is asked for.

    Raises:
        UsageError: they are not as they should be.
    """
    try:
        given, rest = getopt.gnu_getopt(list(words), _SHORT, _LONG)
    except getopt.GetoptError as error:
        raise UsageError(str(error)) from None
    values = dict(given)
    if "-h" in values or "--help" in values:
        return None
    if not values.get("-d") or len(rest) != 1:
        raise UsageError("a target and a command are needed")
    if sum(name in values for name in ("-l", "-c", "-e")) > 1:
        raise UsageError("-l, -c and -e do not go together")
    stdin_socket = "--use-stdin-socket" in values
    if stdin_socket and "-l" in values:
        raise UsageError("--use-stdin-socket does not go with -l")
    if not rest[0] or len(os.fsencode(rest[0])) > _LONGEST_COMMAND:
        raise UsageError("a command has 1 to 65534 bytes")
    return Options(
        target=values["-d"],
        command=rest[0],
        local=values.get("-l"),
        call=_call(values["-c"]) if "-c" in values else None,
        just_exec="-e" in values,
        no_exit_code="-E" in values or "--no-exit-code" in values,
        filter_stdout="-t" in values,
        filter_stderr="-T" in values,
        timeout=_seconds(values.get("-w")),
        wait="-W" in values,
        kill="-k" in values,
        prefix_data=os.fsencode(values.get("--prefix-data", values.get("-p", ""))),
        use_stdin_socket=stdin_socket,
        directory=Path(values["--socket-dir"]) if "--socket-dir" in values else DIRECTORY,
    )


def _call(text: str) -> AcceptedCall:
    parts = text.split(",")
    if len(parts) != 3 or not parts[2].isdigit() or int(parts[2]) == 0:
        raise UsageError(f"not ID,NAME,DOMAIN: {text!r}")
    if not 0 < len(os.fsencode(parts[0])) <= _LONGEST_ID or not parts[1]:
        raise UsageError(f"not ID,NAME,DOMAIN: {text!r}")
    return AcceptedCall(parts[0], parts[1], int(parts[2]))


def _seconds(text: str | None) -> int:
    if text is None:
        return _TIMEOUT
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"{text!r} is no number of seconds")
    return int(text)
