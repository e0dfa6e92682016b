"""Updates: what a template asks of the proxy, and what a qube says while it installs them."""

from contextlib import suppress

from insula.guest.updates.requests import TUNNELLED, BadRequestError, parse
from insula.protocol.errors import ProtocolError
from insula.protocol.updating import parse_line
from tests.fuzz.spelling import spelled

_WORDS = (
    b"GET ", b"CONNECT ", b"http://", b"host", b":443", b":80", b"/", b"?", b"[::1]", b"@",
    b" HTTP/1.1", b"\r\n", b"Connection: close", b"Proxy-", b"progress ", b"package ", b"-", b"7",
)  # fmt: skip


def fuzz(data: bytes) -> None:
    """One input: a request and a line, as it is and spelled in words."""
    for untrusted in (data, spelled(data, _WORDS)):
        _check_request(untrusted)
        with suppress(ProtocolError):
            assert parse_line(str(parse_line(untrusted)).encode()) == parse_line(untrusted)


def _check_request(untrusted: bytes) -> None:
    """What goes on to a server is one request whose head ends where ours does."""
    with suppress(BadRequestError):
        request = parse(untrusted)
        assert 0 < request.port < 1 << 16
        if request.head is None:
            assert request.port in TUNNELLED
        else:
            assert request.head.index(b"\r\n\r\n") == len(request.head) - 4
            assert b"\n" not in request.head.replace(b"\r\n", b"")
