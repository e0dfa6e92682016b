"""Lines of an update: what a qube says is read strictly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.protocol.errors import ProtocolError
from insula.protocol.updating import Package, Progress, parse_line

WORDS = st.from_regex(r"\A[a-z0-9][A-Za-z0-9.+:~_^-]{0,20}\Z")


@given(
    line=st.one_of(
        st.builds(Progress, st.integers(0, 100)),
        st.builds(Package, WORDS, st.one_of(st.none(), WORDS), WORDS),
    )
)
def test_lines_survive(line: Progress | Package) -> None:
    assert parse_line(str(line).encode()) == line


@pytest.mark.parametrize(
    "untrusted",
    [
        b"",
        b"progress 101",
        b"progress -1",
        b"progress 5 ",
        b"progress \xd9\xa3",
        b"package a 1",
        b"package a 1 2 3",
        b"package \x1b[2J 1 2",
        b"package a 1 " + b"2" * 121,
        b"done",
    ],
)
def test_anything_else_is_refused(untrusted: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_line(untrusted)
