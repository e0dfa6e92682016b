"""One call, served by a process of its own over the socket vchan."""

import os
import signal
import sys
from contextlib import suppress

from insula.protocol.command import Command
from insula.protocol.errors import ProtocolError
from insula.protocol.qrexec import EXIT_QREXEC_FAILED
from insula.qrexec import vchan
from insula.qrexec.call import Call
from insula.qrexec.loop import Loop
from insula.qrexec.port import SocketPort
from insula.qrexec.programs import NotStartedError, Searches, resolve, resolve_directly

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
    loop = Loop()
    try:
        connection = vchan.connect(domain, port_number, CONNECT_TIMEOUT)
    except OSError as error:
        print(f"data channel: {error}", file=sys.stderr)
        return 1
    connection.setblocking(False)
    port = SocketPort(loop)

    def over() -> None:
        loop.running = False

    call = Call(loop, port, b"", over, quiet=quiet, sockets=True, closes=True)
    port.use(connection.detach())
    signal.signal(signal.SIGUSR1, lambda _number, _frame: call.use_one_socket())
    if call.greet(b""):
        _start(call, command, searches, directly=directly)
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
    try:
        if command is None:
            call.fail(EXIT_QREXEC_FAILED)
        elif directly and command.service is not None:
            further = {"QREXEC_REQUESTED_TARGET_TYPE": "", "QREXEC_AGENT_PID": str(os.getpid())}
            call.start(resolve_directly(command.service, searches, further))
        else:
            call.start(resolve(command, _DEFAULT_USER, searches, login=False))
    except NotStartedError as error:
        print(f"call: {error}", file=sys.stderr)
        call.fail(error.code)
    except (ProtocolError, OSError, ValueError) as error:
        print(f"call: {error}", file=sys.stderr)
        call.fail(EXIT_QREXEC_FAILED)
