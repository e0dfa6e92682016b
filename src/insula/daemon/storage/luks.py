"""LUKS1 headers for images whose key lives in memory alone (LUKS on-disk format 1.2.3).

A header is made for every start of a qube, so it must cost milliseconds. That is sound here: the
passphrase is 256 random bits, so that no number of key derivation rounds makes guessing it harder,
and it is never written, so that the anti-forensic splitter has nothing to guard; its stripes are
random, but drawn once a process.
"""

import functools
import hashlib
import os
import struct
import uuid

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

SECTOR = 512
HEADER_SIZE = 4040 * SECTOR  # with eight key slots, as QEMU lays them out
_MAGIC = b"LUKS\xba\xbe"
_MASTER_KEY_SIZE = 64  # bytes: two AES-256 keys of XTS
_DIGEST_SIZE = 20
_ITERATIONS = 1000  # the least that LUKS1 allows
_STRIPES = 4000
_SLOTS = 8
_SLOT_ENABLED = 0x00AC71F3
_SLOT_DISABLED = 0x0000DEAD
_FIRST_SLOT = 8  # sectors
_SLOT_STEP = 504  # sectors: 4000 stripes of 64 bytes, in whole pages
_PHDR = struct.Struct(">6sH32s32s32sII20s32sI40s")
_SLOT = struct.Struct(">II32sII")


def new_passphrase() -> bytes:
    """256 random bits as ASCII text, which QEMU's secrets must be."""
    return os.urandom(32).hex().encode()


def header(passphrase: bytes) -> bytes:
    """The start of a LUKS1 header over a fresh master key, aes-xts-plain64 with 512 bits.

    The bytes to HEADER_SIZE are zeros: slots never used.
    """
    master_key = os.urandom(_MASTER_KEY_SIZE)
    digest_salt, slot_salt = os.urandom(32), os.urandom(32)
    digest = hashlib.pbkdf2_hmac("sha256", master_key, digest_salt, _ITERATIONS, _DIGEST_SIZE)
    slot_key = hashlib.pbkdf2_hmac("sha256", passphrase, slot_salt, _ITERATIONS, _MASTER_KEY_SIZE)
    start = _PHDR.pack(
        _MAGIC,
        1,
        b"aes",
        b"xts-plain64",
        b"sha256",
        HEADER_SIZE // SECTOR,
        _MASTER_KEY_SIZE,
        digest,
        digest_salt,
        _ITERATIONS,
        str(uuid.uuid4()).encode(),
    )
    start += _SLOT.pack(_SLOT_ENABLED, _ITERATIONS, slot_salt, _FIRST_SLOT, _STRIPES)
    for slot in range(1, _SLOTS):
        start += _SLOT.pack(_SLOT_DISABLED, 0, b"", _FIRST_SLOT + slot * _SLOT_STEP, _STRIPES)
    stripes, diffused = _stripes()
    split = stripes + _xor(diffused, master_key)
    return start.ljust(_FIRST_SLOT * SECTOR, b"\0") + encrypt_sectors(slot_key, split)


def encrypt_sectors(key: bytes, plain: bytes) -> bytes:
    """aes-xts-plain64: each sector with its number, counted from 0, as the tweak."""
    cipher = algorithms.AES(key)
    encrypted = bytearray()
    for sector, start in enumerate(range(0, len(plain), SECTOR)):
        tweak = modes.XTS(sector.to_bytes(16, "little"))
        encrypted += Cipher(cipher, tweak).encryptor().update(plain[start : start + SECTOR])
    return bytes(encrypted)


@functools.cache
def _stripes() -> tuple[bytes, bytes]:
    """All stripes but the last, and what the last one's master key is hidden under."""
    stripes = os.urandom((_STRIPES - 1) * _MASTER_KEY_SIZE)
    diffused = bytes(_MASTER_KEY_SIZE)
    for start in range(0, len(stripes), _MASTER_KEY_SIZE):
        diffused = _diffuse(_xor(diffused, stripes[start : start + _MASTER_KEY_SIZE]))
    return stripes, diffused


def _diffuse(block: bytes) -> bytes:
    size = hashlib.sha256().digest_size
    return b"".join(
        hashlib.sha256(struct.pack(">I", number) + block[start : start + size]).digest()
        for number, start in enumerate(range(0, len(block), size))
    )


def _xor(left: bytes, right: bytes) -> bytes:
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(len(left), "big")
