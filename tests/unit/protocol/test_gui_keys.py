"""Key sequences as they are configured."""

import pytest

from insula.protocol.gui.keys import LOOKED_AT, Sequence, parse


@pytest.mark.parametrize(
    ("text", "sequence"),
    [
        ("Ctrl-Shift-c", Sequence(5, ord("c"))),
        ("shift-CTRL-v", Sequence(5, ord("v"))),
        ("Mod4-c", Sequence(64, ord("c"))),
        ("Alt-Mod3-Mod1-Insert", Sequence(40, 0xFF63)),
        ("F12", Sequence(0, 0xFFC9)),
        ("Ctrl-A", Sequence(4, ord("A"))),
        ("Ctrl-minus", Sequence(4, ord("-"))),
        ("Ctrl-asciitilde", Sequence(4, ord("~"))),
        ("Ctrl-question", Sequence(4, ord("?"))),
        ("Ctrl-grave", Sequence(4, ord("`"))),
        ("none", None),
        ("Disable", None),
    ],
)
def test_a_sequence_is_read(text: str, sequence: Sequence | None) -> None:
    assert parse(text) == sequence


def test_a_sequence_with_num_lock_never_matches() -> None:
    sequence = parse("Mod2-c")
    assert sequence is not None
    assert all(state & LOOKED_AT != sequence.modifiers for state in range(256))


@pytest.mark.parametrize(
    "text", ["", "Ctrl-", "Ctrl-Ins", "Hyper-c", "c-Ctrl", "Ctrl-ä", "-", "-c"]
)
def test_what_is_no_sequence_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"modifier|key"):
        parse(text)
