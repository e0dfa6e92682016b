"""Where a layer's data lies, read from tables that a hostile machine may have written.

Only what our own layers can have is read; all else is a ProtocolError. No address is followed
before it was checked against the file, and memory is bounded by one table at a time.
"""

import enum
import os
import struct
from typing import Protocol

from insula.daemon.storage import qcow2
from insula.protocol.errors import ProtocolError

CLUSTER = qcow2.CLUSTER
L2_ENTRIES = CLUSTER // 8
_ADDRESS = 0x00FF_FFFF_FFFF_FE00
_COMPRESSED = 1 << 62
_ZERO = 1
_TABLE = struct.Struct(f">{L2_ENTRIES}Q")


class Mark(enum.Enum):
    """What a layer says of a cluster that it holds no data for."""

    ABSENT = "what lies below shows"
    ZERO = "zeros, whatever lies below"


class Reader(Protocol):
    """Clusters of one layer by their place in the disk."""

    def cluster(self, index: int) -> Mark | bytes: ...


class Qcow2Reader:
    """A qcow2 layer with clusters of 64 KiB.

    Raises:
        ProtocolError: from here and from cluster, when it is no such layer.
    """

    def __init__(self, descriptor: int) -> None:
        header = qcow2.parse_header(os.pread(descriptor, CLUSTER, 0))
        if header.cluster_bits != qcow2.CLUSTER_BITS:
            raise ProtocolError(f"clusters have {header.cluster_bits} bits")
        self._descriptor = descriptor
        self._file_size = os.fstat(descriptor).st_size
        self._clusters = -(-header.size // CLUSTER)
        entries = -(-self._clusters // L2_ENTRIES)
        if header.l1_offset + entries * 8 > self._file_size:
            raise ProtocolError("the L1 table ends early")
        untrusted = os.pread(descriptor, entries * 8, header.l1_offset)
        self._l1 = struct.unpack(f">{entries}Q", untrusted)
        self._loaded = -1
        self._l2: tuple[int, ...] = ()

    def cluster(self, index: int) -> Mark | bytes:
        """Data of a cluster, CLUSTER bytes, or what it is instead."""
        if index >= self._clusters:
            return Mark.ABSENT
        table, place = divmod(index, L2_ENTRIES)
        if table != self._loaded:
            self._l2 = self._load(table)
            self._loaded = table
        if not self._l2:
            return Mark.ABSENT
        untrusted = self._l2[place]
        if untrusted & _COMPRESSED:
            raise ProtocolError("it has compressed clusters")
        if untrusted & _ZERO:
            return Mark.ZERO
        address = self._address(untrusted)
        if not address:
            return Mark.ABSENT
        return os.pread(self._descriptor, CLUSTER, address).ljust(CLUSTER, b"\0")

    def _load(self, table: int) -> tuple[int, ...]:
        address = self._address(self._l1[table])
        if not address:
            return ()
        untrusted = os.pread(self._descriptor, CLUSTER, address)
        if len(untrusted) != CLUSTER:
            raise ProtocolError("an L2 table ends early")
        return _TABLE.unpack(untrusted)

    def _address(self, untrusted: int) -> int:
        address = untrusted & _ADDRESS
        if address % CLUSTER or address >= self._file_size:
            raise ProtocolError(f"an entry points to {address:#x}")
        return address


class RawReader:
    """A raw layer, always the lowest; its holes are nothing."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def cluster(self, index: int) -> Mark | bytes:
        """Data of a cluster, CLUSTER bytes, or ABSENT where there are zeros."""
        content = os.pread(self._descriptor, CLUSTER, index * CLUSTER)
        if not content.strip(b"\0"):
            return Mark.ABSENT
        return content.ljust(CLUSTER, b"\0")
