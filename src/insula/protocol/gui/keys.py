"""Key sequences such as Ctrl-Shift-c, as the clipboard's keys are configured (gui.md 9.1)."""

from typing import NamedTuple

_SHIFT, _CONTROL, _MOD1, _MOD2, _MOD3, _MOD4 = 1, 4, 8, 16, 32, 64
LOOKED_AT = _SHIFT | _CONTROL | _MOD1 | _MOD3 | _MOD4  # modifiers of an event that count
_MODIFIERS = {
    "shift": _SHIFT, "ctrl": _CONTROL, "alt": _MOD1, "mod1": _MOD1, "mod2": _MOD2, "mod3": _MOD3,
    "mod4": _MOD4,
}  # fmt: skip
_OFF = ("none", "disable")
_PUNCTUATION = (
    "space exclam quotedbl numbersign dollar percent ampersand apostrophe parenleft parenright"
    " asterisk plus comma minus period slash"
)
_MORE_PUNCTUATION = {
    0x3A: "colon semicolon less equal greater question at",
    0x5B: "bracketleft backslash bracketright asciicircum underscore grave",
    0x7B: "braceleft bar braceright asciitilde",
}
_FUNCTIONS = {
    "BackSpace": 0xFF08, "Tab": 0xFF09, "Return": 0xFF0D, "Pause": 0xFF13, "Scroll_Lock": 0xFF14,
    "Escape": 0xFF1B, "Home": 0xFF50, "Left": 0xFF51, "Up": 0xFF52, "Right": 0xFF53,
    "Down": 0xFF54, "Page_Up": 0xFF55, "Prior": 0xFF55, "Page_Down": 0xFF56, "Next": 0xFF56,
    "End": 0xFF57, "Begin": 0xFF58, "Select": 0xFF60, "Print": 0xFF61, "Insert": 0xFF63,
    "Undo": 0xFF65, "Redo": 0xFF66, "Menu": 0xFF67, "Find": 0xFF68, "Break": 0xFF6B,
    "KP_Enter": 0xFF8D, "KP_Insert": 0xFF9E, "KP_Delete": 0xFF9F, "Delete": 0xFFFF,
    "XF86Copy": 0x1008FF57, "XF86Cut": 0x1008FF58, "XF86Paste": 0x1008FF6D,
}  # fmt: skip
_F1, _F_KEYS = 0xFFBE, 35


class Sequence(NamedTuple):
    """Modifiers, and the number of a keysym."""

    modifiers: int
    keysym: int


def parse(text: str) -> Sequence | None:
    """A sequence; None for one that is switched off.

    Raises:
        ValueError: it is none.
    """
    if text.lower() in _OFF:
        return None
    *modifiers, name = text.split("-")
    mask = 0
    for modifier in modifiers:
        if modifier.lower() not in _MODIFIERS:
            raise ValueError(f"{text!r} has no modifier {modifier!r}")
        mask |= _MODIFIERS[modifier.lower()]
    keysym = _keysyms().get(name)
    if keysym is None:
        raise ValueError(f"{text!r} names no key")
    return Sequence(mask, keysym)


def _keysyms() -> dict[str, int]:
    named = {chr(code): code for code in range(0x30, 0x7B) if chr(code).isalnum()}
    for first, names in {0x20: _PUNCTUATION, **_MORE_PUNCTUATION}.items():
        named.update({name: first + at for at, name in enumerate(names.split())})
    named.update({f"F{number}": _F1 + number - 1 for number in range(1, _F_KEYS + 1)})
    return named | _FUNCTIONS
