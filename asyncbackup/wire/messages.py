"""Requests and responses as values: 48-byte headers, and the 32 or 28 bytes in them that depend on the opcode."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

from asyncbackup.wire.constants import (
    EPOCH_LOG_SIZES,
    FIRST_INTERNAL_OPCODE,
    NAME_SIZE,
    VDI_BITMAP_SIZE,
    VDI_STATE_SIZE,
    Flag,
    Opcode,
    Result,
)

Bytes = bytes | bytearray | memoryview

_REQUEST: Final = struct.Struct("<BBHIII32s")
_RESPONSE: Final = struct.Struct("<BBHIIII28s")
_OBJECT: Final = struct.Struct("<QQBBBxII4x")
_VDI: Final = struct.Struct("<QIBBBBII8x")
_OBJECT_REPLY: Final = struct.Struct("<B3xQ16x")
_VDI_REPLY: Final = struct.Struct("<4xIIBB14x")
_LOCK: Final = struct.Struct("<I12xI")
_RECOVERY_STATE_SIZE: Final = 24
_UNLOCKED: Final = 1
"""In answers of 1.0: 1 unlocked, 2 locked by one client, 3 shared by several clients; 0: the server does not know."""
_FORMAT_TIME: Final = struct.Struct("<Q")
_NODE_REPLY: Final = struct.Struct("<I8xQQ")


_OF_OBJECTS: Final = frozenset(
    {Opcode.READ_OBJ, Opcode.WRITE_OBJ, Opcode.CREATE_AND_WRITE_OBJ, Opcode.REMOVE_OBJ, Opcode.DISCARD_OBJ}
)


class RequestHeader(NamedTuple):
    """The 48 bytes before a request's payload; ``body`` are the 32 bytes that the opcode gives a meaning to."""

    proto_ver: int
    opcode: int
    flags: int
    epoch: int
    id: int
    data_length: int
    body: bytes

    def pack(self) -> bytes:
        return _REQUEST.pack(*self)

    @classmethod
    def unpack(cls, header: Bytes) -> RequestHeader:
        return cls(*_REQUEST.unpack(header))

    @property
    def payload_length(self) -> int:
        """Bytes that follow the header: only a WRITE request has a payload."""
        return self.data_length if self.flags & Flag.WRITE else 0


class ResponseHeader(NamedTuple):
    """The 48 bytes before a response's payload of ``data_length`` bytes; ``body`` depends on the opcode."""

    proto_ver: int
    opcode: int
    flags: int
    epoch: int
    id: int
    data_length: int
    result: Result
    body: bytes

    def pack(self) -> bytes:
        return _RESPONSE.pack(*self)

    @classmethod
    def unpack(cls, header: Bytes) -> ResponseHeader:
        proto_ver, opcode, flags, epoch, request_id, data_length, result, body = _RESPONSE.unpack(header)
        # Looking a member up costs more than all the rest.
        known = Result(result) if result else Result.SUCCESS
        return cls(proto_ver, opcode, flags, epoch, request_id, data_length, known, body)


class ObjectBody(NamedTuple):
    """Opcode-specific bytes of an object request; ``offset`` in bytes from the object's start."""

    oid: int
    cow_oid: int = 0
    copies: int = 0
    copy_policy: int = 0
    ec_index: int = 0
    tgt_epoch: int = 0
    offset: int = 0

    def pack(self) -> bytes:
        return _OBJECT.pack(*self)

    @classmethod
    def unpack(cls, body: Bytes) -> ObjectBody:
        return cls(*_OBJECT.unpack(body))


@dataclass(frozen=True, slots=True)
class VdiBody:
    """Opcode-specific bytes of a VDI request; ``vdi_size`` in bytes."""

    vdi_size: int = 0
    base_vdi_id: int = 0
    copies: int = 0
    copy_policy: int = 0
    store_policy: int = 0
    block_size_shift: int = 0
    snapid: int = 0
    type: int = 0

    def pack(self) -> bytes:
        return _VDI.pack(
            self.vdi_size,
            self.base_vdi_id,
            self.copies,
            self.copy_policy,
            self.store_policy,
            self.block_size_shift,
            self.snapid,
            self.type,
        )

    @classmethod
    def unpack(cls, body: Bytes) -> VdiBody:
        return cls(*_VDI.unpack(body))


class ObjectReply(NamedTuple):
    """Opcode-specific bytes of an object response; ``offset``: where in the asked range a trimmed payload belongs."""

    copies: int = 0
    offset: int = 0

    def pack(self) -> bytes:
        return _OBJECT_REPLY.pack(*self)

    @classmethod
    def unpack(cls, body: Bytes) -> ObjectReply:
        return cls(*_OBJECT_REPLY.unpack(body))


@dataclass(frozen=True, slots=True)
class VdiReply:
    """Opcode-specific bytes of a VDI response."""

    vdi_id: int = 0
    attr_id: int = 0
    copies: int = 0
    block_size_shift: int = 0

    def pack(self) -> bytes:
        return _VDI_REPLY.pack(self.vdi_id, self.attr_id, self.copies, self.block_size_shift)

    @classmethod
    def unpack(cls, body: Bytes) -> VdiReply:
        return cls(*_VDI_REPLY.unpack(body))


@dataclass(frozen=True, slots=True)
class NodeReply:
    """Opcode-specific bytes of a node response; sizes in bytes."""

    nr_nodes: int = 0
    store_size: int = 0
    store_free: int = 0

    def pack(self) -> bytes:
        return _NODE_REPLY.pack(self.nr_nodes, self.store_size, self.store_free)

    @classmethod
    def unpack(cls, body: Bytes) -> NodeReply:
        return cls(*_NODE_REPLY.unpack(body))


class Message(NamedTuple):
    """What a client asks, before a connection gives it an id and a protocol version.

    ``capacity`` is how many bytes of answer the client can take; a request with a ``payload`` (flag WRITE) takes none.
    """

    opcode: Opcode
    body: bytes
    flags: Flag = Flag.NONE
    payload: Bytes = b""
    capacity: int = 0
    epoch: int = 0
    """The epoch of the cluster in which it is sent, where that counts."""

    @property
    def is_internal(self) -> bool:
        """Internal requests carry the internal protocol version, which must match the server's exactly."""
        return self.opcode >= FIRST_INTERNAL_OPCODE

    @property
    def is_for_object(self) -> bool:
        """Tell whether the request is for one object."""
        return self.opcode in _OF_OBJECTS

    @property
    def oid(self) -> int:
        """The object that the request is for. Only for one that is for an object."""
        return ObjectBody.unpack(self.body).oid

    def header(self, request_id: int, proto_ver: int) -> bytes:
        """Pack the header under ``request_id``; the payload goes after it as it is."""
        data_length = len(self.payload) or self.capacity
        return RequestHeader(proto_ver, self.opcode, self.flags, self.epoch, request_id, data_length, self.body).pack()

    def __str__(self) -> str:
        return self.opcode.name


def read_object(oid: int, offset: int, length: int) -> Message:
    """Ask for ``length`` bytes at ``offset`` of an object, past any object cache."""
    return Message(Opcode.READ_OBJ, ObjectBody(oid, offset=offset).pack(), Flag.DIRECT, capacity=length)


def read_replica(oid: int, offset: int, length: int) -> Message:
    """Ask the node that gets the request for its own replica, as servers do. It answers only in the same epoch."""
    return Message(Opcode.READ_PEER, ObjectBody(oid, offset=offset).pack(), capacity=length)


def write_object(oid: int, offset: int, data: Bytes, *, copies: int, copy_policy: int = 0) -> Message:
    """Overwrite part of an existing object."""
    body = ObjectBody(oid, copies=copies, copy_policy=copy_policy, offset=offset)
    return Message(Opcode.WRITE_OBJ, body.pack(), Flag.WRITE | Flag.DIRECT, data)


def create_object(
    oid: int, offset: int, data: Bytes, *, copies: int, copy_policy: int = 0, cow_oid: int = 0
) -> Message:
    """Create an object with ``data`` at ``offset``, the rest taken from ``cow_oid`` or, without one, zeros."""
    body = ObjectBody(oid, cow_oid, copies, copy_policy, offset=offset)
    flags = Flag.WRITE | Flag.DIRECT | (Flag.COW if cow_oid else Flag.NONE)
    return Message(Opcode.CREATE_AND_WRITE_OBJ, body.pack(), flags, data)


def remove_object(oid: int) -> Message:
    """Remove an object, even if something refers to it."""
    return Message(Opcode.REMOVE_OBJ, ObjectBody(oid).pack(), Flag.DIRECT)


def vdi_info(name: str, *, snapid: int = 0, tag: str = "") -> Message:
    """Look a VDI up: the snapshot with this id or tag or, without both, the working VDI.

    Raises ValueError for a name, a tag or an id that does not fit.
    """
    if not 0 <= snapid < 1 << 32:
        raise ValueError(f"expected a snapshot id of 32 bits, got {snapid}")
    payload = pack_name(name) + pack_name(tag)
    return Message(Opcode.GET_VDI_INFO, VdiBody(snapid=snapid).pack(), Flag.WRITE, payload)


def new_vdi(
    name: str,
    size: int,
    *,
    base_vdi_id: int = 0,
    snapshot: bool = False,
    copies: int = 0,
    copy_policy: int = 0,
    store_policy: int = 0,
    block_size_shift: int = 0,
) -> Message:
    """Create a VDI of ``size`` bytes, fresh or as a clone of ``base_vdi_id``.

    With ``snapshot`` the working VDI ``base_vdi_id`` becomes a snapshot and a new working VDI follows it. Zeros for
    copies and block_size_shift mean the cluster's defaults.
    """
    body = VdiBody(size, base_vdi_id, copies, copy_policy, store_policy, block_size_shift, int(snapshot))
    return Message(Opcode.NEW_VDI, body.pack(), Flag.WRITE, pack_name(name))


def delete_vdi(name: str, *, snapid: int = 0, tag: str = "", old: bool = False) -> Message:
    """Delete a snapshot or the working VDI; ``old``: the opcode of servers up to 0.5.0."""
    opcode = Opcode.DEL_VDI_OLD if old else Opcode.DEL_VDI
    return Message(opcode, VdiBody(snapid=snapid).pack(), Flag.WRITE, pack_name(name) + pack_name(tag))


def read_vdi_bitmap(*, deleted: bool = False) -> Message:
    """Ask for the bitmap of vdi ids in use, or (1.0) of those among them that were deleted."""
    opcode = Opcode.READ_DEL_VDIS if deleted else Opcode.READ_VDIS
    return Message(opcode, bytes(32), capacity=VDI_BITMAP_SIZE)


def node_list(capacity: int) -> Message:
    """Ask for the nodes of the cluster, at most ``capacity`` bytes of them."""
    return Message(Opcode.GET_NODE_LIST, bytes(32), capacity=capacity)


def recovery_state() -> Message:
    """Ask whether the server is recovering objects."""
    return Message(Opcode.STAT_RECOVERY, bytes(32), capacity=_RECOVERY_STATE_SIZE)


def is_recovering(state: Bytes) -> bool:
    """Read from a STAT_RECOVERY answer whether the server is recovering objects."""
    return bool(state) and state[0] != 0


def stat_cluster(internal_version: int) -> Message:
    """Ask for the state of the cluster in its present epoch, without the nodes where they can be left out."""
    return Message(Opcode.STAT_CLUSTER, bytes(32), capacity=EPOCH_LOG_SIZES[internal_version])


def unpack_format_time(epoch_log: Bytes) -> int:
    """Read from a STAT_CLUSTER answer when the cluster was formatted: seconds since 1970 << 32 | nanoseconds.

    Raises ValueError if it is too short.
    """
    if len(epoch_log) < _FORMAT_TIME.size:
        raise ValueError(f"expected at least {_FORMAT_TIME.size} bytes of cluster state, got {len(epoch_log)}")
    time: int = _FORMAT_TIME.unpack_from(epoch_log)[0]
    return time


def vdi_states(capacity: int) -> Message:
    """Ask for what the server knows of all VDIs, at most ``capacity`` bytes of it."""
    return Message(Opcode.GET_VDI_COPIES, bytes(32), capacity=capacity)


def find_lock(states: Bytes, vdi_id: int) -> bool | None:
    """Find in the answer of a server of 1.0 whether a VDI is locked; None if the answer does not speak of it."""
    for start in range(0, len(states) - VDI_STATE_SIZE + 1, VDI_STATE_SIZE):
        found, lock = _LOCK.unpack_from(states, start)
        if found == vdi_id:
            return bool(lock > _UNLOCKED)
    return None


def pack_name(name: str) -> bytes:
    """Encode a VDI name or tag: UTF-8, zero padded to 256 bytes.

    Raises ValueError if it does not fit with at least one zero after it, or holds a zero itself.
    """
    encoded = name.encode(errors="surrogateescape")
    if len(encoded) >= NAME_SIZE or b"\0" in encoded:
        raise ValueError(f"a VDI name or tag takes at most {NAME_SIZE - 1} bytes without zeros: '{name}'")
    return encoded.ljust(NAME_SIZE, b"\0")


def unpack_name(field: Bytes) -> str:
    """Decode a zero-padded name field; bytes that are not UTF-8 survive a round trip."""
    return bytes(field).split(b"\0", 1)[0].decode(errors="surrogateescape")
