"""Messages of a bus: whole ones however they are cut, or a mistake."""

from insula.protocol.dbus import Message, take_message
from insula.protocol.errors import ProtocolError


def fuzz(data: bytes) -> None:
    """One input: where it is cut, then a stream."""
    cut, stream = data[0] if data else 0, data[1:]
    assert _messages([stream[:cut], stream[cut:]]) == _messages([stream])


def _messages(pieces: list[bytes]) -> list[str]:
    """The messages before the first mistake; as text, for what is no number is not even itself."""
    received, found = bytearray(), list[Message]()
    for piece in pieces:
        received += piece
        try:
            while (message := take_message(received)) is not None:
                found.append(message)
        except ProtocolError:
            break
    return [*map(repr, found)]
