"""The keeper's requests, fed whatever a client may send: a request that comes back, or refused."""

import json
from contextlib import suppress

from insula.protocol import keeper
from insula.protocol.errors import ProtocolError
from insula.protocol.keeper import JailSpec, Request


def fuzz(data: bytes) -> None:
    """One input: a record."""
    with suppress(ProtocolError):
        request = Request.decode(data)
        assert request.number >= 0
        assert len(request.name) <= keeper.MAX_NAME
        if request.jail is not None:
            loaded = json.loads(json.dumps(request.jail.to_json()))
            assert JailSpec.from_json(loaded) == request.jail
            assert all("\0" not in word for word in request.jail.program)
