"""What a client of the updates proxy asks for (network-firewall.md section 10)."""

import re
from dataclasses import dataclass

MAX_HEAD = 16_384  # bytes of a request before its body
TUNNELLED = (443, 873)  # https, rsync
_HTTP = 80
_LINE = re.compile(rb"([A-Z]{1,20}) ([\x21-\x7e]+) HTTP/1\.[01]")
_HOST = rb"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,255})"
_TUNNEL = re.compile(_HOST + rb":([0-9]{1,5})")
_PLAIN = re.compile(rb"(?i:http)://" + _HOST + rb"(?::([0-9]{1,5}))?([/?].*)?")
_FIELD = re.compile(rb"([A-Za-z0-9!#$%&'*+.^_`|~-]+):[^\x00\r\n]*")
# What is between the client and us alone, and would keep the connection for a next request.
_OURS = (b"connection", b"keep-alive", b"te", b"trailer", b"upgrade")


class BadRequestError(Exception):
    """Nothing that a proxy for updates does; status is its answer's, with its phrase."""

    def __init__(self, status: str, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """Where to connect to. head: what goes there first; None for a tunnel."""

    host: str
    port: int
    head: bytes | None


def parse(untrusted: bytes) -> Request:
    """Read the head of a request, without the empty line at its end.

    Raises:
        BadRequestError: it is not one that is served.
    """
    first, *fields = untrusted.split(b"\r\n")
    line = _LINE.fullmatch(first)
    if line is None or not all(map(_FIELD.fullmatch, fields)):
        raise BadRequestError("400 Bad Request", "not a request")
    method, target = line[1], line[2]
    if method == b"CONNECT":
        found = _TUNNEL.fullmatch(target)
        if found is None:
            raise BadRequestError("400 Bad Request", "not a host and a port")
        port = _port(found[2])
        if port not in TUNNELLED:
            raise BadRequestError("403 Forbidden", f"no tunnels to port {port}")
        return Request(_host(found[1]), port, None)
    found = _PLAIN.fullmatch(target)
    if found is None:
        raise BadRequestError("400 Bad Request", "only http:// and CONNECT are served")
    path = found[3] or b"/"
    path = path if path.startswith(b"/") else b"/" + path
    kept = [field for field in fields if not _is_ours(field)]
    head = [method + b" " + path + b" HTTP/1.1", *kept, b"Connection: close"]
    port = _port(found[2]) if found[2] else _HTTP
    return Request(_host(found[1]), port, b"\r\n".join([*head, b"", b""]))


def _is_ours(field: bytes) -> bool:
    name = field.partition(b":")[0].lower()
    return name in _OURS or name.startswith(b"proxy-")


def _host(text: bytes) -> str:
    return text.strip(b"[]").decode("ascii")


def _port(digits: bytes) -> int:
    port = int(digits)
    if not 0 < port < 1 << 16:
        raise BadRequestError("400 Bad Request", "not a port")
    return port
