"""A scripted server that has nothing but inodes, as many and as absurd as it is told to claim."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable

from asyncbackup.wire.constants import VDI_BITMAP_SIZE, Opcode, Result
from asyncbackup.wire.inode import Inode
from asyncbackup.wire.messages import ObjectBody, RequestHeader, VdiReply
from asyncbackup.wire.oid import vdi_of
from tests.faults.proxy import answer, receive

ALL_IDS = b"\xff" * VDI_BITMAP_SIZE


def bitmap_of(vdi_ids: Iterable[int]) -> bytes:
    """Set the bits of ``vdi_ids``."""
    bitmap = bytearray(VDI_BITMAP_SIZE)
    for vdi_id in vdi_ids:
        bitmap[vdi_id // 8] |= 1 << vdi_id % 8
    return bytes(bitmap)


class Claims:
    """A handler: ids in ``in_use``, inodes by ``inode_of`` (the bytes that begin one), zeros for what is behind them.

    Lookups find ``found``, a VDI id, or with None nothing.
    """

    def __init__(
        self,
        in_use: bytes,
        inode_of: Callable[[int], bytes],
        found: int | None = None,
        deleted: bytes = bytes(VDI_BITMAP_SIZE),
    ) -> None:
        self.requests: Counter[int] = Counter()
        self._bitmaps = {int(Opcode.READ_VDIS): in_use, int(Opcode.READ_DEL_VDIS): deleted}
        self._inode_of = inode_of
        self._found = found

    @classmethod
    def of(cls, inodes: Iterable[Inode]) -> Claims:
        """Claim just these."""
        packed = {inode.vdi_id: inode.pack() for inode in inodes}
        return cls(bitmap_of(packed), packed.__getitem__)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await receive(reader)
            self.requests[request.opcode] += 1
            writer.write(self._answer(request))
            await writer.drain()

    def _answer(self, request: RequestHeader) -> bytes:
        if request.opcode in self._bitmaps:
            return answer(request, self._bitmaps[request.opcode])
        if request.opcode == Opcode.READ_OBJ:
            body = ObjectBody.unpack(request.body)
            beginning = self._inode_of(vdi_of(body.oid))[body.offset :][: request.data_length]
            return answer(request, beginning.ljust(request.data_length, b"\0"))
        if request.opcode == Opcode.GET_VDI_INFO and self._found is not None:
            return answer(request, body=VdiReply(self._found).pack())
        return answer(request, result=Result.NO_VDI if request.opcode == Opcode.GET_VDI_INFO else Result.SUCCESS)
