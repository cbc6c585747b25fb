"""A snapshot that is deleted while somebody reads: as ``dog vdi delete`` does it, at a moment of the test's choice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from asyncbackup import ClientOptions, Cluster, connect
from asyncbackup.sheep import MemoryStore, Sheep
from asyncbackup.sheep.volumes import owners_of
from asyncbackup.wire.constants import Opcode
from asyncbackup.wire.inode import TABLE_OFFSET, Inode, entry_offset
from asyncbackup.wire.messages import ObjectBody, RequestHeader
from asyncbackup.wire.oid import data_oid, index_of, inode_oid, is_data

ONE = ClientOptions(connections=1, request_timeout_s=10, give_up_after_s=0, retry_delay_s=0)


@dataclass
class Deletable:
    """A served store.

    ``at_read(n)`` sets what happens just before the n-th read of data is served; with ``idx`` only reads of the object
    at that index count.
    """

    store: MemoryStore = field(default_factory=MemoryStore)
    reads: int = 0
    _at: int = -1
    _idx: int | None = None
    _action: Callable[[], None] = lambda: None

    def at_read(self, number: int, action: Callable[[], None], *, idx: int | None = None) -> None:
        self.reads, self._at, self._idx, self._action = 0, number, idx, action

    def note(self, request: RequestHeader) -> None:
        if request.opcode != Opcode.READ_OBJ:
            return
        oid = ObjectBody.unpack(request.body).oid
        if is_data(oid) and self._idx in (None, index_of(oid)):
            self.reads += 1
            if self.reads == self._at:
                self._action()

    def empty(self, inode: Inode, count: int) -> None:
        """Take the first ``count`` owners out of a table, and remove the objects that were the VDI's own."""
        view = self.store.get(inode_oid(inode.vdi_id))
        assert view is not None
        owners = owners_of(view)
        for idx in range(count):
            if owners[idx] == inode.vdi_id:
                self.store.remove(data_oid(inode.vdi_id, idx))
        self.store.write(inode_oid(inode.vdi_id), TABLE_OFFSET, bytes(4 * count))

    def set_owner(self, inode: Inode, idx: int, owner: int) -> None:
        """Put ``owner`` into the table of a VDI. No object comes or goes."""
        assert self.store.write(inode_oid(inode.vdi_id), entry_offset(idx), owner.to_bytes(4, "little"))

    def discard(self, inode: Inode, idx: int) -> None:
        """Discard an object as a guest does: its entry first, then the object."""
        self.set_owner(inode, idx, 0)
        self.store.remove(data_oid(inode.vdi_id, idx))


@asynccontextmanager
async def deletable() -> AsyncIterator[tuple[Deletable, Cluster]]:
    """Serve an empty store, with a client on it."""
    made = Deletable()
    async with (
        Sheep(made.store, on_request=made.note) as sheep,
        connect(sheep.host, sheep.port, ONE) as cluster,
    ):
        yield made, cluster
