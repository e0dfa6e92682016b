"""One call, served by a process of its own over the socket vchan."""

import os
import select
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

from insula.protocol.command import Command
from insula.protocol.errors import ProtocolError
from insula.protocol.qrexec import EXIT_NOT_FOUND, EXIT_QREXEC_FAILED
from insula.qrexec import vchan
from insula.qrexec.call import Call
from insula.qrexec.conversation import Conversation
from insula.qrexec.loop import Loop
from insula.qrexec.port import SocketPort
from insula.qrexec.programs import (
    NotStartedError,
    Program,
    Searches,
    resolve,
    resolve_in_session,
)

CONNECT_TIMEOUT = 120.0  # seconds
_DEFAULT_USER = "user"
_CHUNK = 65_536


def serve_call(
    domain: int,
    port_number: int,
    command: Command | None,
    *,
    searches: Searches,
    quiet: bool,
    directly: bool = False,
) -> int:
    """Serve a call to its end; returns the exit status of this process.

    command: None where it was not understood, which the caller is told. directly: as who we are,
    without a shell between.
    """

    def begin(call: Call) -> None:
        signal.signal(signal.SIGUSR1, lambda _number, _frame: call.use_one_socket())
        _start(call, command, searches, directly=directly)

    return serve_channel(domain, port_number, begin, quiet=quiet)


def serve_channel(
    domain: int,
    port_number: int,
    begin: Callable[[Call], None],
    *,
    timeout: float | None = CONNECT_TIMEOUT,
    quiet: bool = False,
    keep_stderr: bool = False,
    greets_first: bool = True,
) -> int:
    """Connect to a caller's channel and serve the call; 0 once the caller was told its end.

    begin: starts what the call is for. quiet, keep_stderr: as in Call. greets_first: nothing is
    said before the caller says something, unless this is true.
    """
    loop = Loop()
    try:
        connection = vchan.connect(domain, port_number, timeout)
    except OSError as error:
        print(f"data channel: {error}", file=sys.stderr)
        return 1
    if not greets_first:
        select.select([connection], [], [])
    connection.setblocking(False)
    port = SocketPort(loop)

    def over() -> None:
        loop.running = False

    call = Call(
        loop, port, b"", over, quiet=quiet, keep_stderr=keep_stderr, sockets=True, closes=True
    )
    port.use(connection.detach())
    if call.greet(b""):
        begin(call)
    loop.run()
    _close(port)
    return 0 if call.finished_well else 1


def _close(port: SocketPort) -> None:
    """Close the connection; what is unread in a socket would make the other side see an error."""
    descriptor = port.take()
    if descriptor >= 0:
        with suppress(OSError):
            while os.read(descriptor, _CHUNK):
                pass
        os.close(descriptor)


def _start(call: Call, command: Command | None, searches: Searches, *, directly: bool) -> None:
    if command is None:
        call.fail(EXIT_QREXEC_FAILED)
    elif directly:
        start_or_fail(call, lambda: resolve_in_session(command, searches), EXIT_NOT_FOUND)
    else:
        start_or_fail(call, lambda: resolve(command, _DEFAULT_USER, searches, inherits=True))


def start_or_fail(
    call: Call, prepare: Callable[[], Program | Conversation], missing: int = EXIT_QREXEC_FAILED
) -> None:
    """Start what is prepared, or tell the caller why not.

    missing: the code where a file is not there that a program needs to be started, such as its
    interpreter.
    """
    try:
        call.start(prepare())
    except NotStartedError as error:
        print(f"call: {error}", file=sys.stderr)
        call.fail(error.code)
    except FileNotFoundError as error:
        print(f"call: {error}", file=sys.stderr)
        call.fail(missing)
    except (ProtocolError, OSError, ValueError) as error:
        print(f"call: {error}", file=sys.stderr)
        call.fail(EXIT_QREXEC_FAILED)
