"""qrexec-fork-server: runs calls inside a user's session (qrexec-wire.md section 6.4)."""

import argparse
import os
import socket
import struct
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from insula.protocol.command import Command, parse_command
from insula.protocol.errors import ProtocolError
from insula.protocol.qrexec import MAX_COMMAND, ExecParameters, MessageType
from insula.qrexec.loop import READ, Loop
from insula.qrexec.one_call import serve_call
from insula.qrexec.programs import Searches
from insula.qrexec.sinks import open_missing

_REQUEST = struct.Struct("=IIII")
_DEFAULT_PATH = "/var/run/qubes/qrexec-server.{}.sock"
_BACKLOG = 64
_TIMEOUT = 10.0  # seconds for what takes no time


def hand_over(path: str, kind: MessageType, parameters: ExecParameters) -> socket.socket | None:
    """Give a call to a fork server; None where there is none.

    The call is over when the fork server closes the connection.
    """
    text = os.fsencode((parameters.text or "").partition(":")[2]) + b"\0"
    if len(text) > MAX_COMMAND:
        return None
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(_TIMEOUT)
    try:
        connection.connect(path)
        head = _REQUEST.pack(kind, parameters.domain, parameters.port, len(text))
        connection.sendall(head + text)
    except OSError:
        connection.close()
        return None
    return connection


class ForkServer:
    """Serves the socket at path, each call in a process of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._loop = Loop()
        self._searches = Searches.of_environment()
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(_BACKLOG)

    def serve(self) -> None:
        """Serve until the process is ended."""
        self._loop.add(self._listener.fileno(), READ, self._accept)
        self._loop.run()

    def _accept(self, _events: int) -> None:
        with suppress(OSError):
            connection, _ = self._listener.accept()
            with connection:
                self._fork(connection)

    def _fork(self, connection: socket.socket) -> None:
        pid = os.fork()
        if pid:
            self._loop.on_exit(pid, lambda _status: None)
            return
        status = 1
        try:
            # The connection is held by this process alone: it is what tells of the call's end.
            held = os.dup2(connection.detach(), 3, inheritable=False)
            os.closerange(held + 1, os.sysconf("SC_OPEN_MAX"))
            connection = socket.socket(fileno=held)
            connection.settimeout(_TIMEOUT)
            kind, domain, port, command = _receive(connection)
            status = serve_call(
                domain,
                port,
                command,
                searches=self._searches,
                quiet=kind == MessageType.JUST_EXEC,
                directly=True,
            )
        except ProtocolError as error:
            print(f"qrexec-fork-server: {error}", file=sys.stderr)
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(status)


def _receive(connection: socket.socket) -> tuple[int, int, int, Command | None]:
    """A request; no command where that is not understood.

    Raises:
        ProtocolError: it is none.
        OSError: it does not come.
    """
    kind, domain, port, length = _REQUEST.unpack(_exactly(connection, _REQUEST.size))
    if kind not in (MessageType.EXEC_CMDLINE, MessageType.JUST_EXEC):
        raise ProtocolError(f"unexpected type {kind:#x}")
    if not 0 < length <= MAX_COMMAND:
        raise ProtocolError(f"a command of {length} bytes")
    text = _exactly(connection, length)
    if not text.endswith(b"\0") or b"\0" in text[:-1] or text == b"\0":
        raise ProtocolError("a command is a text that ends in its only NUL")
    me = os.environ.get("USER", "")
    try:
        command = parse_command(f"{me}:{os.fsdecode(text[:-1])}")
    except ProtocolError:
        return kind, domain, port, None
    return kind, domain, port, command


def _exactly(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        data = connection.recv(size - len(received))
        if not data:
            raise ProtocolError("the request broke off")
        received += data
    return received


def main(words: Sequence[str] | None = None) -> int:
    """Serve the calls of the user whose session this is."""
    parser = argparse.ArgumentParser(
        prog="qrexec-fork-server", description="Run the calls to this qube inside the session."
    )
    default = _DEFAULT_PATH.format(os.environ.get("USER", ""))
    parser.add_argument("path", metavar="PATH", nargs="?", default=default, type=Path)
    path = parser.parse_args(words).path
    open_missing()
    try:
        ForkServer(path).serve()
    except OSError as error:
        print(f"qrexec-fork-server: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
