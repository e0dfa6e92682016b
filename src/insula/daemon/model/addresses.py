"""Addresses that follow from a qube's number (admin-api.md section 6.6)."""

NETMASK = "255.255.255.255"
DNS = ("10.139.1.1", "10.139.1.2")
_QUBES, _DISPOSABLES = "10.137", "10.138"
_IN_LAST_BYTE = 254


def ip(number: int, *, disposable: bool) -> str:
    """The IPv4 address of a qid, or of a disposable's dispid."""
    prefix = _DISPOSABLES if disposable else _QUBES
    if number <= _IN_LAST_BYTE:
        return f"{prefix}.0.{number}"
    high, low = divmod(number - 1, _IN_LAST_BYTE)
    return f"{prefix}.{high}.{low + 1}"


def ip6(number: int, *, disposable: bool) -> str:
    """The IPv6 address of a qid, or of a disposable's dispid."""
    return f"fd09:24ef:4179::{'a8a' if disposable else 'a89'}:{number:x}"
