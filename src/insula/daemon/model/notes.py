"""What a person wrote down of a qube (admin-api.md section 4.10)."""

import unicodedata

MAXIMUM = 256_000  # bytes
_KEPT = "\t\n"
# Unicode categories that move, hide or forge text: controls, formats, private use, unassigned,
# surrogates, line and paragraph separators.
_INVISIBLE = frozenset({"Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp"})


def displayable(text: str) -> str:
    """Text of which each character can be seen for what it is; others become "_"."""
    return "".join(
        one if one in _KEPT or unicodedata.category(one) not in _INVISIBLE else "_" for one in text
    )
