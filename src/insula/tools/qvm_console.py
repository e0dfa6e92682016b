"""qvm-console: a qube's console on this terminal."""

import argparse
import fcntl
import os
import select
import socket
import subprocess
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from insula.client import instance
from insula.client.app import App, Qube
from insula.protocol.errors import ReportableError
from insula.tools import names
from insula.tools.command import Parser, run, say

EXIT_TAKEN = 200
SHOW_PROMPT = b"\r"  # A shell answers it by its prompt.
_LEAVE = b"\x1d"  # ^]
_CHUNK = 4096
_GRACE = 2.0  # seconds for a call to end whose other end is closed
_POLL = 1000  # milliseconds after which a qube that is gone is noticed
_SERVICE = "admin.vm.Console"
_PROGRAM = "qvm-console"


class TakenError(ReportableError):
    """Somebody else is at the console."""

    exit_code = EXIT_TAKEN


def main(argv: Sequence[str] | None = None) -> int:
    """qvm-console."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = Parser(
        _PROGRAM,
        "Show a qube's console on this terminal, with a root shell; ^] leaves it.",
        plain=True,
        exit_codes={EXIT_TAKEN: "somebody else is at the console"},
        notes=("The shell goes on when it is left, and is there again the next time.",),
    )
    names.add_one(parser)
    if argv is None and not words:
        parser.print_usage(sys.stderr)
        return 1
    return run(parser, _run, words)


def _run(arguments: argparse.Namespace) -> int:
    qube = names.find_one(App(), arguments)
    with console_of(qube) as console:
        say(_PROGRAM, f"console of {qube}; leave it with ^]")
        with _raw(sys.stdin.fileno()):
            os.write(console, SHOW_PROMPT)
            _pass_on(console)
    return 0


@contextmanager
def console_of(qube: Qube) -> Iterator[int]:
    """A qube's console, open for the length of the block, in which nobody else gets it.

    Raises:
        TakenError: somebody else has it.
        QubesVMNotRunningError: the qube does not run.
    """
    if instance.in_qube():
        with _console_by_call(qube) as console:
            yield console
        return
    path = qube.call(_SERVICE).decode()
    with opened(qube.name, path) as console:
        yield console


@contextmanager
def opened(name: str, path: str) -> Iterator[int]:
    """The console of a qube of that name by its path, as console_of.

    Raises:
        TakenError: somebody else has it.
    """
    lock = os.open(instance.run() / f"console-{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TakenError(f"somebody else is at the console of {name}") from None
        console = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            yield console
        finally:
            os.close(console)
    finally:
        os.close(lock)


@contextmanager
def _console_by_call(qube: Qube) -> Iterator[int]:
    """A console as another qube gets it: joined to a program of dom0."""
    from insula.client import remote  # noqa: PLC0415 - most run in dom0

    ours, theirs = socket.socketpair()
    with ours:
        words = remote.command(qube.name, _SERVICE)
        with theirs:
            process = subprocess.Popen(words, stdin=theirs.fileno(), stdout=theirs.fileno())
        try:
            yield ours.fileno()
        finally:
            ours.close()
            code = _ended(process)
    if code == EXIT_TAKEN:
        raise TakenError(f"somebody else is at the console of {qube}")
    if code == remote.EXIT_REFUSED:
        raise ReportableError(f"{_SERVICE} of {qube}: the call was refused")


def _ended(process: "subprocess.Popen[bytes]") -> int:
    try:
        return process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.terminate()
        return process.wait()


def _pass_on(console: int) -> None:
    """Pass both ways until one side ends, or the person leaves."""
    keyboard, screen = sys.stdin.fileno(), sys.stdout.fileno()
    poll = select.poll()
    poll.register(keyboard, select.POLLIN)
    poll.register(console, select.POLLIN)
    while True:
        for descriptor, _events in poll.poll(_POLL):
            try:
                data = os.read(descriptor, _CHUNK)
            except OSError:
                return  # The console is no more.
            if not data:
                return
            if descriptor == console:
                os.write(screen, data)
                continue
            typed, left, _ = data.partition(_LEAVE)
            os.write(console, typed)
            if left:
                return


@contextmanager
def _raw(terminal: int) -> Iterator[None]:
    """Pass every key on; whatever is no terminal is left alone."""
    if not os.isatty(terminal):
        yield
        return
    before = termios.tcgetattr(terminal)
    tty.setraw(terminal)
    try:
        yield
    finally:
        with suppress(termios.error):
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)
