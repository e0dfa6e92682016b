"""The Admin API's requests, answers and events: parsed or refused, and what is written is read."""

from contextlib import suppress

from insula.protocol import admin
from insula.protocol.errors import ProtocolError


def fuzz(data: bytes) -> None:
    """One input: a request, an answer, a stream and lists, each of the same bytes."""
    with suppress(ProtocolError):
        request, payload = admin.split_request(data)
        assert " " not in request.method + request.source
        assert data.endswith(payload)
    with suppress(ProtocolError):
        admin.decode_answer(data)
    with suppress(ProtocolError):
        received = bytearray(data)
        while admin.take_event(received) is not None:
            pass
    text = data.decode("utf-8", "replace")
    for parse in (
        admin.parse_property_answer,
        admin.parse_default_answer,
        admin.parse_property_lines,
        admin.parse_listed_qubes,
        admin.parse_pairs,
    ):
        with suppress(ProtocolError):
            parse(text)
