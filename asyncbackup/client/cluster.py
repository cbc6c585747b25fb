"""A cluster: typed operations on its VDIs and objects."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, NamedTuple

import anyio
import numpy as np

from asyncbackup.client.fan_out import for_each
from asyncbackup.client.nodes import Nodes
from asyncbackup.client.objects import READ_SIZE, NewObject, ObjectRead, cut
from asyncbackup.client.options import ClientOptions
from asyncbackup.client.outcome import failure
from asyncbackup.client.placement import Address
from asyncbackup.client.request import Request
from asyncbackup.client.router import Counts, Router
from asyncbackup.errors import (
    ChangedMeanwhile,
    InodeCorrupt,
    PlacementUnknown,
    ProtocolViolation,
    RequestFailed,
    SnapshotNotFound,
    TooManyVdis,
    VdiNotFound,
    name_snapshot,
)
from asyncbackup.format.identity import Identity, time_text
from asyncbackup.wire import attributes, btree, messages, oid
from asyncbackup.wire.attributes import Attribute
from asyncbackup.wire.constants import DEFAULT_PORT, INTERNAL_VERSIONS, VDI_STATE_SIZE, Result
from asyncbackup.wire.inode import ENTRY_SIZE, TABLE_OFFSET, TAG_OFFSET, Inode, Owners, entry_offset, unpack_owners
from asyncbackup.wire.messages import Bytes, Message, VdiReply
from asyncbackup.wire.nodes import MAX_NODES, NODE_ENTRY_SIZE, unpack_node_list
from asyncbackup.wire.vdi_ids import VdiIds, is_vdi_id

Snapshot = int | str
"""Names a snapshot: its id, or its tag."""


_MAX_HINTS: Final = 256
"""Inodes to read to say what exists when something was not found: a fraction of a second."""

MAX_LISTED: Final = 1 << 17
"""VDIs and snapshots to list: 100 MB of inodes, several times what clusters are known to hold."""


_FIRST_STATES: Final = 512
"""VDIs and snapshots of which the states are asked for first."""

_MAX_STATES: Final = 128 << 20
"""Bytes of states to take: some 90,000 VDIs and snapshots, those that were deleted among them."""

_LOOK_UP_PATIENCE_S: Final = 3.0
"""Seconds for a look-up by the cluster. It takes milliseconds where all nodes are well."""

_ENTRIES_AT_A_TIME: Final = READ_SIZE // btree.LEAF_ENTRY_SIZE
"""Entries of a B-tree's leaf to read at a time: one request, and little memory however large the tree."""


@dataclass(frozen=True, slots=True)
class DamagedVdi:
    """A VDI of which the inode cannot be used; ``name`` as far as it is known."""

    vdi_id: int
    name: str
    problem: str


class Vdis(NamedTuple):
    """The VDIs and snapshots of a cluster, by ascending vdi id."""

    sound: list[Inode]
    damaged: list[DamagedVdi]


def connect(
    host: str = "localhost", port: int = DEFAULT_PORT, options: ClientOptions | None = None
) -> AbstractAsyncContextManager[Cluster]:
    """Connect to a cluster through one gateway, as ``connect_any`` does."""
    return connect_any([(host, port)], options)


@asynccontextmanager
async def connect_any(gateways: Sequence[Address], options: ClientOptions | None = None) -> AsyncIterator[Cluster]:
    """Connect to a cluster through the first of ``gateways``, hosts and ports, at which a sheep answers.

    The other nodes of the cluster are found, and used as well. Leaving the context closes all connections. Raises
    Unreachable if there is no sheep, within ``options.connect_timeout_s`` seconds for each gateway.
    """
    nodes = Nodes(gateways, options or ClientOptions())
    try:
        await nodes.open()
        yield Cluster(Router(nodes))
    finally:
        with anyio.CancelScope(shield=True):
            await nodes.close()


@dataclass(slots=True)
class _FormatTime:
    """When the cluster was formatted. That never changes, so the cluster is asked once."""

    was_asked: bool = False
    text: str | None = None


@dataclass(eq=False)
class Cluster:
    """Typed operations on the VDIs and objects of a cluster, for one job. Made by ``connect``.

    All of them raise RequestFailed for an error result, ClusterNotReady where the cluster serves nobody, and
    ConnectionLost, RequestTimeout, ProtocolViolation or Unreachable where the way to it fails. Cancelling one leaves
    the connections usable.
    """

    router: Router
    counts: Counts = field(default_factory=Counts)
    """What was sent through this very object."""
    _format_time: _FormatTime = field(default_factory=_FormatTime)

    @property
    def nodes(self) -> Nodes:
        """The nodes of the cluster, as far as they are known."""
        return self.router.nodes

    def counted(self) -> Cluster:
        """Give the same cluster over the same connections for another job, with counts of its own."""
        return Cluster(self.router, _format_time=self._format_time)

    @asynccontextmanager
    async def connected_anew(self) -> AsyncIterator[Cluster]:
        """Connect to the same cluster over connections of their own. Raises Unreachable."""
        async with connect_any(self.nodes.gateways, self.router.options) as cluster:
            yield cluster

    def in_flight_limit(self) -> int:
        """Give how many bytes may be under way now, as far as the cluster's answers have shown."""
        return self.nodes.limit

    async def call(self, message: Message) -> Request:
        """Carry out one request. Its result may be an error."""
        request = Request(message)
        await self.router.call([request], self.counts)
        return request

    async def expect_success(self, message: Message, what: str) -> Request:
        """Carry out one request. Raises RequestFailed, which names ``what`` was done, if the result is an error."""
        request = await self.call(message)
        if request.result is not Result.SUCCESS:
            raise failure(what, request.result)
        return request

    async def read_object(self, object_id: int, into: memoryview, offset: int = 0) -> None:
        """Fill ``into`` from one object, as ``read_objects`` does."""
        await self.read_objects([ObjectRead(object_id, into, offset)])

    async def read_objects(self, reads: Sequence[ObjectRead]) -> None:
        """Read parts of objects into their buffers, all of them at once.

        After a cancellation the buffers may hold anything. Raises ObjectReadFailed for a data object, and RequestFailed
        for another.
        """
        parts = cut(reads, may_be_trimmed=self.nodes.gateway.versions.may_trim)
        if parts:
            await self.router.call(parts, self.counts)
        for part in parts:
            part.check()

    async def read_replica(self, node: Address, object_id: int, into: memoryview, offset: int = 0) -> None:
        """Fill ``into`` from the replica that ``node`` itself has of an object.

        After a cancellation ``into`` may hold anything. Raises ObjectReadFailed or RequestFailed if the node has no
        replica or cannot read it, and Unreachable if the cluster does not have this node, or does not have it any more.
        """
        parts = cut([ObjectRead(object_id, into, offset)], may_be_trimmed=False, replica_at=node)
        await self.router.call(parts, self.counts)
        for part in parts:
            part.check()

    async def locate(self, object_id: int) -> list[Address]:
        """Name the nodes that hold a replica of an object. Raises PlacementUnknown."""
        placement, vdi_id = self.nodes.placement, oid.vdi_of(object_id)
        if not placement.knows_copies(vdi_id):
            # The VDI may be deleted while snapshots still use its objects. Then only these two fields are reliable.
            inode = Inode.unpack(await self._read(oid.inode_oid(vdi_id), 0, Inode.HEADER_SIZE))
            placement.note_copies(vdi_id, inode.nr_copies, inode.copy_policy)
        if doubt := placement.doubt(vdi_id):
            raise PlacementUnknown(doubt)
        return placement.holders(object_id)

    @property
    def epoch(self) -> int:
        """The newest number of the list of nodes that an answer named. Each change of the list increases it by one."""
        return self.nodes.epoch

    async def _read(self, object_id: int, offset: int, length: int) -> memoryview:
        buffer = memoryview(bytearray(length))
        await self.read_object(object_id, buffer, offset)
        return buffer

    async def write_object(self, object_id: int, data: Bytes, offset: int = 0, *, copies: int, policy: int = 0) -> None:
        """Overwrite part of an existing object."""
        message = messages.write_object(object_id, offset, data, copies=copies, copy_policy=policy)
        await self.expect_success(message, f"writing object {object_id:016x}")

    async def create_object(
        self, object_id: int, data: Bytes, offset: int = 0, *, copies: int, policy: int = 0, cow_oid: int = 0
    ) -> None:
        """Create an object: ``data`` at ``offset``, the rest from object ``cow_oid``, or zeros without one."""
        await self.create_objects([NewObject(object_id, data, offset, cow_oid)], copies=copies, policy=policy)

    async def create_objects(self, objects: Sequence[NewObject], *, copies: int, policy: int = 0) -> None:
        """Create objects, at least one, all of them at once. Raises RequestFailed for the first that was not made.

        After a cancellation or an error any of them may be made.
        """
        requests = [
            Request(
                messages.create_object(
                    new.oid, new.offset, new.data, copies=copies, copy_policy=policy, cow_oid=new.cow_oid
                )
            )
            for new in objects
        ]
        await self.router.call(requests, self.counts)
        for new, request in zip(objects, requests, strict=True):
            if request.result is not Result.SUCCESS:
                raise failure(f"creating object {new.oid:016x}", request.result)

    async def find_vdi(self, name: str, snapshot: Snapshot | None = None) -> Inode:
        """Look up ``snapshot`` or, without it, the working VDI, and read the header of its inode.

        Raises VdiNotFound or SnapshotNotFound, which say what exists, and InodeCorrupt if it is the inode of another
        VDI.
        """
        message = _look_up(name, snapshot)
        if message is None:
            raise await self._not_found(name, snapshot)
        request = await self._look_up(message)
        if request is None:
            return await self._find_by_reading(name, snapshot)
        if request.result in (Result.NO_VDI, Result.NO_TAG):
            raise await self._not_found(name, snapshot)
        if request.result is not Result.SUCCESS:
            raise failure(f"looking up VDI '{name}'", request.result)
        inode = await self.read_inode(self.vdi_id_of(request))
        # A VDI that was deleted after the request has no name any more.
        if not inode.name or (snapshot is not None and not inode.is_snapshot):
            raise await self._not_found(name, snapshot)
        if inode.name != name or snapshot not in (None, inode.snap_id, inode.tag):
            expected = f"VDI '{name}'" + ("" if snapshot is None else f" snapshot {name_snapshot(snapshot)}")
            got = f"VDI '{inode.name}' snapshot {inode.snap_id} tagged '{inode.tag}'"
            raise InodeCorrupt(inode.vdi_id, f"looked up as {expected}, its inode says that it is {got}")
        return inode

    async def _look_up(self, message: Message) -> Request | None:
        """Let the cluster look up a VDI; None if that takes long.

        All nodes take part in it, and one of them may hang until the cluster removes it. Objects can be read meanwhile.
        """
        if not self.nodes.are_several:
            return await self.call(message)
        with anyio.move_on_after(_LOOK_UP_PATIENCE_S):
            return await self.call(message)
        return None

    async def _find_by_reading(self, name: str, snapshot: Snapshot | None) -> Inode:
        """Find a VDI or snapshot by reading inodes. Raises VdiNotFound or SnapshotNotFound."""
        ids = await self._read_ids()
        likely = list(islice(ids.newest_of(name), _MAX_HINTS)) if can_be_named(name) else []
        for inode in (await self._read_headers(likely, name)).sound:
            if snapshot is None and not inode.is_snapshot:
                return await self.read_inode(inode.vdi_id)
            if inode.is_snapshot and snapshot in (inode.snap_id, inode.tag):
                return await self.read_inode(inode.vdi_id)
        raise await self._not_found(name, snapshot)

    def vdi_id_of(self, request: Request) -> int:
        """Give the id of the VDI that a successful answer names. Raises ProtocolViolation if no VDI can have it."""
        vdi_id = VdiReply.unpack(request.header.body).vdi_id
        if not is_vdi_id(vdi_id):
            raise ProtocolViolation(self.nodes.gateway.address, "a VDI id of 24 bits", f"{vdi_id:x}")
        return vdi_id

    async def has_vdi(self, name: str) -> bool:
        """Tell whether there is a working VDI ``name``."""
        request = await self._look_up(messages.vdi_info(name))
        if request is None:
            with suppress(VdiNotFound):
                return bool(await self._find_by_reading(name, None))
            return False
        if request.result not in (Result.SUCCESS, Result.NO_VDI):
            raise failure(f"looking up VDI '{name}'", request.result)
        return request.result is Result.SUCCESS

    async def count_nodes(self) -> int | None:
        """Count the nodes that keep objects; None if the cluster is of a release whose list we cannot read."""
        if self.nodes.gateway.versions.internal != INTERNAL_VERSIONS[0]:
            return None
        request = await self.expect_success(messages.node_list(MAX_NODES * NODE_ENTRY_SIZE), "listing the nodes")
        try:
            nodes = unpack_node_list(request.header.body, request.payload)
        except ValueError as error:
            raise ProtocolViolation(self.nodes.gateway.address, "a list of nodes", str(error)) from error
        return sum(node.vnodes > 0 for node in nodes) or None

    async def _not_found(self, name: str, snapshot: Snapshot | None) -> VdiNotFound | SnapshotNotFound:
        """Make the error that says what exists instead.

        This reads few inodes. In a large cluster it reads those that are likely to help.
        """
        ids = await self._read_ids()
        is_small = len(ids) <= _MAX_HINTS
        if snapshot is not None and can_be_named(name):
            likely = ids.ascending().tolist() if is_small else list(islice(ids.newest_of(name), _MAX_HINTS))
            found = (await self._read_headers(likely)).sound
            namesakes = sorted((inode for inode in found if inode.name == name), key=lambda inode: -inode.snap_id)
            if namesakes:
                snapshots = [inode for inode in namesakes if inode.is_snapshot]
                existing = [
                    f"{inode.snap_id} ({inode.tag})" if inode.tag else str(inode.snap_id) for inode in snapshots
                ]
                return SnapshotNotFound(name, snapshot, existing, complete=is_small or len(likely) < _MAX_HINTS)
        likely = (ids.ascending() if is_small else ids.ends_of_runs()[:_MAX_HINTS]).tolist()
        found = (await self._read_headers(likely)).sound
        working = sorted((inode for inode in found if not inode.is_snapshot), key=lambda inode: -inode.create_time)
        return VdiNotFound(name, [inode.name for inode in working], complete=is_small)

    async def read_inode(self, vdi_id: int) -> Inode:
        """Read the header of an inode. Raises InodeCorrupt unless it is that of VDI ``vdi_id`` and can be used."""
        inode = Inode.unpack(await self._read(oid.inode_oid(vdi_id), 0, Inode.HEADER_SIZE))
        inode.check(vdi_id)
        self.nodes.placement.note_copies(vdi_id, inode.nr_copies, inode.copy_policy)
        return inode

    async def format_time(self) -> str | None:
        """Tell when the cluster was formatted, in UTC; None if the server does not say it. It differs between clusters.

        The server is asked once.
        """
        known = self._format_time
        if not known.was_asked:
            known.text = await self._read_format_time()
            known.was_asked = True
        return known.text

    async def _read_format_time(self) -> str | None:
        internal_version = self.nodes.gateway.versions.internal
        if internal_version is None:
            return None
        request = await self.call(messages.stat_cluster(internal_version))
        if request.result is not Result.SUCCESS or not request.payload:
            return None
        try:
            return time_text(messages.unpack_format_time(request.payload))
        except ValueError as error:
            raise ProtocolViolation(
                self.nodes.gateway.address, "the time at which the cluster was formatted", str(error)
            ) from error

    async def identify(self, inode: Inode) -> Identity:
        """Say which snapshot or working VDI has ``inode``. Raises InodeCorrupt if no snapshot or VDI can have it."""
        cluster = await self.format_time()
        try:
            return Identity(
                vdi=inode.name,
                vdi_id=f"{inode.vdi_id:x}",
                created=time_text(inode.snap_ctime),
                cluster=cluster,
                id=inode.snap_id,
                tag=inode.tag,
            )
        except ValueError as error:
            raise InodeCorrupt(inode.vdi_id, str(error)) from error

    async def list_vdis(self, name: str | None = None) -> Vdis:
        """Read the inode headers of all VDIs and snapshots that are not deleted, or of those called ``name``.

        Raises TooManyVdis if the cluster says that it has more than ``MAX_LISTED``. Raises VdiNotFound if nothing has
        this name; on a large cluster a few reads tell that.
        """
        ids = await self._read_ids()
        if len(ids) > MAX_LISTED:
            raise TooManyVdis(self.nodes.gateway.address, len(ids), MAX_LISTED)
        if name is not None and len(ids) > _MAX_HINTS and not await self._is_known(name, ids):
            raise await self._not_found(name, None)
        vdis = await self._read_headers(ids.ascending().tolist(), name)
        if name is not None and not any(vdis):
            raise await self._not_found(name, None)
        return vdis

    async def _is_known(self, name: str, ids: VdiIds) -> bool:
        """Tell whether there is a VDI ``name`` or a snapshot of one.

        In a cluster that uses ids again it may overlook snapshots whose VDI is deleted.
        """
        if not can_be_named(name):
            return False
        newest = await self._read_headers(list(islice(ids.newest_of(name), _MAX_HINTS)), name)
        return any(newest) or await self.has_vdi(name)

    async def _read_headers(self, vdi_ids: list[int], wanted: str | None = None) -> Vdis:
        """Read inode headers; with a name ``wanted`` keep only those that have it."""
        inodes: dict[int, Inode] = {}
        damaged: dict[int, DamagedVdi] = {}

        async def read_header(vdi_id: int) -> None:
            name = ""
            try:
                inode = Inode.unpack(await self._read(oid.inode_oid(vdi_id), 0, Inode.HEADER_SIZE))
                name = inode.name
                if name:  # Servers before 1.0 blank the name of what was deleted.
                    inode.check(vdi_id)
                    if wanted in (None, name):
                        inodes[vdi_id] = inode
            except InodeCorrupt as error:
                damaged[vdi_id] = DamagedVdi(vdi_id, name, error.problem)
            except RequestFailed as error:
                damaged[vdi_id] = DamagedVdi(vdi_id, name, str(error))

        await for_each(vdi_ids, read_header)
        return Vdis(
            [inodes[vdi_id] for vdi_id in vdi_ids if vdi_id in inodes],
            [damaged[vdi_id] for vdi_id in vdi_ids if vdi_id in damaged and wanted in (None, damaged[vdi_id].name)],
        )

    async def _read_ids(self) -> VdiIds:
        return VdiIds(await self._read_bitmap(deleted=False), await self._read_bitmap(deleted=True))

    async def is_deleted(self, vdi_id: int) -> bool:
        """Tell whether the VDI or snapshot of this id was deleted. Servers before 1.0 blank its name instead."""
        bitmap = await self._read_bitmap(deleted=True)
        return bool(bitmap[vdi_id // 8] >> vdi_id % 8 & 1)

    async def _read_bitmap(self, *, deleted: bool) -> memoryview:
        message = messages.read_vdi_bitmap(deleted=deleted)
        request = await self.call(message)
        if request.result is not Result.SUCCESS:
            if deleted:  # Servers before 1.0 do not know this request: they blank the name of what was deleted.
                return memoryview(bytes(message.capacity))
            raise failure("listing the VDIs", request.result)
        if len(request.payload) != message.capacity:
            expected = f"{message.capacity} bytes of bitmap"
            raise ProtocolViolation(self.nodes.gateway.address, expected, f"{len(request.payload)} bytes")
        return request.payload

    async def read_owners(self, vdi_id: int, count: int) -> Owners:
        """Read the first ``count`` entries of an owner table."""
        return unpack_owners(await self._read(oid.inode_oid(vdi_id), TABLE_OFFSET, count * ENTRY_SIZE))

    async def read_owner(self, inode: Inode, idx: int) -> int:
        """Read the id of the VDI that owns a data object now; 0: the object does not exist."""
        if not inode.is_hyper:
            entry = await self._read(oid.inode_oid(inode.vdi_id), entry_offset(idx), ENTRY_SIZE)
            return int(unpack_owners(entry)[0])
        async with aclosing(self.read_btree(inode, start=idx)) as leaves:
            async for indices, owners in leaves:
                return int(owners[0]) if indices[0] == idx else 0
        return 0

    async def read_btree(self, inode: Inode, start: int = 0) -> AsyncGenerator[btree.Leaf, None]:
        """Read the owners of a hyper volume from index ``start`` on: ascending data object indices, and their owners.

        They come in arrays of bounded length, none of them empty, up to the end of the VDI. Raises InodeCorrupt if the
        tree is damaged.
        """
        last = -1
        async with aclosing(self._leaves(inode, start)) as leaves:
            async for node_oid, entries_at, count in leaves:
                for first in range(0, count, _ENTRIES_AT_A_TIME):
                    length = min(_ENTRIES_AT_A_TIME, count - first) * btree.LEAF_ENTRY_SIZE
                    entries = await self._read(node_oid, entries_at + first * btree.LEAF_ENTRY_SIZE, length)
                    indices, owners = btree.unpack_leaf(inode.vdi_id, entries, last)
                    last = int(indices[-1])
                    wanted = slice(*np.searchsorted(indices, (start, inode.object_count)).tolist())
                    if wanted.start < wanted.stop:
                        yield indices[wanted], owners[wanted]
                    if last >= inode.object_count - 1:
                        return

    async def _leaves(self, inode: Inode, start: int) -> AsyncGenerator[tuple[int, int, int], None]:
        """Find the leaves that may have indices from ``start`` on.

        Gives the object of each leaf, the offset of its entries in that object, and how many entries it has.
        """
        root_oid, entries_at = oid.inode_oid(inode.vdi_id), TABLE_OFFSET + btree.NODE_HEADER_SIZE
        root = btree.unpack_node_header(inode.vdi_id, await self._read(root_oid, TABLE_OFFSET, btree.NODE_HEADER_SIZE))
        if root.depth == btree.LEAF:
            yield root_oid, entries_at, root.count
            return
        entries = await self._read(root_oid, entries_at, root.entries_size)
        highest, oids = btree.unpack_indirect(inode.vdi_id, entries)
        for node_oid in oids[min(int(np.searchsorted(highest, start)), len(oids) - 1) :]:
            header = await self._read(int(node_oid), 0, btree.NODE_HEADER_SIZE)
            yield int(node_oid), btree.NODE_HEADER_SIZE, btree.unpack_leaf_header(inode.vdi_id, header).count

    async def read_attribute(self, vdi: Inode, key: str) -> bytes | None:
        """Read the value of an attribute; None if there is none. All VDIs and snapshots of one name share attributes.

        Raises VdiNotFound if no VDI or snapshot has the name any more, and RequestFailed where the cluster refuses it.
        """
        beside = vdi.snap_id if vdi.is_snapshot else 0
        request = await self.call(attributes.find_attribute(vdi.name, key, beside=beside))
        if request.result is Result.NO_OBJ:
            return None
        if request.result is Result.NO_VDI:
            raise await self._not_found(vdi.name, None)
        if request.result is not Result.SUCCESS:
            raise failure(f"looking up attribute '{key}' of VDI '{vdi.name}'", request.result)
        found = VdiReply.unpack(request.header.body)
        object_id = oid.attribute_oid(self.vdi_id_of(request), found.attr_id)
        try:
            attribute = Attribute.unpack(await self._read(object_id, 0, attributes.ATTRIBUTE_SIZE))
        except ValueError as error:
            raise ProtocolViolation(self.nodes.gateway.address, "an attribute", str(error)) from error
        if not attribute.name:  # It was deleted after the request that found it.
            return None
        if not attribute.is_same(Attribute(vdi.name, key)):
            expected = f"attribute '{key}' of VDI '{vdi.name}'"
            raise ProtocolViolation(
                self.nodes.gateway.address, expected, f"attribute '{attribute.key}' of VDI '{attribute.name}'"
            )
        return attribute.value

    async def write_attribute(self, vdi: str, key: str, value: bytes) -> None:
        """Write an attribute of the working VDI ``vdi``, which may have it already. A value has at most 64 KiB.

        The attribute belongs to the name: it stays when VDIs and snapshots are deleted. After a cancellation it may be
        written or not. Raises RequestFailed.
        """
        message = attributes.write_attribute(vdi, key, value)
        await self.expect_success(message, f"writing attribute '{key}' of VDI '{vdi}'")

    async def create_attribute(self, vdi: str, key: str, value: bytes) -> bool:
        """Create an attribute of the working VDI ``vdi``; give False if the VDI has it already.

        If several clients create the same one at a time, one of them succeeds. Raises RequestFailed.
        """
        request = await self.call(attributes.write_attribute(vdi, key, value, exclusive=True))
        if request.result not in (Result.SUCCESS, Result.VDI_EXIST):
            raise failure(f"writing attribute '{key}' of VDI '{vdi}'", request.result)
        return request.result is Result.SUCCESS

    async def delete_attribute(self, vdi: str, key: str) -> None:
        """Delete an attribute of the working VDI ``vdi``, if it has that. Raises RequestFailed."""
        request = await self.call(attributes.delete_attribute(vdi, key))
        if request.result not in (Result.SUCCESS, Result.NO_OBJ):
            raise failure(f"deleting attribute '{key}' of VDI '{vdi}'", request.result)

    async def is_locked(self, vdi_id: int) -> bool | None:
        """Tell whether a guest has locked a VDI; None where the cluster does not say it.

        This reads only the answer of 1.0. A cluster says it only if it was formatted with locks.
        """
        if self.nodes.gateway.versions.internal != INTERNAL_VERSIONS[0]:
            return None
        capacity = _FIRST_STATES * VDI_STATE_SIZE
        while capacity <= _MAX_STATES:
            request = await self.call(messages.vdi_states(capacity))
            if request.result is Result.SUCCESS:
                return messages.find_lock(request.payload, vdi_id)
            if request.result is not Result.BUFFER_SMALL:
                break
            capacity *= 4
        return None

    async def create_vdi(
        self, name: str, size: int, *, copies: int = 0, block_size_shift: int = 0, store_policy: int = 0
    ) -> int:
        """Create an empty VDI of ``size`` bytes and give its id. Zeros mean the cluster's defaults."""
        message = messages.new_vdi(
            name, size, copies=copies, block_size_shift=block_size_shift, store_policy=store_policy
        )
        return self.vdi_id_of(await self.expect_success(message, f"creating VDI '{name}'"))

    async def create_snapshot(
        self, name: str, tag: str, *, vdi_id: int | None = None, is_tagged_last: bool = False
    ) -> Inode:
        """Make the working VDI a snapshot tagged ``tag``; give the snapshot's inode.

        The tag it has by then is overwritten before it becomes a snapshot, or with ``is_tagged_last`` after that.

        Raises ChangedMeanwhile if the VDI has another id than ``vdi_id``: a snapshot was taken of it before.
        """
        working = await self.find_vdi(name)
        if vdi_id not in (None, working.vdi_id):
            raise ChangedMeanwhile(f"VDI '{name}'", "a snapshot was taken of it, or it was made anew")
        if not is_tagged_last:
            await self.write_tag(working, tag)
        message = messages.new_vdi(
            name,
            working.vdi_size,
            base_vdi_id=working.vdi_id,
            snapshot=True,
            copies=working.nr_copies,
            copy_policy=working.copy_policy,
            store_policy=working.store_policy,
            block_size_shift=working.block_size_shift if self.nodes.gateway.versions.takes_object_sizes else 0,
        )
        await self.expect_success(message, f"taking snapshot '{tag}' of VDI '{name}'")
        if is_tagged_last:
            await self.write_tag(working, tag)
        return await self.read_inode(working.vdi_id)

    async def write_tag(self, inode: Inode, tag: str) -> None:
        """Overwrite the tag of a VDI or snapshot."""
        await self.write_object(
            oid.inode_oid(inode.vdi_id), messages.pack_name(tag), TAG_OFFSET, copies=inode.nr_copies
        )

    async def delete_vdi(self, name: str) -> None:
        """Delete the working VDI ``name``. A server of 1.0 keeps its objects: the caller must remove them before."""
        message = messages.delete_vdi(name, old=self.nodes.gateway.versions.deletes_as_of_old)
        await self.expect_success(message, f"deleting VDI '{name}'")

    async def remove_object(self, object_id: int) -> None:
        """Remove an object if it exists, even if something refers to it."""
        request = await self.call(messages.remove_object(object_id))
        if request.result not in (Result.SUCCESS, Result.NO_OBJ):
            raise failure(f"removing object {object_id:016x}", request.result)


def can_be_named(name: str) -> bool:
    """Tell whether a VDI can have this name."""
    try:
        return bool(name) and bool(messages.pack_name(name))
    except ValueError:
        return False


def _look_up(name: str, snapshot: Snapshot | None) -> Message | None:
    """Build the request that looks a VDI up, or None if no VDI or snapshot can have this name.

    A server would take an empty tag or an id of 0 for the working VDI, so these are never sent.
    """
    if not can_be_named(name) or snapshot in ("", 0):
        return None
    try:
        if isinstance(snapshot, int):
            return messages.vdi_info(name, snapid=snapshot)
        return messages.vdi_info(name, tag=snapshot or "")
    except ValueError:
        return None
