"""What qubes-guid is told: its command line, and the file of options (gui.md section 16)."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from insula.protocol.gui import keys, tray

_MOST_LOCKERS, _MOST_PROPERTIES = 10, 10
_MAX_DOMAIN = 0x7FEF
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,30}", re.ASCII)
_COLOUR = re.compile(r"(0x)?[0-9a-fA-F]{1,6}", re.ASCII)
_PROPERTY = re.compile(r"([A-Za-z0-9_]{1,128})=([sac]):(.{1,4096})", re.ASCII)
_NUMBERS = re.compile(r"[0-9]{1,9}(,[0-9]{1,9})*", re.ASCII)
_GLOBAL = re.compile(r"\s*global\s*[:=]\s*\{(.*)\}\s*;?\s*", re.DOTALL)
_SETTING = re.compile(r'\s*(\w+)\s*[:=]\s*(?:"([^"]*)"|(true|false)|(0x[0-9a-fA-F]+|-?\d+))\s*;?')
_SMALLEST_CLIPBOARD, _LARGEST_CLIPBOARD = 256, 256_000  # bytes
_MAX_DELAY = 5_000  # milliseconds

Options = dict[str, object]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="qubes-guid", description="Show the windows of a qube on this display.",
        allow_abbrev=False,
    )  # fmt: skip
    made.add_argument("-d", "--domid", metavar="DOMID", type=_domain, required=True)
    made.add_argument("-t", "--target-domid", metavar="DOMID", type=_domain, help="accepted")
    made.add_argument("-N", "--name", metavar="NAME", type=_name, required=True)
    made.add_argument("-c", "--color", metavar="COLOR", type=_colour, default="cc0000")
    made.add_argument("-l", "--label", metavar="INDEX", type=int, default=1)
    made.add_argument("-i", "--icon", metavar="ICON", help="accepted; the icon is the label's")
    made.add_argument("-C", "--config", metavar="FILE", type=Path)
    made.add_argument("-v", "--verbose", action="count", help="accepted")
    made.add_argument("-q", "--quiet", action="count", help="accepted")
    made.add_argument("-n", "--no-wait", action="store_true", help="do not wait for the agent")
    made.add_argument("-f", "--foreground", action="store_true")
    made.add_argument(
        "-K", "--kill", metavar="PID", type=int, help="a daemon that ends once we serve"
    )
    made.add_argument("-Q", "--qrexec-clipboard", action="store_true", help="copy by calls")
    made.add_argument("-I", "--invisible", action="store_true", help="show nothing")
    made.add_argument("-p", "--property", metavar="NAME=TYPE:VALUE", type=_property,
                      action="append", help="of windows; s text, a atom, c numbers")  # fmt: skip
    made.add_argument("-T", "--title-name", action="store_true", help="the name before each title")
    made.add_argument("--trayicon-mode", metavar="MODE", type=_tray_mode)
    made.add_argument("--screensaver-name", metavar="NAME", action="append")
    made.add_argument("--max-clipboard-size", metavar="BYTES", type=_clipboard_size)
    made.add_argument("--override-redirect", choices=("allow", "disabled", "disable"))
    made.add_argument("--version", action="version", version="qubes-guid (Insula)")
    return made


def parse(words: Sequence[str] | None) -> tuple[argparse.Namespace, Options]:
    """The command line, and the viewer's options by it and by the file that it names.

    Raises:
        OSError: the file cannot be read. ValueError: it has what no daemon starts with.
    """
    given = parser().parse_args(words)
    options = read(given.config.read_text("utf-8")) if given.config is not None else {}
    options["title_prefix"] = given.title_name
    options["rpc_clipboard"] = given.qrexec_clipboard
    options["invisible"] = given.invisible
    options["properties"] = (given.property or [])[:_MOST_PROPERTIES]
    for name in ("trayicon_mode", "max_clipboard_size", "override_redirect"):
        if (value := getattr(given, name)) is not None:
            options[name] = value
    if given.screensaver_name:
        options["screensaver_names"] = given.screensaver_name[:_MOST_LOCKERS]
    if "override_redirect" in options:
        found = options["override_redirect"]
        if found not in ("allow", "disabled", "disable"):
            raise ValueError(f"override_redirect is {found!r}")
        options["override_redirect"] = "allow" if found == "allow" else "disabled"
    return given, options


def read(text: str) -> Options:
    """The options of a file.

    Raises:
        ValueError: it is no such file, or an option is one with which no daemon starts.
    """
    whole = _GLOBAL.fullmatch(text)
    if whole is None:
        raise ValueError("no group global")
    found: Options = {}
    at, settings = 0, whole[1].rstrip()
    while at < len(settings):
        setting = _SETTING.match(settings, at)
        if setting is None:
            raise ValueError(f"not understood: {settings[at : at + 40]!r}")
        name, string, boolean, number = setting.groups()
        found[name] = string if string is not None else boolean == "true"
        if number is not None:
            found[name] = int(number, 0)
        at = setting.end()
    _check(found)
    return found


def _check(found: Options) -> None:
    for name in ("secure_copy_sequence", "secure_paste_sequence"):
        if name in found:
            keys.parse(str(found[name]))
    if "trayicon_mode" in found:
        tray.parse(str(found["trayicon_mode"]))
    delay = found.get("events_max_delay", 0)
    if not isinstance(delay, int) or not 0 <= delay <= _MAX_DELAY:
        raise ValueError(f"events_max_delay is {delay!r}")
    if isinstance(found.get("window_background_color"), int):
        found["window_background_color"] = f"{found['window_background_color']:06x}"


def _domain(text: str) -> int:
    if not 1 <= int(text) <= _MAX_DOMAIN:
        raise ValueError(text)
    return int(text)


def _name(text: str) -> str:
    if _NAME.fullmatch(text) is None:
        raise ValueError(text)
    return text


def _colour(text: str) -> str:
    if _COLOUR.fullmatch(text) is None:
        raise ValueError(text)
    return text.removeprefix("0x").rjust(6, "0")


def _property(text: str) -> tuple[str, str, str]:
    found = _PROPERTY.fullmatch(text)
    if found is None or (found[2] == "c" and not _NUMBERS.fullmatch(found[3])):
        raise ValueError(text)
    return found[1], found[2], found[3]


def _tray_mode(text: str) -> str:
    tray.parse(text)
    return text


def _clipboard_size(text: str) -> int:
    if not _SMALLEST_CLIPBOARD <= int(text) <= _LARGEST_CLIPBOARD:
        raise ValueError(text)
    return int(text)
