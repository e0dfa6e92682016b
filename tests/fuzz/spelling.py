"""Inputs made of words: formats read by patterns show a fuzzer nothing of how near it came."""

from collections.abc import Sequence


def spelled(data: bytes, words: Sequence[bytes]) -> bytes:
    """The input with its lowest bytes as words; each other byte stands for itself."""
    return b"".join(words[byte] if byte < len(words) else bytes((byte,)) for byte in data)
