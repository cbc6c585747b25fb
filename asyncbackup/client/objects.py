"""Reads of objects, cut into requests that a server answers cheaply, and received in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from asyncbackup.client.request import Request
from asyncbackup.errors import ObjectReadFailed, RequestFailed
from asyncbackup.wire import messages, oid
from asyncbackup.wire.constants import SECTOR_SIZE, Result
from asyncbackup.wire.messages import Bytes, ResponseHeader

READ_SIZE: Final = 456 << 10
"""Bytes of an object to ask for at a time, a ninth of 4 MiB.

sheep 1.0 keeps buffers below 512 KiB at hand; one of more it maps anew for each request, which costs it half as much
CPU again. Fewer bytes mean more requests.
"""


class ObjectRead(NamedTuple):
    """Fills ``into`` with the bytes of object ``oid`` from ``offset``."""

    oid: int
    into: memoryview
    offset: int = 0


class NewObject(NamedTuple):
    """An object to create: ``data`` at ``offset``, the rest from object ``cow_oid``, or zeros without one."""

    oid: int
    data: Bytes
    offset: int = 0
    cow_oid: int = 0


@dataclass(slots=True, eq=False)
class PartRead(Request):
    """One request of an object read. ``buffer`` takes its bytes."""

    oid: int = 0
    may_be_trimmed: bool = False
    """Whether the answer may lack zero sectors at its ends."""

    def place(self, header: ResponseHeader, buffer: memoryview | None) -> memoryview:
        """Receive into ``buffer``."""
        assert buffer is not None
        if header.data_length == len(buffer):
            return buffer
        offset = messages.ObjectReply.unpack(header.body).offset
        return place_trimmed(buffer, offset, header.data_length, may_be_trimmed=self.may_be_trimmed)

    def check(self) -> None:
        """Raise ObjectReadFailed if a data object could not be read, RequestFailed if another."""
        result = self.result
        if result is Result.SUCCESS:
            return
        if oid.is_data(self.oid):
            raise ObjectReadFailed(oid.index_of(self.oid), self.oid, result, result.meaning)
        raise RequestFailed(f"reading object {self.oid:016x}", result, result.meaning)


def cut(
    reads: Sequence[ObjectRead], *, may_be_trimmed: bool, replica_at: tuple[str, int] | None = None
) -> list[PartRead]:
    """Cut reads into requests of at most READ_SIZE bytes; with ``replica_at`` of the replica of that node alone."""
    make = messages.read_object if replica_at is None else messages.read_replica
    parts = []
    for object_id, into, offset in reads:
        for start in range(0, len(into), READ_SIZE):
            part = into[start : start + READ_SIZE]
            message = make(object_id, offset + start, len(part))
            parts.append(PartRead(message, part, object_id, may_be_trimmed, at=replica_at))
    return parts


def place_trimmed(buffer: memoryview, offset: int, length: int, *, may_be_trimmed: bool) -> memoryview:
    """Say which part of ``buffer`` the ``length`` bytes of a READ_OBJ answer are, and zero the rest of it.

    ``offset`` is the place in ``buffer`` that the answer names. Raises ValueError ("expected …, got …") for an answer
    that is neither whole nor trimmed by sectors.
    """
    wanted = len(buffer)
    if not may_be_trimmed or offset % SECTOR_SIZE or offset + length > wanted:
        at = f" at offset {offset}" if offset else ""
        raise ValueError(f"expected {wanted} bytes, got {length} bytes{at}")
    buffer[:offset] = bytes(offset)
    buffer[offset + length :] = bytes(wanted - offset - length)
    return buffer[offset : offset + length]
