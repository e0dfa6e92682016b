"""Which names and links of a copy a receiver accepts.

Source: filecopy.md sections 6 and 7.
"""

import errno
from bisect import bisect_right

MAX_NAME = 16_383  # bytes, with the NUL
# Code points that show as what they are: see section 6 for how they were chosen.
_ALLOWED = """
20-7E A1-A5 A7 AA-AC B1-B3 B5-B7 B9-2C1 2C6-2D1 2E0-2E4 2EC 2EE 370-374 376-377 37A-37F
386-38A 38C 38E-3A1 3A3-3E1 3F0-481 48A-52F 60C 964-965 E3F 10FB 1100-11FF 16EB-16ED
1735-1736 1802-1803 1805 1C80-1C88 1CD3 1CE9-1CEC 1CEE-1CF3 1CF5-1CF6 1CFA 1D00-1DBF
1E00-1F15 1F18-1F1D 1F20-1F45 1F48-1F4D 1F50-1F57 1F59 1F5B 1F5D 1F5F-1F7D 1F80-1FB4
1FB6-1FBC 1FBE 1FC2-1FC4 1FC6-1FCC 1FD0-1FD3 1FD6-1FDB 1FE0-1FEC 1FF2-1FF4 1FF6-1FFC
2010-2027 2030-205E 2070-2071 2074-208E 2090-209C 20A0-20C0 2102 2107 210A-2113 2115
2118-211D 2124 2126 2128 212A-212D 212F-2139 213C-2149 214B 214E 2150-2189 2190-2194
219A-219B 21A0 21A3 21A6 21AE 21CE-21CF 21D2 21D4 21F4-22FF 2308-230B 2320-2321 2329-232A
237C 239B-23B3 23DC-23E1 2460-249B 24EA-24FF 25B7 25C1 25F8-25FF 266F 2768-2793 27C0-27FF
2900-2AFF 2B30-2B44 2B47-2B4C 2C60-2C7F 2E00-2E4F 2E52-2E5D 3001-3003 3005-3011 3014-301F
3021-3029 3030-3035 3038-303D 3041-3096 309D-30FF 3105-312F 3131-318E 3192-3195 31A0-31BF
31F0-31FF 3220-3229 3248-324F 3251-325F 3280-3289 32B1-32BF 3400-4DBF 4E00-9FFF A640-A66E
A673 A67E-A69D A717-A71F A722-A788 A78B-A7CA A7D0-A7D1 A7D3 A7D5-A7D9 A7F2-A7FF A830-A835
A838 A92E A960-A97C A9CF AB30-AB5A AB5C-AB69 AC00-D7A3 D7B0-D7C6 D7CB-D7FB F900-FA6D
FA70-FAD9 FB00-FB06 FD3E-FD3F FE10-FE19 FE30-FE52 FE54-FE66 FE68-FE6B FF01-FF3D FF3F
FF41-FFBE FFC2-FFC7 FFCA-FFCF FFD2-FFD7 FFDA-FFDC FFE0-FFE2 FFE5-FFE6 FFE9-FFEC 10100-10102
10107-10133 10140-10178 1018A-1018B 102E1-102FB 10780-10785 10787-107B0 107B2-107BA
16FE2-16FE3 1AFF0-1AFF3 1AFF5-1AFFB 1AFFD-1AFFE 1B000-1B122 1B132 1B150-1B152 1B155
1B164-1B167 1D2C0-1D2D3 1D2E0-1D2F3 1D360-1D378 1D400-1D454 1D456-1D49C 1D49E-1D49F 1D4A2
1D4A5-1D4A6 1D4A9-1D4AC 1D4AE-1D4B9 1D4BB 1D4BD-1D4C3 1D4C5-1D505 1D507-1D50A 1D50D-1D514
1D516-1D51C 1D51E-1D539 1D53B-1D53E 1D540-1D544 1D546 1D54A-1D550 1D552-1D6A5 1D6A8-1D7CB
1D7CE-1D7FF 1DF00-1DF1E 1DF25-1DF2A 1E030-1E06D 1F100-1F10C 1FBF0-1FBF9 20000-2A6DF
2A700-2B739 2B740-2B81D 2B820-2CEA1 2CEB0-2EBE0 2F800-2FA1D 30000-3134A 31350-323AF
"""
_BOUNDS = [
    bound
    for first, _, last in (one.partition("-") for one in _ALLOWED.split())
    for bound in (int(first, 16), int(last or first, 16) + 1)
]
_PRINTABLE = bytes(range(0x20, 0x7F))


def is_shown_safely(text: bytes) -> bool:
    """Whether a text is well-formed UTF-8 of characters that anybody can tell apart."""
    if not text.translate(None, _PRINTABLE):
        return True
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return all(bisect_right(_BOUNDS, ord(one)) % 2 for one in set(decoded))


def check_name(name: bytes, *, any_characters: bool = False) -> int:
    """0, or the error number of a name that is not acceptable."""
    parts = name.split(b"/")
    if not name or any(part in (b"", b".", b"..") for part in parts):
        return errno.EILSEQ
    return 0 if any_characters or is_shown_safely(name) else errno.EILSEQ


def check_link(
    name: bytes, target: bytes, *, any_characters: bool = False, unsafe: bool = False
) -> int:
    """0, or the error number of a link, of an acceptable name, that is not acceptable."""
    depth = name.count(b"/") + 1
    if unsafe:
        return 0
    if depth < 2 or target.startswith(b"/"):
        return errno.ENOLINK
    if not any_characters and not is_shown_safely(target):
        return errno.EILSEQ
    upwards, ordinary = 0, False
    for part in target.split(b"/"):
        if part == b"..":
            upwards += 1
            if ordinary or upwards > depth - 2:
                return errno.ENOLINK
        elif part not in (b"", b"."):
            ordinary = True
    return 0
