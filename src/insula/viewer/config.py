"""What a viewer is told of its qube, and the options of gui.md section 16 that it follows."""

import json
from typing import Any, NamedTuple

from insula.protocol.gui.keys import Sequence
from insula.protocol.gui.keys import parse as parse_keys
from insula.protocol.gui.limits import MAX_WINDOWS
from insula.protocol.gui.tray import Mode
from insula.protocol.gui.tray import parse as parse_tray_mode

_MAX_NAME = 31
_TRAY_MODE = "tint"
_COPY_KEY, _PASTE_KEY = "Ctrl-Shift-c", "Ctrl-Shift-v"
_CLIPBOARD_SIZE, _SMALLEST_CLIPBOARD, _LARGEST_CLIPBOARD = 64_000, 256, 256_000  # bytes
_MOST_LOCKERS = 10
_NAMED_COLOURS = {"white": 0xFFFFFF, "black": 0x000000}


class Config(NamedTuple):
    """Colours are 0xRRGGBB; label is the label's index, from 1."""

    name: str
    colour: int
    label: int
    allow_fullscreen: bool = False
    override_redirect_protection: bool = True
    override_redirect_allowed: bool = True
    allow_utf8_titles: bool = False
    windows_count_limit: int = MAX_WINDOWS
    window_background: int = 0xFFFFFF
    screensavers: tuple[str, ...] = ("xscreensaver",)
    events_max_delay: int = 0  # milliseconds
    copy_key: Sequence | None = parse_keys(_COPY_KEY)
    paste_key: Sequence | None = parse_keys(_PASTE_KEY)
    paste_key_text: str = _PASTE_KEY
    max_clipboard_size: int = _CLIPBOARD_SIZE  # bytes
    title_prefix: bool = True  # the qube's name before every title
    invisible: bool = False
    no_pixels: bool = False  # the qube's cannot be reached: windows stay empty
    properties: tuple[tuple[str, str, str], ...] = ()  # of windows: name, type, value
    rpc_clipboard: bool = False  # the clipboard goes by calls
    tray_mode: Mode = parse_tray_mode(_TRAY_MODE)


def parse(text: str) -> Config:
    """The configuration from its JSON: name, color, label, and options by their names.

    Raises:
        ValueError: a field is missing or not as expected.
    """
    loaded: Any = json.loads(text)
    try:
        options: dict[str, Any] = dict(loaded.get("options", {}))
        name = str(loaded["name"])
        if not name or len(name) > _MAX_NAME or not name.isascii() or not name.isprintable():
            raise ValueError(f"{name!r} is no name of a qube")
        return Config(
            name=name,
            colour=_colour(loaded["color"]),
            label=int(loaded["label"]),
            allow_fullscreen=bool(options.get("allow_fullscreen", False)),
            override_redirect_protection=bool(options.get("override_redirect_protection", True)),
            override_redirect_allowed=options.get("override_redirect", "allow") == "allow",
            allow_utf8_titles=bool(options.get("allow_utf8_titles", False)),
            windows_count_limit=int(options.get("windows_count_limit", MAX_WINDOWS)),
            screensavers=tuple(options.get("screensaver_names", ("xscreensaver",)))[:_MOST_LOCKERS],
            events_max_delay=int(options.get("events_max_delay", 0)),
            rpc_clipboard=bool(options.get("rpc_clipboard", False)),
            no_pixels=bool(options.get("no_pixels", False)),
            invisible=bool(options.get("invisible", False)),
            properties=tuple((str(a), str(b), str(c)) for a, b, c in options.get("properties", ())),
            title_prefix=bool(options.get("title_prefix", True)),
            tray_mode=parse_tray_mode(str(options.get("trayicon_mode", _TRAY_MODE))),
            copy_key=parse_keys(str(options.get("secure_copy_sequence", _COPY_KEY))),
            paste_key=parse_keys(str(options.get("secure_paste_sequence", _PASTE_KEY))),
            paste_key_text=str(options.get("secure_paste_sequence", _PASTE_KEY)),
            max_clipboard_size=_clipboard_size(options.get("max_clipboard_size")),
            window_background=_colour(options.get("window_background_color", "white")),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"configuration is not as expected: {error!r}") from None


def _clipboard_size(given: object) -> int:
    """What the protocol has room for; anything else is passed over."""
    if isinstance(given, int) and _SMALLEST_CLIPBOARD <= given <= _LARGEST_CLIPBOARD:
        return given
    return _CLIPBOARD_SIZE


def _colour(text: str) -> int:
    """A colour from white, black, RRGGBB, 0xRRGGBB or #RRGGBB."""
    if text in _NAMED_COLOURS:
        return _NAMED_COLOURS[text]
    digits = text.removeprefix("#").removeprefix("0x")
    if len(digits) != 6:
        raise ValueError(f"{text!r} is no colour")
    return int(digits, 16)
