"""A record that is nested beyond all measure is a mistake like any other."""

from collections.abc import Callable

import pytest

from insula.protocol import keeper, local, policy_agent
from insula.protocol.errors import ProtocolError


@pytest.mark.parametrize(
    ("parse", "head"),
    [
        (keeper.decode, b""),
        (local.decode, b""),
        (policy_agent.parse_request, b"policy.Ask dom0\0"),
    ],
)
def test_brackets_without_end_are_no_record(parse: Callable[[bytes], object], head: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse(head + b"[" * 60_000)
    with pytest.raises(ProtocolError):
        parse(head + b'{"a":' * 10_000 + b"1" + b"}" * 10_000)
