"""One call of the Admin API: a connection, a request, an answer."""

import socket
from collections.abc import Callable

from insula.client import errors, instance
from insula.protocol import admin
from insula.protocol.admin import ADMIN_QUBE, Refusal
from insula.protocol.errors import ProtocolError

_CHUNK = 65_536
observe: Callable[[str], object] | None = None  # told of every call, where somebody wants to see


def call(
    destination: str,
    method: str,
    argument: str = "",
    payload: bytes = b"",
    *,
    timeout: float = 0,
    socket_name: str = instance.ADMIN_SOCKET,
) -> bytes:
    """Ask the daemon and return the content of its answer.

    timeout: seconds between two signs of life, 0 for as long as it takes: starting and shutting
    down have deadlines of their own in the daemon. socket_name: which of its sockets to ask.

    Raises:
        DaemonNotRunningError: nobody listens.
        QubesDaemonAccessError: the daemon gave no answer, as it does when something is forbidden.
        QubesException: the daemon refused; what its answer names.
    """
    try:
        request = admin.encode_request(method, argument, destination, payload)
    except ProtocolError as error:
        raise errors.QubesValueError(str(error)) from None
    if observe is not None:
        observe(f"{method}+{argument} of {destination}, {len(payload)} bytes")
    if instance.in_qube():
        from insula.client import remote  # noqa: PLC0415 - most programs run in dom0

        service = remote.method_service(method, argument)
        return content_of(remote.ask(destination, service, payload, timeout), method)
    return content_of(ask_raw(request, socket_name, timeout), method)


def ask_dom0(method: str, argument: str = "", payload: bytes = b"") -> bytes:
    """A call whose destination is dom0."""
    return call(ADMIN_QUBE, method, argument, payload)


def ask_raw(request: bytes, socket_name: str, timeout: float = 0) -> bytes:
    """Everything that the daemon answers to a whole request.

    Raises:
        QubesDaemonCommunicationError: nobody listens, or the time is over.
    """
    path = instance.socket_path(socket_name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        if timeout:
            connection.settimeout(timeout)
        try:
            connection.connect(path)
        except OSError:
            raise errors.DaemonNotRunningError(path) from None
        received = bytearray()
        try:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # A refusal may have come before all was sent.
        try:
            while chunk := connection.recv(_CHUNK):
                received += chunk
        except TimeoutError:
            text = f"the daemon did not answer in {timeout:g} s"
            raise errors.QubesDaemonCommunicationError(text) from None
        except ConnectionResetError:
            received.clear()
    return bytes(received)


def content_of(received: bytes, method: str) -> bytes:
    """What an answer says.

    Raises:
        QubesDaemonAccessError: it is none.
        QubesException: it is a refusal.
    """
    try:
        answer = admin.decode_answer(received)
    except ProtocolError as error:
        raise errors.QubesDaemonCommunicationError(f"{method}: {error}") from None
    if answer is None:
        text = f"{method}: the daemon gave no answer: it does not allow this, or it failed"
        where = "in dom0" if instance.in_qube() else instance.home() / "log" / "insulad.log"
        raise errors.QubesDaemonAccessError(f"{text}\nIts log may say why: {where}")
    if isinstance(answer, Refusal):
        raise errors.from_refusal(answer)
    return answer
