"""What qubes say of notices: text that can be shown, or a mistake."""

import unicodedata

from insula.protocol.errors import ProtocolError
from insula.protocol.notices import Show, take_of_dom0, take_of_qube


def fuzz(data: bytes) -> None:
    """One input: a stream, read as either side's."""
    received = bytearray(data)
    try:
        while (message := take_of_qube(received)) is not None:
            if isinstance(message, Show):
                for text in (message.summary, *message.body.split("\n"), *message.actions):
                    assert all(unicodedata.category(letter)[0] != "C" for letter in text)
            assert take_of_qube(bytearray(message.encode())) is not None
    except ProtocolError:
        pass
    received = bytearray(data)
    try:
        while (heard := take_of_dom0(received)) is not None:
            assert take_of_dom0(bytearray(heard.encode())) == heard
    except ProtocolError:
        pass
