"""A viewer's options from features: gui-OPTION of the qube, else gui-default-OPTION of dom0's."""

import logging
import re
from collections.abc import Callable, Mapping

from insula.protocol.gui import keys, tray

MAX_WINDOWS = 100_000
_SMALLEST_CLIPBOARD, _LARGEST_CLIPBOARD = 256, 256_000  # bytes
_MAX_DELAY = 5_000  # milliseconds
_COLOUR = re.compile(r"white|black|(0x|#)?[0-9a-fA-F]{6}", re.ASCII)
_NUMBER = re.compile(r"0|[1-9][0-9]{0,5}", re.ASCII)

log = logging.getLogger(__name__)


def viewer_options(own: Mapping[str, str], system: Mapping[str, str]) -> dict[str, object]:
    """What a viewer is told, by the names of gui.md section 16; a bad value is passed over."""
    found: dict[str, object] = {"rpc_clipboard": True} if own.get("rpc-clipboard") else {}
    for option, read in _OPTIONS.items():
        name = option.replace("_", "-")
        for features, feature in ((own, f"gui-{name}"), (system, f"gui-default-{name}")):
            if feature not in features:
                continue
            try:
                found[option] = read(features[feature])
            except ValueError as error:
                log.warning("feature not used", extra={"feature": feature, "why": str(error)})
            break
    return found


def _override_redirect(text: str) -> str:
    """Both spellings of "disabled" are in use."""
    meanings = {"allow": "allow", "disabled": "disabled", "disable": "disabled"}
    if text not in meanings:
        raise ValueError(f"{text!r} is neither allow nor disabled")
    return meanings[text]


def _colour(text: str) -> str:
    if _COLOUR.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no colour")
    return text


def _between(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if _NUMBER.fullmatch(text) is None or not least <= int(text) <= most:
            raise ValueError(f"{text!r} is no number from {least} to {most}")
        return int(text)

    return read


def _tray_mode(text: str) -> str:
    tray.parse(text)
    return text


def _keys(text: str) -> str:
    keys.parse(text)
    return text


_OPTIONS: dict[str, Callable[[str], object]] = {
    "allow_fullscreen": bool,
    "override_redirect_protection": bool,
    "override_redirect": _override_redirect,
    "allow_utf8_titles": bool,
    "windows_count_limit": _between(1, MAX_WINDOWS),
    "trayicon_mode": _tray_mode,
    "secure_copy_sequence": _keys,
    "secure_paste_sequence": _keys,
    "max_clipboard_size": _between(_SMALLEST_CLIPBOARD, _LARGEST_CLIPBOARD),
    "events_max_delay": _between(0, _MAX_DELAY),
    "window_background_color": _colour,
}
