"""Titles and class names as a qube may have them shown (gui.md sections 6.3, 6.4, 8.4 and 9.5)."""

import re

from insula.protocol.gui.limits import CLASS_SIZE, TITLE_SIZE

_CLEAN = re.compile(rb"(?:[\t\n -~\x80-\xff]|\r\n)*")
_ELLIPSIS = "…".encode()
_TRUNCATED_AT = 124  # bytes, so that an ellipsis and the NUL still fit
# Unicode categories that move, hide or forge text: controls, formats, private use, unassigned,
# surrogates, line and paragraph separators.
_INVISIBLE = frozenset({"Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp"})


def shown_title(untrusted: bytes, *, utf8: bool) -> str:
    """A title that is safe to hand to the window manager: every doubtful byte becomes "_".

    Without utf8 only printable ASCII passes. With it valid sequences pass too, except those of
    characters that cannot be seen or that reorder others, and those that begin with F4.
    """
    text = untrusted[: TITLE_SIZE - 1].split(b"\0", 1)[0]
    if not utf8:
        if len(text) > len(_ELLIPSIS) and text.endswith(_ELLIPSIS):
            text = text[: -len(_ELLIPSIS)] + b"..."
        return _ascii(text)
    return visible(text)


def shown_class(untrusted: bytes, qube: str) -> str:
    """A class or instance name: ASCII, and beginning with the qube's name."""
    return f"{qube}:{_ascii(untrusted[: CLASS_SIZE - 1].split(bytes(1), 1)[0])}"


def fitting_title(title: bytes) -> bytes:
    """The agent's side: a UTF-8 title cut so that it fits into its buffer."""
    if len(title) < TITLE_SIZE - 1:
        return title
    cut = title[:_TRUNCATED_AT].decode("utf-8", "ignore").encode()
    return cut + _ELLIPSIS


def clean_text(text: bytes) -> bool:
    """Whether text of a clipboard may be handed out as UTF-8: nothing in it drives a terminal."""
    if _CLEAN.fullmatch(text) is None:
        return False
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def visible(untrusted: bytes) -> str:
    """Text in which "_" stands for what is not UTF-8, cannot be seen, or reorders other text."""
    return "".join(_shown_characters(untrusted))


def _ascii(text: bytes) -> str:
    return "".join(chr(byte) if 0x20 <= byte <= 0x7E else "_" for byte in text)


def _shown_characters(text: bytes) -> list[str]:
    import unicodedata  # noqa: PLC0415  (large, and only this mode needs it)

    out: list[str] = []
    at = 0
    while at < len(text):
        size = _sequence_length(text[at])
        sequence = text[at : at + size]
        try:
            character = sequence.decode("utf-8")
        except UnicodeDecodeError:
            character = ""
        if character and unicodedata.category(character) not in _INVISIBLE:
            out.append(character)
            at += size
        else:
            out.append("_")
            at += 1
    return out


def _sequence_length(first: int) -> int:
    """Bytes of a sequence by its first byte; F4 counts as invalid, as the original has it."""
    if 0xC2 <= first <= 0xDF:
        return 2
    if 0xE0 <= first <= 0xEF:
        return 3
    if 0xF0 <= first <= 0xF3:
        return 4
    return 1
