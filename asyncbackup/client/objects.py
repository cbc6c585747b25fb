"""Reads of objects, cut into requests that a server answers cheaply, and received in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from asyncbackup.client import policy
from asyncbackup.client.connection import Exchange
from asyncbackup.errors import ObjectReadFailed, RequestFailed
from asyncbackup.wire import messages, oid
from asyncbackup.wire.constants import Result
from asyncbackup.wire.messages import ResponseHeader

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


@dataclass(slots=True, eq=False)
class PartRead(Exchange):
    """One request of an object read; ``trims``: its answer may lack zero sectors at its ends."""

    oid: int
    into: memoryview
    trims: bool

    def place(self, header: ResponseHeader) -> memoryview:
        """Receive into ``into``."""
        if header.data_length == len(self.into):
            return self.into
        offset = messages.ObjectReply.unpack(header.body).offset
        return policy.place_trimmed(self.into, offset, header.data_length, trims=self.trims)

    def check(self) -> None:
        """Raise ObjectReadFailed if a data object could not be read, RequestFailed if another."""
        result = self.result
        if result is Result.SUCCESS:
            return
        if oid.is_data(self.oid):
            raise ObjectReadFailed(oid.index_of(self.oid), self.oid, result, result.meaning)
        raise RequestFailed(f"reading object {self.oid:016x}", result, result.meaning)


def cut(reads: Sequence[ObjectRead], *, trims: bool) -> list[PartRead]:
    """Cut reads into requests of at most READ_SIZE bytes."""
    parts = []
    for object_id, into, offset in reads:
        for start in range(0, len(into), READ_SIZE):
            part = into[start : start + READ_SIZE]
            request = messages.read_object(object_id, offset + start, len(part))
            parts.append(PartRead(request, object_id, part, trims))
    return parts
