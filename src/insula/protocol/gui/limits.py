"""Constants of the GUI protocol (gui.md section 2.4). Sizes are pixels or bytes, as named."""

MAX_WIDTH = 16_384  # pixels
MAX_HEIGHT = 6_144  # pixels
BYTES_PER_PIXEL = 4
PAGE_SIZE = 4_096  # bytes; what one grant reference names
MAX_REFERENCES = MAX_WIDTH * MAX_HEIGHT * BYTES_PER_PIXEL // PAGE_SIZE
MAX_CLIPBOARD_OLD = 65_000  # bytes, before version 1.8
MAX_CLIPBOARD = 256_001  # bytes, since 1.8; the last one says "too large"
TITLE_SIZE = 128  # bytes of a title with its NUL
CLASS_SIZE = 64  # bytes of a class or instance name with its NUL
CURSOR_GLYPH = 0x100  # this bit says that the rest is a glyph of the X cursor font
CURSOR_END = 0x19A
MAX_WINDOWS = 500  # of one qube (section 16, windows_count_limit)
