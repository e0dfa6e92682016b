"""Blank qcow2 images made without QEMU, and a reader that trusts nothing (QEMU's qcow2.txt).

Layers name no other file: which lies over which is said when they are opened. Version 3, clusters
of 64 KiB, 16-bit reference counts, one cluster of L1 entries, which is enough for 4 TiB, so that
growing a layer means writing its size.
"""

import os
import struct
from dataclasses import dataclass

from insula.daemon.storage import luks
from insula.protocol.errors import ProtocolError

CLUSTER_BITS = 16
CLUSTER = 1 << CLUSTER_BITS
MAGIC = b"QFI\xfb"
SIZE_OFFSET = 24  # of the virtual size in the header
L1_ENTRIES = CLUSTER // 8
MAXIMUM_SIZE = L1_ENTRIES * (CLUSTER // 8) * CLUSTER
HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
HEADER_V2 = struct.Struct(">4sIQIIQIIQQIIQ")
_CORRUPT = 1 << 1  # incompatible feature: QEMU has seen damage; the image can still be read
_ENCRYPTION_HEADER = 0x0537BE77  # extension: where the LUKS header lies
_ENCRYPTION_LUKS = 2
_REFERENCES = CLUSTER // 2  # counts in a reference block
_REFERENCE_TABLE, _REFERENCE_BLOCK, _L1_TABLE, FIRST_FREE = range(1, 5)  # clusters
COPIED = 1 << 63  # flag of a table's entry: its cluster is used once


def write_blank(descriptor: int, size: int, passphrase: bytes | None = None) -> None:
    """Make an empty file a blank image of size bytes, encrypted if there is a passphrase.

    Raises:
        ValueError: size is over MAXIMUM_SIZE.
    """
    if not 0 < size <= MAXIMUM_SIZE:
        raise ValueError(f"an image cannot have {size} bytes")
    clusters = FIRST_FREE
    extensions = b""
    if passphrase is not None:
        at = FIRST_FREE * CLUSTER
        extensions = struct.pack(">IIQQ", _ENCRYPTION_HEADER, 16, at, luks.HEADER_SIZE)
        os.pwrite(descriptor, luks.header(passphrase), at)
        clusters += -(-luks.HEADER_SIZE // CLUSTER)
    encryption = 0 if passphrase is None else _ENCRYPTION_LUKS
    table, count = _REFERENCE_TABLE * CLUSTER, struct.pack(">H", 1)
    os.pwrite(descriptor, _header(size, encryption) + extensions + bytes(8), 0)
    os.pwrite(descriptor, struct.pack(">Q", _REFERENCE_BLOCK * CLUSTER), table)
    os.pwrite(descriptor, count * clusters, _REFERENCE_BLOCK * CLUSTER)
    os.ftruncate(descriptor, clusters * CLUSTER)


def write_tables(descriptor: int, size: int, clusters: int, l1_table: bytes) -> None:
    """Complete an image of which all clusters from FIRST_FREE to clusters are written and used."""
    extra = 0  # reference blocks beside the one that every image has
    while (clusters + extra) > (1 + extra) * _REFERENCES:
        extra += 1
    blocks = [_REFERENCE_BLOCK, *range(clusters, clusters + extra)]
    total = clusters + extra
    counts = (struct.pack(">H", 1) * total).ljust(len(blocks) * CLUSTER, b"\0")
    for number, block in enumerate(blocks):
        os.pwrite(descriptor, counts[number * CLUSTER : (number + 1) * CLUSTER], block * CLUSTER)
    addresses = struct.pack(f">{len(blocks)}Q", *(block * CLUSTER for block in blocks))
    os.pwrite(descriptor, addresses, _REFERENCE_TABLE * CLUSTER)
    os.pwrite(descriptor, l1_table, _L1_TABLE * CLUSTER)
    os.pwrite(descriptor, _header(size, 0) + bytes(8), 0)
    os.ftruncate(descriptor, total * CLUSTER)


def _header(size: int, encryption: int) -> bytes:
    return HEADER.pack(
        MAGIC,
        3,
        0,  # no backing file's name,
        0,  # nor its length
        CLUSTER_BITS,
        size,
        encryption,
        L1_ENTRIES,
        _L1_TABLE * CLUSTER,
        _REFERENCE_TABLE * CLUSTER,
        1,  # cluster of the reference table
        0,  # internal snapshots,
        0,  # and where they lie
        0,  # features: incompatible,
        0,  # compatible,
        0,  # autoclear
        4,  # reference counts have 1 << 4 bits
        HEADER.size,
    )


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What we need of an image's header; sizes and offsets in bytes, as the image claims them."""

    size: int
    cluster_bits: int
    l1_entries: int
    l1_offset: int

    @property
    def capacity(self) -> int:
        """The largest size that the L1 table has entries for."""
        return self.l1_entries << (2 * self.cluster_bits - 3)


def parse_header(untrusted: bytes) -> ImageHeader:
    """The header of an image that stands alone: no file but itself is needed to read it.

    Raises:
        ProtocolError: it is no qcow2 image, needs another file or a key, or has features that no
            image of ours has.
    """
    if len(untrusted) < HEADER_V2.size:
        raise ProtocolError("header ends early")
    (
        magic,
        version,
        backing_offset,
        _,
        cluster_bits,
        size,
        encryption,
        l1_entries,
        l1_offset,
        *_,
        snapshots,
        _,
    ) = HEADER_V2.unpack_from(untrusted)
    if magic != MAGIC or version not in (2, 3):
        raise ProtocolError("it is no qcow2 image of version 2 or 3")
    if backing_offset:
        raise ProtocolError("it names a backing file")
    if encryption:
        raise ProtocolError("it is encrypted")
    if snapshots:
        raise ProtocolError("it has internal snapshots")
    if version == 3:
        if len(untrusted) < HEADER.size:
            raise ProtocolError("header ends early")
        features = int.from_bytes(untrusted[72:80], "big")
        if features & ~_CORRUPT:
            raise ProtocolError(f"it has incompatible features {features:#x}")
    if not 9 <= cluster_bits <= 21:
        raise ProtocolError(f"clusters have {cluster_bits} bits")
    header = ImageHeader(size, cluster_bits, l1_entries, l1_offset)
    if not 0 < size <= min(header.capacity, MAXIMUM_SIZE):
        raise ProtocolError(f"it claims a size of {size} bytes")
    if l1_offset % (1 << cluster_bits):
        raise ProtocolError("the L1 table is not aligned")
    return header
