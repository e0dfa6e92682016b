"""What programs of a qube say to its QubesDB: whole messages however they are cut, or a mistake."""

from insula.protocol.errors import ProtocolError
from insula.protocol.qubesdb import (
    MAX_DATA,
    Message,
    is_key,
    is_prefix,
    is_value,
    take_message,
)


def fuzz(data: bytes) -> None:
    """One input: where it is cut, then a stream."""
    cut, stream = data[0] if data else 0, data[1:]
    whole = _messages([stream])
    assert _messages([stream[:cut], stream[cut:]]) == whole
    for message in whole:
        assert len(message.data) <= MAX_DATA
        assert _messages([message.encode()]) == [message]
        if is_key(message.path):
            assert is_prefix(message.path)
            assert b"\0" not in message.path
        assert not is_value(message.data) or b"\0" not in message.data


def _messages(pieces: list[bytes]) -> list[Message]:
    """The messages before the first mistake."""
    received, found = bytearray(), list[Message]()
    for piece in pieces:
        received += piece
        try:
            while (message := take_message(received)) is not None:
                found.append(message)
        except ProtocolError:
            break
    return found
