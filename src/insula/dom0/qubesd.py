"""The calls of the Admin API that carrying a call out needs (qrexec-wire.md section 12)."""

import os
import socket
from pathlib import Path

_SYSTEM_SOCKET = Path("/run/qubesd.sock")
MOST = 65_534  # bytes of an answer
_MESSAGE_AT = 3
NOT_HALTED = "QubesVMNotHaltedError"


class QubesdError(Exception):
    """A call was refused. kind: the exception's name. message: what it says to the person."""

    def __init__(self, kind: str, text: str, message: str = "") -> None:
        super().__init__(text)
        self.kind, self.message = kind, message


def call(
    method: str,
    destination: str,
    payload: bytes = b"",
    *,
    argument: str = "",
    source: str = "dom0",
    most: int = MOST,
    socket_path: Path | None = None,
) -> bytes:
    """The content of an answer.

    source: the qube on whose behalf. socket_path: of another server than the usual one.

    Raises:
        QubesdError: it is none.
    """
    kind = "keyword" if destination.startswith("@") else "name"
    where = destination.removeprefix("@")
    request = f"{method}+{argument} {source} {kind} {where}\0".encode() + payload
    path = socket_path or usual_socket()
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while len(answer) <= most and (more := connection.recv(MOST)):
                answer += more
    except OSError as error:
        raise QubesdError("", f"{path}: {error}") from None
    if answer.startswith(b"0\0"):
        return answer[2:]
    fields = answer.split(b"\0")
    name = fields[1].decode("ascii", "replace") if len(fields) > 1 else ""
    message = fields[3].decode("utf-8", "replace") if len(fields) > _MESSAGE_AT else ""
    raise QubesdError(name, f"{method} {destination}: {name or 'no answer'}", message)


def usual_socket() -> Path:
    """Where the server of the Admin API listens."""
    run = os.environ.get("INSULA_RUN")
    return Path(run, "qubesd.sock") if run else _SYSTEM_SOCKET
