"""What PCI devices are called, by the host's own list of them (devices.md section 2)."""

import re
from functools import cache
from pathlib import Path

LISTS = (Path("/usr/share/misc/pci.ids"), Path("/usr/share/hwdata/pci.ids"))
_MAX_TEXT = 128  # characters
_NOT_IN_TEXT = re.compile(r"[^!-\[\]-~ ]|=", re.ASCII)


def names(vendor: str, product: str, lists: tuple[Path, ...] = LISTS) -> dict[str, str]:
    """Names of a device's vendor and product, those that are known; both given as 0x1234."""
    text = _list(lists)
    own = _section(text, f"\n{vendor.removeprefix('0x')}  ")
    found = {"vendor": own.partition("\n")[0]}
    devices = own.split(f"\n\t{product.removeprefix('0x')}  ", 1)
    found["product"] = devices[1].partition("\n")[0] if len(devices) == 2 else ""
    return {key: clean for key, name in found.items() if (clean := _clean(name))}


def _section(text: str, head: str) -> str:
    """What follows a head, up to the next line that begins at its left edge."""
    _, _, rest = text.partition(head)
    end = re.search(r"\n(?=[^\t#\n])", rest)
    return rest if end is None else rest[: end.start()]


def _clean(name: str) -> str:
    return _NOT_IN_TEXT.sub("_", name[:_MAX_TEXT]).strip()


@cache
def _list(lists: tuple[Path, ...]) -> str:
    for path in lists:
        try:
            return "\n" + path.read_text("utf-8", errors="replace")
        except OSError:
            continue
    return ""
