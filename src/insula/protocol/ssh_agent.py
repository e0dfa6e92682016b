"""What a client may ask of an SSH agent in another qube: its keys' names, and signatures.

Source of the format: the SSH agent protocol, as OpenSSH speaks it.
"""

import struct

from insula.protocol.errors import ProtocolError

MAX_MESSAGE = 262_144  # bytes; OpenSSH's own limit
FAILURE = b"\0\0\0\1\5"
_LENGTH = struct.Struct(">I")
_REQUEST_IDENTITIES = 11
_SIGN_REQUEST = 13
_ALLOWED = (_REQUEST_IDENTITIES, _SIGN_REQUEST)


def take_message(received: bytearray) -> bytes | None:
    """Remove the first whole message, with its length, from received; None while bytes are missing.

    Raises:
        ProtocolError: it is empty, or longer than MAX_MESSAGE bytes.
    """
    if len(received) < _LENGTH.size:
        return None
    (untrusted_length,) = _LENGTH.unpack_from(received)
    if not 0 < untrusted_length <= MAX_MESSAGE:
        raise ProtocolError(f"a message of {untrusted_length} bytes")
    end = _LENGTH.size + untrusted_length
    if len(received) < end:
        return None
    message = bytes(received[:end])
    del received[:end]
    return message


def may_ask(message: bytes) -> bool:
    """Whether a request only lists keys or has something signed; others change the agent."""
    return message[_LENGTH.size] in _ALLOWED
