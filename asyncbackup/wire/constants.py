"""Numbers of the sheep protocol: opcodes, flags, results, versions, sizes. Source: ``docs/protocol.md``."""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final

DEFAULT_PORT: Final = 7000

HEADER_SIZE: Final = 48
"""Bytes of a request's and of a response's header."""

PUBLIC_VERSIONS: Final = (2, 1)
"""Versions of the public protocol, newest first; servers before 0.5.1 take only 1."""

INTERNAL_VERSIONS: Final = (0x0A, 0x09, 0x08, 0x07, 0x06, 0x05)
"""Versions of the internal protocol from sheepdog 1.0 down to 0.4; each server takes exactly its own."""

FIRST_INTERNAL_OPCODE: Final = 0x80

SECTOR_SIZE: Final = 512
NAME_SIZE: Final = 256
"""Bytes of a VDI name or tag field, zero padded."""

VDI_BITMAP_SIZE: Final = (1 << 24) // 8
"""Bytes of the READ_VDIS answer: one bit for each possible vdi id."""

VDI_STATE_SIZE: Final = 1428
"""Bytes of an entry of a GET_VDI_COPIES answer from 1.0."""

MIN_BLOCK_SIZE_SHIFT: Final = 20
MAX_BLOCK_SIZE_SHIFT: Final = 31
DEFAULT_BLOCK_SIZE_SHIFT: Final = 22

MAX_DENSE_OBJECTS: Final = 1 << 20
"""Entries of an inode's owner table."""

MAX_HYPER_OBJECTS: Final = 1 << 32
"""Data objects that a hyper volume can have: their indices are u32."""

MAX_COPIES: Final = 31
"""Copies of an object, or parts of it where it is coded, that a cluster can keep: 16 of data and 15 of parity."""


EPOCH_LOG_SIZES: Final = {
    0x0A: 48,
    0x09: 48 + 6144 * 80,
    0x08: 32 + 1024 * 56,
    0x07: 32 + 1024 * 56,
    0x06: 32 + 1024 * 32,
    0x05: 32 + 1024 * 24,
}
"""Bytes of one entry of the STAT_CLUSTER answer by internal version; up to 0.8 with room for all nodes there can be.

A server refuses a request for less. If the request has room for twice as much, the answer has the epoch before, too.
"""


class Opcode(IntEnum):
    """Requests this package sends or serves. ``REMOVE_OBJ`` and later ones in 0x8x-0xcx are the server's business."""

    CREATE_AND_WRITE_OBJ = 0x01
    READ_OBJ = 0x02
    WRITE_OBJ = 0x03
    REMOVE_OBJ = 0x04
    DISCARD_OBJ = 0x05
    NEW_VDI = 0x11
    LOCK_VDI = 0x12
    RELEASE_VDI = 0x13
    GET_VDI_INFO = 0x14
    READ_VDIS = 0x15
    FLUSH_VDI = 0x16
    DEL_VDI = 0x17
    GET_CLUSTER_DEFAULT = 0x18
    DEL_VDI_OLD = 0x81
    GET_NODE_LIST = 0x82
    STAT_SHEEP = 0x86
    STAT_CLUSTER = 0x87
    GET_VDI_ATTR = 0x89
    STAT_RECOVERY = 0x97
    READ_PEER = 0xA4
    GET_VDI_COPIES = 0xAB
    STAT = 0xB8
    EXIST = 0xBD
    CLUSTER_INFO = 0xBE
    OIDS_EXIST = 0xC6
    READ_DEL_VDIS = 0xC9


class Flag(IntFlag):
    """Request flags. WRITE: a payload of ``data_length`` bytes follows the header. ATTR_…: of GET_VDI_ATTR alone."""

    NONE = 0x00
    WRITE = 0x01
    COW = 0x02
    DIRECT = 0x08
    ATTR_CREATE = 0x0100
    ATTR_EXCLUSIVE = 0x0200
    ATTR_DELETE = 0x0400


class Result(IntEnum):
    """Result codes. A value without a name here is kept, as ``UNKNOWN_0x…``, not refused."""

    SUCCESS = 0x00
    UNKNOWN = 0x01
    NO_OBJ = 0x02
    EIO = 0x03
    VDI_EXIST = 0x04
    INVALID_PARMS = 0x05
    SYSTEM_ERROR = 0x06
    VDI_LOCKED = 0x07
    NO_VDI = 0x08
    NO_BASE_VDI = 0x09
    VDI_READ = 0x0A
    VDI_WRITE = 0x0B
    BASE_VDI_READ = 0x0C
    BASE_VDI_WRITE = 0x0D
    NO_TAG = 0x0E
    STARTUP = 0x0F
    VDI_NOT_LOCKED = 0x10
    SHUTDOWN = 0x11
    NO_MEM = 0x12
    FULL_VDI = 0x13
    VER_MISMATCH = 0x14
    NO_SPACE = 0x15
    WAIT_FOR_FORMAT = 0x16
    WAIT_FOR_JOIN = 0x17
    JOIN_FAILED = 0x18
    HALT = 0x19
    READONLY = 0x1A
    OLD_NODE_VER = 0x81
    NEW_NODE_VER = 0x82
    NETWORK_ERROR = 0x86
    BUFFER_SMALL = 0x88
    NO_SUPPORT = 0x8B
    KILLED = 0x8D
    AGAIN = 0x8F

    @classmethod
    def _missing_(cls, value: object) -> Result | None:
        if not isinstance(value, int) or not 0 <= value < 1 << 32:
            return None
        unnamed = int.__new__(cls, value)
        unnamed._name_ = f"UNKNOWN_0x{value:02X}"
        unnamed._value_ = value
        return unnamed

    @property
    def meaning(self) -> str:
        """The result in words."""
        return _MEANINGS.get(self, self.name.lower().replace("_", " "))


_MEANINGS: Final = {
    Result.NO_OBJ: "no such object",
    Result.EIO: "I/O error",
    Result.VDI_EXIST: "the VDI exists already",
    Result.INVALID_PARMS: "invalid parameters",
    Result.VDI_LOCKED: "the VDI is locked",
    Result.NO_VDI: "no such VDI",
    Result.NO_BASE_VDI: "no such base VDI",
    Result.NO_TAG: "no such snapshot",
    Result.STARTUP: "starting up",
    Result.SHUTDOWN: "shutting down",
    Result.NO_MEM: "the server is out of memory",
    Result.FULL_VDI: "no VDI id is left",
    Result.VER_MISMATCH: "protocol version mismatch",
    Result.NO_SPACE: "no space left in the cluster",
    Result.WAIT_FOR_FORMAT: "waiting for format",
    Result.WAIT_FOR_JOIN: "waiting for other nodes to join",
    Result.HALT: "halted, too few nodes",
    Result.READONLY: "the object is read-only",
    Result.OLD_NODE_VER: "old epoch",
    Result.NEW_NODE_VER: "new epoch",
    Result.NETWORK_ERROR: "network error between nodes",
    Result.KILLED: "the node was killed",
    Result.AGAIN: "try again",
}
