"""Bodies of the GUI protocol's messages (gui.md section 3.2).

Named tuples and not dataclasses: a viewer runs per qube, and importing dataclasses alone costs each
of them more than a megabyte. Fields are as received; integers are in the range of their format and
nothing more is known of them, except in WindowDump, which is checked whole.
"""

import enum
import struct
from typing import Any, NamedTuple

from insula.protocol.errors import ProtocolError
from insula.protocol.gui.limits import (
    CLASS_SIZE,
    MAX_HEIGHT,
    MAX_REFERENCES,
    MAX_WIDTH,
    TITLE_SIZE,
)
from insula.protocol.gui.pages import pages_needed


class MessageType(enum.IntEnum):
    """First header field. A number never gets a second meaning."""

    KEYPRESS = 124
    BUTTON = 125
    MOTION = 126
    CROSSING = 127
    FOCUS = 128
    RESIZE = 129  # obsolete
    CREATE = 130
    DESTROY = 131
    MAP = 132
    UNMAP = 133
    CONFIGURE = 134
    MFNDUMP = 135  # deprecated, always refused here
    SHMIMAGE = 136
    CLOSE = 137
    EXECUTE = 138  # obsolete
    CLIPBOARD_REQ = 139
    CLIPBOARD_DATA = 140
    WMNAME = 141
    KEYMAP_NOTIFY = 142
    DOCK = 143
    WINDOW_HINTS = 144
    WINDOW_FLAGS = 145
    WMCLASS = 146
    WINDOW_DUMP = 147
    CURSOR = 148
    WINDOW_DUMP_ACK = 149


class Flag(enum.IntFlag):
    """Bits of WINDOW_FLAGS."""

    FULLSCREEN = 1
    DEMANDS_ATTENTION = 2
    MINIMIZE = 4


class Hint(enum.IntFlag):
    """Bits of WINDOW_HINTS, ICCCM's own; others are ignored."""

    US_POSITION = 0x1
    P_POSITION = 0x4
    P_MIN_SIZE = 0x10
    P_MAX_SIZE = 0x20
    P_RESIZE_INC = 0x40
    P_BASE_SIZE = 0x100


class KeyPress(NamedTuple):
    """A key: type 2 press, 3 release; x and y relative to the window; an X keycode."""

    window: int
    type: int
    x: int
    y: int
    state: int
    keycode: int


class Button(NamedTuple):
    """A pointer button: type 4 press, 5 release."""

    window: int
    type: int
    x: int
    y: int
    state: int
    button: int


class Motion(NamedTuple):
    """The pointer moved; x and y relative to the window."""

    window: int
    x: int
    y: int
    state: int
    is_hint: int


class Crossing(NamedTuple):
    """The pointer entered (type 7) or left (8) the window."""

    window: int
    type: int
    x: int
    y: int
    state: int
    mode: int
    detail: int
    focus: int


class Focus(NamedTuple):
    """The window got (type 9) or lost (10) the keyboard focus."""

    window: int
    type: int
    mode: int
    detail: int


class Create(NamedTuple):
    """A new window, at absolute coordinates of the qube's root."""

    window: int
    x: int
    y: int
    width: int
    height: int
    parent: int
    override_redirect: int


class Destroy(NamedTuple):
    """The window is gone; echoed by the viewer since 1.5."""

    window: int


class Map(NamedTuple):
    """The window became visible."""

    window: int
    transient_for: int
    override_redirect: int


class Unmap(NamedTuple):
    """The window is hidden."""

    window: int


class Configure(NamedTuple):
    """The window's geometry, or the wish for one (section 5)."""

    window: int
    x: int
    y: int
    width: int
    height: int
    override_redirect: int


class ShmImage(NamedTuple):
    """A rectangle of the window's buffer changed."""

    window: int
    x: int
    y: int
    width: int
    height: int


class Close(NamedTuple):
    """The person asks the window to close."""

    window: int


class ClipboardRequest(NamedTuple):
    """The person asks for the qube's clipboard."""

    window: int


class ClipboardData(NamedTuple):
    """The content of a clipboard."""

    window: int
    data: bytes


class WindowName(NamedTuple):
    """A title: NUL-terminated bytes in a buffer of TITLE_SIZE, see `text.shown_title`."""

    window: int
    title: bytes


class KeymapNotify(NamedTuple):
    """The keys that are down: bit k is byte k / 8, mask 1 << (k % 8)."""

    window: int
    keys: bytes


class Dock(NamedTuple):
    """The window asks for a place in the tray."""

    window: int


class WindowHints(NamedTuple):
    """ICCCM size hints; flags says which fields count, see Hint."""

    window: int
    flags: int
    min_width: int
    min_height: int
    max_width: int
    max_height: int
    width_inc: int
    height_inc: int
    base_width: int
    base_height: int


class WindowFlags(NamedTuple):
    """Bits to set and bits to clear, see Flag."""

    window: int
    flags_set: int
    flags_unset: int


class WindowClass(NamedTuple):
    """Class and instance name, each NUL-terminated in a buffer of CLASS_SIZE bytes."""

    window: int
    res_class: bytes
    res_name: bytes


class WindowDump(NamedTuple):
    """A new buffer of width * height pixels in the pages named by references."""

    window: int
    width: int
    height: int
    bpp: int
    references: tuple[int, ...]


class Cursor(NamedTuple):
    """0, or CURSOR_GLYPH + a glyph of the X cursor font."""

    window: int
    cursor: int


class WindowDumpAck(NamedTuple):
    """The oldest WindowDump not acknowledged yet was taken."""

    window: int


class Skipped(NamedTuple):
    """A message of the viewer that the agent does not know; its body was skipped."""

    window: int
    type: int


AgentMessage = (
    Create
    | Destroy
    | Map
    | Unmap
    | Configure
    | ShmImage
    | ClipboardData
    | WindowName
    | Dock
    | WindowHints
    | WindowFlags
    | WindowClass
    | WindowDump
    | Cursor
)
ViewerMessage = (
    KeyPress
    | Button
    | Motion
    | Crossing
    | Focus
    | Destroy
    | Map
    | Configure
    | Close
    | ClipboardRequest
    | ClipboardData
    | KeymapNotify
    | WindowFlags
    | WindowDumpAck
    | Skipped
)
Message = AgentMessage | ViewerMessage

HEADER = struct.Struct("<III")  # type, window, body length
_DUMP = struct.Struct("<IIII")
_NOTHING = struct.Struct("<")

# Messages whose body has one layout and one length.
FIXED: dict[MessageType, tuple[Any, struct.Struct]] = {
    MessageType.KEYPRESS: (KeyPress, struct.Struct("<IiiII")),
    MessageType.BUTTON: (Button, struct.Struct("<IiiII")),
    MessageType.MOTION: (Motion, struct.Struct("<iiII")),
    MessageType.CROSSING: (Crossing, struct.Struct("<IiiIIII")),
    MessageType.FOCUS: (Focus, struct.Struct("<III")),
    MessageType.CREATE: (Create, struct.Struct("<iiIIII")),
    MessageType.DESTROY: (Destroy, _NOTHING),
    MessageType.MAP: (Map, struct.Struct("<II")),
    MessageType.UNMAP: (Unmap, _NOTHING),
    MessageType.CONFIGURE: (Configure, struct.Struct("<iiIII")),
    MessageType.SHMIMAGE: (ShmImage, struct.Struct("<iiII")),
    MessageType.CLOSE: (Close, _NOTHING),
    MessageType.CLIPBOARD_REQ: (ClipboardRequest, _NOTHING),
    MessageType.WMNAME: (WindowName, struct.Struct(f"<{TITLE_SIZE}s")),
    MessageType.KEYMAP_NOTIFY: (KeymapNotify, struct.Struct("<32s")),
    MessageType.DOCK: (Dock, _NOTHING),
    MessageType.WINDOW_HINTS: (WindowHints, struct.Struct("<9I")),
    MessageType.WINDOW_FLAGS: (WindowFlags, struct.Struct("<II")),
    MessageType.WMCLASS: (WindowClass, struct.Struct(f"<{CLASS_SIZE}s{CLASS_SIZE}s")),
    MessageType.CURSOR: (Cursor, struct.Struct("<I")),
    MessageType.WINDOW_DUMP_ACK: (WindowDumpAck, _NOTHING),
}
_TYPES: dict[type, MessageType] = {kind: number for number, (kind, _) in FIXED.items()}

MIN_DUMP_BODY = _DUMP.size
MAX_DUMP_BODY = _DUMP.size + 4 * MAX_REFERENCES


def encode(message: Message) -> bytes:
    """A message with its header.

    Raises:
        ValueError: a Skipped, which has no bytes.
        struct.error: a field is out of the range of its format.
    """
    match message:
        case ClipboardData(window, data):
            return HEADER.pack(MessageType.CLIPBOARD_DATA, window, len(data)) + data
        case WindowDump(window, width, height, bpp, references):
            body = _DUMP.pack(0, width, height, bpp)
            body += struct.pack(f"<{len(references)}I", *references)
            return HEADER.pack(MessageType.WINDOW_DUMP, window, len(body)) + body
        case Skipped():
            raise ValueError("a skipped message has no bytes")
        case _:
            number = _TYPES[type(message)]
            layout = FIXED[number][1]
            return HEADER.pack(number, message.window, layout.size) + layout.pack(*message[1:])


def decode_fixed(message_type: MessageType, window: int, body: bytes) -> Any:
    """A message of FIXED from a body of exactly its layout's size."""
    kind, layout = FIXED[message_type]
    return kind(window, *layout.unpack(body))


def decode_dump(window: int, untrusted: bytes) -> WindowDump:
    """A WindowDump whose pages cover its pixels; which pages exist is the receiver's to check.

    Raises:
        ProtocolError: as section 6.2 prescribes for WINDOW_DUMP.
    """
    if not MIN_DUMP_BODY <= len(untrusted) <= MAX_DUMP_BODY or len(untrusted) % 4:
        raise ProtocolError(f"window dump of {len(untrusted)} bytes")
    kind, width, height, bpp = _DUMP.unpack_from(untrusted)
    count = (len(untrusted) - _DUMP.size) // 4
    if kind != 0:
        raise ProtocolError(f"window dump of unknown type {kind}")
    if width > MAX_WIDTH or height > MAX_HEIGHT:
        raise ProtocolError(f"window dump of {width} x {height} pixels")
    if count < pages_needed(width, height):
        raise ProtocolError(f"window dump of {width} x {height} pixels in {count} pages")
    return WindowDump(window, width, height, bpp, struct.unpack_from(f"<{count}I", untrusted, 16))
