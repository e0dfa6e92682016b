"""Requests of local programs to the daemon beside the Admin API: those with a descriptor in the
answer, and those about the instance itself.

The socket `$INSULA_RUN/local.sock` is SOCK_SEQPACKET; records are JSON objects of at most
MAX_RECORD bytes, descriptors travel beside them. One request per connection. The connection stays
open for as long as what was asked for is in use, and its closing says that the caller is done.

| op | fields, descriptors | answer |
|---|---|---|
| call | target, user, service or command, flags | qube, domain, port, nonce (hex); data |
| window | qube, authorization (hex name, hex data); an X connection, a socket | pid; pidfd |
| evaluate | service, source, target: names | allowed: bool, "ask" counting as allowed |
| status | | what `insula status` shows |
| template | name, root, kernel, initrd, recipe: paths of a build | revision |
| golden | qube | key; answered once the snapshot is there |
| stop | kill: bool | answered when qubes are down, just before the daemon ends |

window: the socket, which may be missing, is for what viewer and caller tell each other
(viewing.py).

call: target is a qube's name, "@dispvm" or "@dispvm:TEMPLATE"; a disposable ends with the
connection. service is "NAME[+ARG]"; command is a shell command; exactly one of them. user is a
login name or "DEFAULT". Flags, all booleans: autostart; gui, the call is to wait for the qube's
session where the service asks for it; detached, the program's streams are /dev/null and its exit
code comes as soon as it runs. An error answer has "error" (an Admin API exception's name) and
"message".
"""

import json
import re
from typing import Any, NamedTuple

from insula.protocol.errors import ProtocolError

MAX_RECORD = 70_000
SOCKET_NAME = "local.sock"
_USER = re.compile(r"[A-Za-z0-9_+,.-]{1,64}", re.ASCII)
_SERVICE = re.compile(r"[A-Za-z0-9_.-]+(\+[A-Za-z0-9_.+-]*)?", re.ASCII)
_TARGET = re.compile(r"(@dispvm(:[A-Za-z][A-Za-z0-9_.-]{0,30})?|[A-Za-z][A-Za-z0-9_.-]{0,30})")


class CallRequest(NamedTuple):
    """A command or a service to run in a qube; exactly one of service and command is given.

    A named tuple, not a data class: qvm-run would spend milliseconds on `dataclasses`.
    """

    target: str
    user: str = "DEFAULT"
    service: str | None = None
    command: str | None = None
    autostart: bool = True
    gui: bool = False
    detached: bool = False

    @classmethod
    def from_json(cls, loaded: dict[str, Any]) -> "CallRequest":
        """Read a request.

        Raises:
            ProtocolError: a field is missing, of another type, or not as its format says.
        """
        target, user = loaded.get("target"), loaded.get("user", "DEFAULT")
        service, command = loaded.get("service"), loaded.get("command")
        if not isinstance(target, str) or _TARGET.fullmatch(target) is None:
            raise ProtocolError(f"no target: {target!r}")
        if not isinstance(user, str) or _USER.fullmatch(user) is None:
            raise ProtocolError(f"no user's name: {user!r}")
        if (service is None) == (command is None):
            raise ProtocolError("a call has either a service or a command")
        if service is not None and (
            not isinstance(service, str) or _SERVICE.fullmatch(service) is None
        ):
            raise ProtocolError(f"no service: {service!r}")
        if command is not None and (not isinstance(command, str) or "\0" in command):
            raise ProtocolError("a command is text without NUL")
        return cls(
            target=target,
            user=user,
            service=service,
            command=command,
            autostart=loaded.get("autostart", True) is True,
            gui=loaded.get("gui", False) is True,
            detached=loaded.get("detached", False) is True,
        )

    def text(self) -> str:
        """The command string for the agent (qrexec-wire.md section 8)."""
        prefix = "" if self.gui else "nogui:"
        if self.service is not None:
            return f"{self.user}:{prefix}QUBESRPC {self.service} dom0"
        return f"{self.user}:{prefix}{self.command}"


def encode(record: dict[str, Any]) -> bytes:
    """One record.

    Raises:
        ProtocolError: it is longer than MAX_RECORD bytes.
    """
    encoded = json.dumps(record, separators=(",", ":")).encode()
    if len(encoded) > MAX_RECORD:
        raise ProtocolError(f"record of {len(encoded)} bytes, the limit is {MAX_RECORD}")
    return encoded


def decode(received: bytes) -> dict[str, Any]:
    """The object of one record.

    Raises:
        ProtocolError: it is no JSON object.
    """
    try:
        loaded = json.loads(received)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"record is no JSON: {error}") from None
    if not isinstance(loaded, dict):
        raise ProtocolError("record is no JSON object")
    return loaded
