"""Sizes as people write and read them (qvm-tools.md section 1.6)."""

_UNITS = {"k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1024, "mi": 1024**2, "gi": 1024**3}


def parse_size(text: str) -> int:
    """Bytes that a size stands for: digits, and K, M, G (1000) or Ki, Mi, Gi (1024), maybe with B.

    Raises:
        ValueError: it is no size.
    """
    digits = text.rstrip("kKmMgGiIbB")
    unit = text[len(digits) :].lower().removesuffix("b")
    if not digits.isascii() or not digits.isdigit() or (unit == "" and digits != text):
        raise ValueError(f"not a size: {text!r}")
    if unit and unit not in _UNITS:
        raise ValueError(f"not a size: {text!r}")
    return int(digits) * _UNITS.get(unit, 1)


def human_size(size: int) -> str:
    """A size for people: a plain number below 1024, else one decimal and a unit."""
    if size < 1024:
        return str(size)
    value, unit = size / 1024, "KiB"
    for larger in ("MiB", "GiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.1f} {unit}"
