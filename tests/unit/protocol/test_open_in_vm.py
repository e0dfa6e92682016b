"""The name before a file: it comes back, or as much of it as is safe."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.protocol.errors import ProtocolError
from insula.protocol.open_in_vm import NAME_SIZE, OpenRequest, decode_name, encode_name

NAMES = st.from_regex(r"[0-9A-Za-z_+@][0-9A-Za-z._+@-]{0,200}", fullmatch=True).filter(
    lambda name: not name.startswith("view-only-")
)


@given(NAMES, st.booleans())
def test_a_plain_name_comes_back(name: str, view_only: bool) -> None:
    encoded = encode_name(name.encode(), view_only=view_only)
    assert len(encoded) == NAME_SIZE
    assert decode_name(encoded) == OpenRequest(name, view_only)


def test_a_long_name_loses_its_beginning() -> None:
    encoded = encode_name(b"x" * 300 + b".pdf", view_only=True)
    assert encoded == b"view-only-" + b"x" * 241 + b".pdf\0"


def test_what_a_name_should_not_have_becomes_underscores() -> None:
    assert decode_name(encode_name("Bör se$; .pdf".encode())).name == "B__r_se___.pdf"


@pytest.mark.parametrize(
    "name", [b"", b".", b"..", b"a/b", b"../x", b"view-only-", b"view-only-.."]
)
def test_a_name_that_leads_elsewhere_is_refused(name: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_name(name.ljust(NAME_SIZE, b"\0"))


@given(st.binary(max_size=300) | st.binary(min_size=NAME_SIZE, max_size=NAME_SIZE))
def test_any_bytes_are_a_safe_name_or_refused(untrusted: bytes) -> None:
    with suppress(ProtocolError):
        name = decode_name(untrusted).name
        assert name not in ("", ".", "..")
        assert not set(name) & set("/\0\n ")
