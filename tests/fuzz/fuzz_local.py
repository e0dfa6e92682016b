"""Requests of local programs, and the command strings they become: parsed or refused."""

from contextlib import suppress

from insula.protocol import local
from insula.protocol.command import decode_vmexec, encode_vmexec, parse_command
from insula.protocol.errors import ProtocolError


def fuzz(data: bytes) -> None:
    """One input: a record, a command string, an encoded command line."""
    with suppress(ProtocolError):
        request = local.CallRequest.from_json(local.decode(data))
        parse_command(request.text())
    text = data.decode("utf-8", "surrogateescape")
    with suppress(ProtocolError):
        parse_command(text)
    with suppress(ProtocolError):
        words = decode_vmexec(text)
        assert decode_vmexec(encode_vmexec(words)) == words
