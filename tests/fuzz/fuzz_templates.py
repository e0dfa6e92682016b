"""What update qubes and devices' backends tell of themselves, as commands read it."""

from contextlib import suppress

from insula.protocol.devices import category, interfaces_of, parse_serialised, serialise
from insula.protocol.errors import ProtocolError
from insula.tools.templates.records import parse_answer
from insula.tools.templates.versions import compare


def fuzz(data: bytes) -> None:
    """One input: a list of templates, the description of a device, two versions."""
    with suppress(ProtocolError):
        for package in parse_answer(data):
            assert "/" not in package.file_name
            assert package.file_name.isprintable()
            assert package.summary.isprintable()
    text = data.decode("latin-1")
    with suppress(ProtocolError):
        items = parse_serialised(text)
        assert parse_serialised(serialise(items.items())) == items
        for code in interfaces_of(items.get("interfaces", "")):
            category(code)
    one, _, other = text[:200].partition("\n")
    assert (compare(one, other) > 0) == (compare(other, one) < 0)
