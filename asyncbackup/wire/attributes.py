"""Attributes of a VDI: a key and a value that stay with its name. The object that holds one, and the requests for it.

The object begins with name, tag, time, snapshot id, length of the value, and key; then there is room for the value.
Source: ``docs/protocol.md``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from asyncbackup.wire.constants import NAME_SIZE, Flag, Opcode
from asyncbackup.wire.messages import Bytes, Message, VdiBody, pack_name, unpack_name

MAX_VALUE: Final = 65536
"""Bytes of the longest value."""

_HEADER: Final = struct.Struct(f"<{NAME_SIZE}s{NAME_SIZE}sQII{NAME_SIZE}s")

HEADER_SIZE: Final = _HEADER.size
"""Bytes before the value."""

ATTRIBUTE_SIZE: Final = HEADER_SIZE + MAX_VALUE
"""Bytes of the object."""

NAME_OFFSET: Final = 0
TIME_OFFSET: Final = 2 * NAME_SIZE


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute of VDI ``name``. What was deleted has an empty name.

    ``time``: the creation time, as in its inode, of the VDI that had the name when the attribute was written. ``tag``
    and ``snap_id`` are a part of the key, and usually empty.
    """

    name: str
    key: str
    value: bytes = b""
    tag: str = ""
    snap_id: int = 0
    time: int = 0

    def pack_header(self) -> bytes:
        """Build the bytes before the value. Raises ValueError for a name, a key or a value that does not fit."""
        if len(self.value) > MAX_VALUE:
            raise ValueError(f"expected a value of at most {MAX_VALUE} bytes, got {len(self.value)}")
        names = pack_name(self.name), pack_name(self.tag)
        return _HEADER.pack(*names, self.time, self.snap_id, len(self.value), pack_name(self.key))

    def pack(self) -> bytes:
        """Build the whole object: ATTRIBUTE_SIZE bytes."""
        return (self.pack_header() + self.value).ljust(ATTRIBUTE_SIZE, b"\0")

    @classmethod
    def unpack(cls, data: Bytes) -> Attribute:
        """Read an object. If ``data`` ends early, the value is shorter, or empty.

        Raises ValueError if ``data`` is shorter than the header, or names a length that no value can have.
        """
        if len(data) < HEADER_SIZE:
            raise ValueError(f"expected at least {HEADER_SIZE} bytes of an attribute, got {len(data)}")
        name, tag, time, snap_id, length, key = _HEADER.unpack_from(data)
        if length > MAX_VALUE:
            raise ValueError(f"expected a value of at most {MAX_VALUE} bytes, got {length}")
        value = bytes(memoryview(data)[HEADER_SIZE : HEADER_SIZE + length])
        return cls(unpack_name(name), unpack_name(key), value, unpack_name(tag), snap_id, time)

    def is_same(self, other: Attribute) -> bool:
        """Tell whether both have the same name and key."""
        mine, others = ((each.name, each.tag, each.snap_id, each.key) for each in (self, other))
        return mine == others


def find_attribute(name: str, key: str, *, beside: int = 0) -> Message:
    """Ask where attribute ``key`` of VDI ``name`` is. Raises ValueError for a name or key that does not fit.

    A server looks the VDI up first: the working one or, with ``beside``, the snapshot with this id.
    """
    return _request(Attribute(name, key).pack_header(), Flag.WRITE, beside)


def write_attribute(name: str, key: str, value: bytes, *, exclusive: bool = False) -> Message:
    """Make an attribute of the working VDI ``name``, or replace it. An ``exclusive`` request does not replace it.

    Raises ValueError for what does not fit.
    """
    flags = Flag.WRITE | Flag.ATTR_CREATE | (Flag.ATTR_EXCLUSIVE if exclusive else Flag.NONE)
    return _request(Attribute(name, key, value).pack(), flags)


def delete_attribute(name: str, key: str) -> Message:
    """Delete an attribute. Raises ValueError for a name or key that does not fit."""
    return _request(Attribute(name, key).pack_header(), Flag.WRITE | Flag.ATTR_DELETE)


def _request(payload: bytes, flags: Flag, snapid: int = 0) -> Message:
    return Message(Opcode.GET_VDI_ATTR, VdiBody(snapid=snapid).pack(), flags, payload)
