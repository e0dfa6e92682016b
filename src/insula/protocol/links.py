"""Network cards of a qube: what the daemon tells its agent of them, and what it hears.

They are messages of the control port. Addresses and roles: network-firewall.md sections 3 and 4.
"""

import enum
import json
import struct
from dataclasses import asdict, dataclass
from typing import Any

from insula.protocol.control import MAX_ERROR_TEXT, ControlType
from insula.protocol.errors import ProtocolError
from insula.protocol.frames import frame

_NUMBER = struct.Struct("<I")
_STATUS = struct.Struct("<II")


class LinkRole(enum.Enum):
    """What a network card is for."""

    UPLINK = "uplink"  # to the qube's provider; addresses are in QubesDB
    DOWNLINK = "downlink"  # to a client
    OUTSIDE = "outside"  # of a net qube, to what is beyond this computer


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A network card and what it is for (network-firewall.md sections 3 and 4).

    number: names it in answers. mac: by which it is found when it appears. name: what it is to be
    called. Of a DOWNLINK: own_mac, which it is given then; client_mac; ips, the client's real
    addresses, of either family; visible_ip and visible_gateway, what the client is told instead of
    the first of ips and of this qube's own address, or None. Of an OUTSIDE: ips with their prefix
    length, gateways, and dns, the servers there.
    """

    number: int
    role: LinkRole
    mac: str
    name: str
    own_mac: str | None = None
    client_mac: str | None = None
    ips: tuple[str, ...] = ()
    visible_ip: str | None = None
    visible_gateway: str | None = None
    gateways: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()

    def encode(self) -> bytes:
        fields = {**asdict(self), "role": self.role.value}
        return frame(ControlType.LINK, json.dumps(fields).encode("ascii"))

    @classmethod
    def decode(cls, body: bytes) -> "Link":
        try:
            loaded: dict[str, Any] = json.loads(body)
            for several in ("ips", "gateways", "dns"):
                loaded[several] = tuple(map(str, loaded.get(several, ())))
            return cls(
                **{**loaded, "role": LinkRole(loaded["role"]), "number": int(loaded["number"])}
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ProtocolError(f"link is not as expected: {error}") from None


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """Outcome of LINK or UNLINK: 0, or an error number and its text."""

    number: int
    code: int = 0
    text: str = ""

    def encode(self, message_type: ControlType) -> bytes:
        text = self.text.encode("utf-8", "replace")[:MAX_ERROR_TEXT]
        return frame(message_type, _STATUS.pack(self.number, self.code) + text)

    @classmethod
    def decode(cls, untrusted: bytes) -> "LinkStatus":
        if not _STATUS.size <= len(untrusted) <= _STATUS.size + MAX_ERROR_TEXT:
            raise ProtocolError(f"link status of {len(untrusted)} bytes")
        number, code = _STATUS.unpack_from(untrusted)
        return cls(number, code, untrusted[_STATUS.size :].decode("utf-8", "replace"))


def unlink(number: int) -> bytes:
    """Ask the agent to take a network card down."""
    return frame(ControlType.UNLINK, _NUMBER.pack(number))


def unlinked_number(body: bytes) -> int:
    """Which one unlink() named."""
    if len(body) != _NUMBER.size:
        raise ProtocolError(f"unlink of {len(body)} bytes")
    number: int = _NUMBER.unpack(body)[0]
    return number
