"""Input from the viewer: keys with their modifiers, buttons and the pointer, by XTEST."""

import subprocess
from pathlib import Path

from insula.guest.gui.display import Display

_KEY_PRESS, _KEY_RELEASE, _MOTION = 2, 3, 6
_MODIFIERS = 8
_CAPS_LOCK, _SHIFT_LOCK, _NUM_LOCK, _SCROLL_LOCK = 0xFFE5, 0xFFE6, 0xFF7F, 0xFF14
_LOCKING = frozenset({_CAPS_LOCK, _SHIFT_LOCK, _NUM_LOCK, _SCROLL_LOCK})
_SETXKBMAP_TIMEOUT = 20.0  # seconds
_ALONE = ("us", "si")  # layouts that need no second one for shortcuts


class Input:
    """Injects into the qube's X server what the person did in the viewer."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._modifiers: list[list[int]] | None = None
        self._locking: list[bool] = []

    def keyboard_changed(self) -> None:
        """The keyboard mapping changed: what is known of modifiers is void."""
        self._modifiers = None

    def key(self, kind: int, keycode: int, state: int) -> None:
        """Press (2) or release (3) a key, with the modifiers of state in force before it."""
        self._match_modifiers(state)
        self._fake(kind, keycode)

    def button(self, kind: int, button: int) -> None:
        """Press (4) or release (5) a pointer button."""
        self._fake(kind, button)

    def motion(self, x: int, y: int) -> None:
        """Move the pointer to a position of the root."""
        self._fake(_MOTION, 0, x, y)

    def release_all_but(self, keys: bytes) -> None:
        """Release every key that is down here and not in the vector of keys."""
        down = self._keys_down()
        for keycode in range(8, 256):
            bit = 1 << keycode % 8
            if down[keycode // 8] & bit and not keys[keycode // 8] & bit:
                self._fake(_KEY_RELEASE, keycode)

    def _match_modifiers(self, state: int) -> None:
        pointer = self._display.core.QueryPointer(self._display.root).reply()
        different = (pointer.mask ^ state) & (1 << _MODIFIERS) - 1
        if not different:
            return
        modifiers = self._read_modifiers()
        for index in range(_MODIFIERS):
            if not different >> index & 1 or not modifiers[index]:
                continue
            if self._locking[index]:
                self._fake(_KEY_PRESS, modifiers[index][0])
                self._fake(_KEY_RELEASE, modifiers[index][0])
            elif state >> index & 1:
                self._fake(_KEY_PRESS, modifiers[index][0])
            else:
                down = self._keys_down()
                for keycode in modifiers[index]:
                    if down[keycode // 8] >> keycode % 8 & 1:
                        self._fake(_KEY_RELEASE, keycode)

    def _read_modifiers(self) -> list[list[int]]:
        """Keycodes bound to each modifier, read again when the mapping changed."""
        if self._modifiers is None:
            core = self._display.core
            reply = core.GetModifierMapping().reply()
            per = reply.keycodes_per_modifier
            codes = [code if isinstance(code, int) else code[0] for code in reply.keycodes]
            self._modifiers = [
                [code for code in codes[index * per : (index + 1) * per] if code]
                for index in range(_MODIFIERS)
            ]
            self._locking = [bool(keys) and self._locks(keys[0]) for keys in self._modifiers]
        return self._modifiers

    def _locks(self, keycode: int) -> bool:
        """Whether a modifier's key toggles it."""
        reply = self._display.core.GetKeyboardMapping(keycode, 1).reply()
        return not _LOCKING.isdisjoint(reply.keysyms)

    def _keys_down(self) -> bytes:
        return bytes(self._display.core.QueryKeymap().reply().keys)

    def _fake(self, kind: int, detail: int, x: int = 0, y: int = 0) -> None:
        root = self._display.root if kind == _MOTION else 0
        self._display.xtest.FakeInput(kind, detail & 0xFF, 0, root, _i16(x), _i16(y), 0)


def set_layout(path: Path, current: str) -> str:
    """Apply the keyboard layout that a file names as layout+variant+options, if it is news.

    Returns the layout in force afterwards; without the file, or with one that setxkbmap refuses,
    that is the current one.
    """
    try:
        wanted = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return current
    layout, _, rest = wanted.partition("+")
    variant, _, options = rest.partition("+")
    if wanted == current or not layout:
        return current
    if layout not in _ALONE:
        layout, variant = f"{layout},us", f"{variant},"
    command = ["setxkbmap", "-layout", layout, "-variant", variant, "-option", ""]
    if options:
        command += ["-option", options]
    try:
        subprocess.run(command, check=True, timeout=_SETXKBMAP_TIMEOUT, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"keyboard layout {wanted!r} not set: {error}", flush=True)
        return current
    return wanted


def _i16(value: int) -> int:
    return max(-0x8000, min(0x7FFF, value))
