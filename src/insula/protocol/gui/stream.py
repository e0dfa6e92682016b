"""Taking whole messages off a stream, with the length rules of gui.md sections 2.1 and 6.2."""

from typing import Any

from insula.protocol.errors import ProtocolError
from insula.protocol.gui.limits import MAX_CLIPBOARD, MAX_CLIPBOARD_OLD
from insula.protocol.gui.messages import (
    FIXED,
    HEADER,
    MAX_DUMP_BODY,
    MIN_DUMP_BODY,
    AgentMessage,
    ClipboardData,
    MessageType,
    Skipped,
    ViewerMessage,
    decode_dump,
    decode_fixed,
)

MAX_FROM_VIEWER = 1_048_576  # bytes of a body; more means that the stream is out of step

_FROM_AGENT = frozenset(
    {
        MessageType.CREATE,
        MessageType.DESTROY,
        MessageType.MAP,
        MessageType.UNMAP,
        MessageType.CONFIGURE,
        MessageType.SHMIMAGE,
        MessageType.CLIPBOARD_DATA,
        MessageType.WMNAME,
        MessageType.DOCK,
        MessageType.WINDOW_HINTS,
        MessageType.WINDOW_FLAGS,
        MessageType.WMCLASS,
        MessageType.WINDOW_DUMP,
        MessageType.CURSOR,
    }
)
_FROM_VIEWER = frozenset(
    {
        MessageType.KEYPRESS,
        MessageType.BUTTON,
        MessageType.MOTION,
        MessageType.CROSSING,
        MessageType.FOCUS,
        MessageType.DESTROY,
        MessageType.MAP,
        MessageType.CONFIGURE,
        MessageType.CLOSE,
        MessageType.CLIPBOARD_REQ,
        MessageType.CLIPBOARD_DATA,
        MessageType.KEYMAP_NOTIFY,
        MessageType.WINDOW_FLAGS,
        MessageType.WINDOW_DUMP_ACK,
    }
)


class ClipboardTooLongError(ProtocolError):
    """An agent's clipboard is longer than its version of the protocol has them."""

    def __init__(self, size: int) -> None:
        super().__init__(f"clipboard of {size} bytes")
        self.size = size


def take_from_agent(received: bytearray, minor: int) -> AgentMessage | None:
    """Remove the first whole message from received and return it; None while bytes are missing.

    minor is the negotiated minor version. Whether a window exists is the caller's to check.

    Raises:
        ProtocolError: what section 6.2 calls fatal and a header or a body alone can show.
    """
    if len(received) < HEADER.size:
        return None
    untrusted_type, window, untrusted_length = HEADER.unpack_from(received)
    message_type = _known(untrusted_type)
    if message_type not in _FROM_AGENT:
        raise ProtocolError(f"message type {untrusted_type} is not an agent's")
    length = _body_length(message_type, untrusted_length, minor)
    end = HEADER.size + length
    if len(received) < end:
        return None
    body = bytes(received[HEADER.size : end])
    del received[:end]
    message: AgentMessage = _decode(message_type, window, body)
    return message


def take_from_viewer(received: bytearray) -> ViewerMessage | None:
    """Remove the first whole message of the trusted side; None while bytes are missing.

    Raises:
        ProtocolError: the body is longer than any message's, or of the wrong length.
    """
    if len(received) < HEADER.size:
        return None
    number, window, length = HEADER.unpack_from(received)
    if length > MAX_FROM_VIEWER:
        raise ProtocolError(f"body of {length} bytes, the limit is {MAX_FROM_VIEWER}")
    end = HEADER.size + length
    if len(received) < end:
        return None
    body = bytes(received[HEADER.size : end])
    del received[:end]
    message_type = _known(number)
    if message_type not in _FROM_VIEWER:
        return Skipped(window, number)
    if message_type in FIXED and length != FIXED[message_type][1].size:
        raise ProtocolError(f"{message_type.name} of {length} bytes")
    message: ViewerMessage = _decode(message_type, window, body)
    return message


def _known(number: int) -> MessageType | None:
    try:
        return MessageType(number)
    except ValueError:
        return None


def _body_length(message_type: MessageType, untrusted_length: int, minor: int) -> int:
    """The length of an agent's body: given by its type, or within the limits of its type."""
    if message_type is MessageType.WINDOW_DUMP:
        if not MIN_DUMP_BODY <= untrusted_length <= MAX_DUMP_BODY or untrusted_length % 4:
            raise ProtocolError(f"window dump of {untrusted_length} bytes")
        return untrusted_length
    if message_type is MessageType.CLIPBOARD_DATA:
        if untrusted_length > (MAX_CLIPBOARD if minor >= 8 else MAX_CLIPBOARD_OLD):
            raise ClipboardTooLongError(untrusted_length)
        return untrusted_length
    length = FIXED[message_type][1].size
    if minor >= 6 and untrusted_length != length:
        raise ProtocolError(f"{message_type.name} of {untrusted_length} bytes, not {length}")
    return length


def _decode(message_type: MessageType, window: int, body: bytes) -> Any:
    if message_type is MessageType.WINDOW_DUMP:
        return decode_dump(window, body)
    if message_type is MessageType.CLIPBOARD_DATA:
        return ClipboardData(window, body)
    return decode_fixed(message_type, window, body)
