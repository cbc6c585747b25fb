"""A VDI under construction: marked as unfinished until it is complete, and removed if it cannot be completed.

The law of this module:

- The VDI carries the tag ``UNFINISHED_TAG`` from ``mark`` to the end of ``publish``. If this process ends in between,
  even by a kill, the tag stays: ``asyncbackup vdi list`` and ``dog vdi list`` show it.
- ``create`` makes the VDI with a size that it draws by lot, and that needs as many objects as the wanted size. Nobody
  else makes a VDI of that size. So the request can be repeated when nobody knows whether it was carried out: the size
  says whether the VDI that is there came of this call. ``mark`` writes the wanted size together with the tag. A process
  that is killed between ``create`` and ``mark`` leaves an empty VDI without a tag, of an odd number of bytes.
- The owner table names an object before the object is created, never after it. To delete the VDI, with our ``remove``
  or with dog, frees the objects that the table names. So a process that was killed leaves no object that nobody can
  free. Until the end the table may name objects that do not exist yet; a guest would find them missing.
- An inherited entry cannot be restored once it was overwritten: its reference to the object of the base is lost. So an
  object is named ahead only if it will surely be created.
- Only entries that change are written, and empty entries between them. A server of 1.0 resets the reference counts of
  all entries in the range of a write. The count of an inherited object would be lost, and to delete the VDI would then
  remove the object of the base (``gateway_write_obj`` in sheep/gateway.c).
- ``remove`` clears the table last, so that it can be repeated wherever it was interrupted.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import anyio
import numpy as np
from numpy.typing import NDArray

from asyncbackup.client.cluster import Cluster
from asyncbackup.client.fan_out import for_each
from asyncbackup.client.objects import NewObject
from asyncbackup.client.outcome import failure
from asyncbackup.client.request import Request
from asyncbackup.errors import (
    AsyncBackupError,
    ChangedMeanwhile,
    ClusterError,
    ClusterNotReady,
    HyperVolume,
    PerhapsCreated,
    RedundancyUnkeepable,
    RequestFailed,
    SnapshotChanged,
    VdiExists,
    VdiNotFound,
    VdiUnmakeable,
)
from asyncbackup.wire import messages, oid
from asyncbackup.wire.constants import (
    DEFAULT_BLOCK_SIZE_SHIFT,
    MAX_BLOCK_SIZE_SHIFT,
    MAX_DENSE_OBJECTS,
    MIN_BLOCK_SIZE_SHIFT,
    Result,
)
from asyncbackup.wire.inode import SIZE_LENGTH, SIZE_OFFSET, TAG_OFFSET, Inode, Owners, entry_offset
from asyncbackup.wire.messages import Bytes, Message

UNFINISHED_TAG: Final = "unfinished restore"

_LOOK_UP_S: Final = 30.0
"""Seconds to look for a VDI after its creation got no answer, and was given up: a node is missed sooner."""

_ENTRIES_TO_CLEAR: Final = 1024
"""Entries cleared in a request: a server of 1.0 counts down the references of each."""

_LEAST_OBJECT: Final = 1 << MIN_BLOCK_SIZE_SHIFT
_LARGEST_OBJECT: Final = 1 << MAX_BLOCK_SIZE_SHIFT

_OBJECTS_AHEAD: Final = 256
"""Objects named ahead at a time: many objects need few requests, and a restore that fails early named few in vain."""

_ENTRIES_BETWEEN: Final = 1024
"""Empty entries that are written together with those on both sides: 4 KiB cost less than a request."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a new VDI is like. Sizes in bytes; zeros for copies and policy mean the cluster's defaults."""

    size: int
    object_size: int
    copies: int = 0
    copy_policy: int = 0

    def __post_init__(self) -> None:
        if self.object_size.bit_count() != 1 or not _LEAST_OBJECT <= self.object_size <= _LARGEST_OBJECT:
            raise VdiUnmakeable(
                f"an object size that is a power of two, from {_LEAST_OBJECT} to {_LARGEST_OBJECT} bytes",
                f"{self.object_size} bytes",
            )
        if self.size < 1:
            raise VdiUnmakeable("a size of at least 1 byte", f"{self.size} bytes")
        if self.object_count > MAX_DENSE_OBJECTS:
            raise HyperVolume(
                f"a VDI of {self.size} bytes in objects of {self.object_size} bytes", "cannot be restored"
            )

    @property
    def object_count(self) -> int:
        """Data objects that the size spans, the last one perhaps in part."""
        return -(-self.size // self.object_size)


@dataclass(frozen=True, slots=True)
class Parent:
    """The snapshot that a new VDI is a clone of. Only the first ``keep`` entries of its ``owners`` are to stay."""

    inode: Inode
    owners: Owners
    keep: int | None = None


class Construction:
    """A working VDI that is being written to, by one writer: its objects, and the entries of its table."""

    def __init__(
        self, cluster: Cluster, name: str, vdi_id: int, owners: Owners, *, beneath: Owners, expected: Owners | None
    ) -> None:
        """``owners``: the table as it is. ``beneath``: the table as it will be where no object is created.

        ``expected``: the indices of all objects that will be created, ascending, u32 each; None if they are not known.
        """
        self.name = name
        self.vdi_id = vdi_id
        self._inode: Inode | None = None
        self._cluster = cluster
        self._owners = owners
        self._beneath = beneath
        self._expected = np.zeros(0, np.uint32) if expected is None else expected
        self._named = 0
        """How many of the expected objects the table surely names, from the first one on."""
        self._awaited: set[int] = set()
        self._naming = anyio.Lock()
        self._created = np.zeros(len(owners), bool)

    @classmethod
    def onto(
        cls, cluster: Cluster, inode: Inode, owners: Owners, *, beneath: Owners, expected: Owners | None
    ) -> Construction:
        """Take the working VDI ``inode``, whose table is ``owners``, to write objects over those of ``beneath``.

        If the VDI owns objects itself, an interrupted run wrote them, and this run writes them again.
        """
        found = cls(cluster, inode.name, inode.vdi_id, owners.copy(), beneath=beneath, expected=expected)
        found._inode = inode
        return found

    @property
    def inode(self) -> Inode:
        """The inode as it was found or made. The inode of a new VDI is known after ``mark``."""
        assert self._inode is not None
        return self._inode

    def in_flight_limit(self) -> int:
        """Give how many bytes may be under way to the cluster now."""
        return self._cluster.in_flight_limit()

    async def create_object(self, idx: int, data: Bytes, offset: int) -> None:
        """Create an object as ``create_objects`` does."""
        await self.create_objects([(idx, data, offset)])

    async def create_objects(self, objects: Sequence[tuple[int, Bytes, int]]) -> None:
        """Create objects together: of each its idx, data, and where in the object that stands.

        The other bytes of an object come from the base. The table names it before it is created.
        """
        indices = [idx for idx, _, _ in objects]
        await self._name(indices)
        self._created[indices] = True
        new = [
            NewObject(oid.data_oid(self.vdi_id, idx), data, offset, self._cow_oid(idx, data))
            for idx, data, offset in objects
        ]
        await self._cluster.create_objects(new, copies=self.inode.nr_copies, policy=self.inode.copy_policy)

    def _cow_oid(self, idx: int, data: Bytes) -> int:
        """Say which object of the base has the bytes that ``data`` has not; 0: none.

        If the data covers the object, no base is named: a server of 1.0 then does not copy the object in memory.
        """
        beneath = int(self._beneath[idx])
        return oid.data_oid(beneath, idx) if beneath and len(data) < self.inode.object_size else 0

    async def _name(self, wanted: list[int]) -> None:
        """Let the table name the objects ``wanted``, others that wait for that, and those that come next."""
        if np.all(self._owners[wanted] == self.vdi_id):
            return
        self._awaited.update(wanted)
        async with self._naming:
            if np.all(self._owners[wanted] == self.vdi_id):
                return
            awaited = np.array(sorted(self._awaited), np.uint32)
            self._awaited.clear()
            # From the first one that is not named yet, although a later one may be ready before it.
            next_ = self._expected[self._named : self._named + _OBJECTS_AHEAD]
            indices = np.union1d(awaited, next_)
            await self._set_entries(indices[self._owners[indices] != self.vdi_id], self.vdi_id)
            self._named += len(next_)

    async def name_objects(self, indices: NDArray[np.uint32]) -> None:
        """Let the table name objects, ascending, that another process will surely create after this."""
        async with self._naming:
            for start in range(0, len(indices), _OBJECTS_AHEAD):
                part = indices[start : start + _OBJECTS_AHEAD]
                await self._set_entries(part[self._owners[part] != self.vdi_id], self.vdi_id)

    def note_created(self, indices: NDArray[np.uint32]) -> None:
        """Take note that another process created objects."""
        self._created[indices] = True

    async def lay_out(self) -> None:
        """Let the table be as it will be at the end. Others will surely create all objects that are expected.

        After this nobody needs to write the table. A late write there could do harm, even the same bytes: a server of
        1.0 would forget that other VDIs refer to the objects.
        """
        await self.name_objects(self._expected)
        self.note_created(self._expected)
        await self.settle()

    async def write_object(self, idx: int, data: Bytes, offset: int) -> None:
        """Write more bytes of an object that ``create_object`` created."""
        await self._cluster.write_object(
            oid.data_oid(self.vdi_id, idx),
            data,
            offset,
            copies=self.inode.nr_copies,
            policy=self.inode.copy_policy,
        )

    async def settle(self) -> None:
        """Clear the entries of objects that the VDI does not have any more. All its own objects must be created before.

        Raises ChangedMeanwhile if an object was expected and named, but not created.
        """
        ours = self._owners == self.vdi_id
        if len(missing := np.flatnonzero(ours & ~self._created)):
            raise ChangedMeanwhile("a backup", f"it does not have object {missing[0]} any more")
        await self._set_entries(np.flatnonzero(~ours & (self._owners != self._beneath)), 0)

    async def resize(self, size: int) -> None:
        """Change the size of the VDI to ``size`` bytes. Its table does not change."""
        await self._write_inode(SIZE_OFFSET, size.to_bytes(SIZE_LENGTH, "little"))

    async def _set_entries(self, indices: NDArray[np.integer], owner: int) -> None:
        """Write ``owner`` into the entries at ``indices``, ascending."""

        async def write(run: NDArray[np.integer]) -> None:
            start, stop = int(run[0]), int(run[-1]) + 1
            # The entries in between are empty, and stay so.
            entries = np.zeros(stop - start, "<u4")
            entries[run - start] = owner
            await self._write_inode(entry_offset(start), entries.tobytes())

        if len(indices):
            await for_each(self._runs(indices), write)
            self._owners[indices] = owner

    def _runs(self, indices: NDArray[np.integer]) -> list[NDArray[np.integer]]:
        """Divide ``indices`` where an entry that names an owner lies between two of them, or where many entries lie."""
        first = int(indices[0])
        owned = self._owners[first : int(indices[-1]) + 1] != 0
        owned[indices - first] = False
        owned_before = np.cumsum(owned)[indices - first]
        ends = (np.diff(owned_before) != 0) | (np.diff(indices) > _ENTRIES_BETWEEN)
        return np.split(indices, np.flatnonzero(ends) + 1)

    async def _write_inode(self, offset: int, data: Bytes) -> None:
        await self._cluster.write_object(
            oid.inode_oid(self.vdi_id),
            data,
            offset,
            copies=self.inode.nr_copies,
            policy=self.inode.copy_policy,
        )


class NewVdi(Construction):
    """A VDI that nobody else uses yet. Made by ``create``."""

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        vdi_id: int,
        shape: Shape | None = None,
        *,
        sent: Shape | None = None,
        parent: Parent | None = None,
        expected: Owners | None = None,
    ) -> None:
        """``sent``: the shape that the cluster was asked for. ``mark`` makes it ``shape``."""
        inherited = parent.owners if parent else np.zeros(0, np.uint32)
        object_count = shape.object_count if shape else MAX_DENSE_OBJECTS
        owners = np.zeros(max(object_count, len(inherited)), np.uint32)
        owners[: len(inherited)] = inherited
        beneath = owners.copy()
        if parent and parent.keep is not None:
            beneath[parent.keep :] = 0
        super().__init__(cluster, name, vdi_id, owners, beneath=beneath, expected=expected)
        self.is_marked = False
        """Whether the VDI has its tag."""
        self._shape = shape
        self._sent = sent
        self._parent = parent

    @classmethod
    async def create(
        cls,
        cluster: Cluster,
        name: str,
        shape: Shape,
        parent: Parent | None = None,
        expected: Owners | None = None,
    ) -> NewVdi:
        """Make VDI ``name``, fresh or as a clone of ``parent``. As far as the caller knows, nothing has this name yet.

        Until ``mark`` the VDI has another size. ``expected``: the indices of all objects that will be created,
        ascending, u32 each; None if they are not known.

        Raises VdiExists, VdiUnmakeable, RedundancyUnkeepable, and RequestFailed if the VDI was not made. Raises
        PerhapsCreated if no answer came, and the cluster has no such VDI or does not say it: a node may still hold the
        request, and carry it out later.

        After a cancellation the VDI may be made or not, so the caller should shield this.
        """
        sent = _recognizable(shape)
        vdi_id = await _make(cluster, name, sent, parent)
        return cls(cluster, name, vdi_id, shape, sent=sent, parent=parent, expected=expected)

    @classmethod
    async def adopt(
        cls, cluster: Cluster, inode: Inode, shape: Shape, parent: Parent | None, *, expected: Owners, done: int
    ) -> NewVdi:
        """Take the unfinished VDI of another run, to complete it. All its objects up to index ``done`` are written.

        Other objects may exist, but may be incomplete. They are created again.
        """
        found = cls(cluster, inode.name, inode.vdi_id, shape, parent=parent, expected=expected)
        found._inode, found.is_marked = inode, True
        found._owners = (await cluster.read_owners(inode.vdi_id, len(found._owners))).copy()
        found._created = found._owners == inode.vdi_id
        found._created[done + 1 :] = False
        return found

    @classmethod
    def of(cls, cluster: Cluster, inode: Inode) -> NewVdi:
        """Take the unfinished VDI of another process, to ``remove`` it."""
        left = cls(cluster, inode.name, inode.vdi_id)
        left._inode = inode
        return left

    async def check_inherited(self) -> None:
        """Raise SnapshotChanged if the clone has other owners than its parent had: then the parent was deleted.

        Call it before the first object is created.
        """
        if self._parent is None:
            return
        owners = await self._cluster.read_owners(self.vdi_id, len(self._owners))
        differing = int(np.count_nonzero(owners != self._owners))
        if differing:
            raise SnapshotChanged(
                str(self._parent.inode),
                f"its clone has {differing} other objects than it had when its table was read",
            )

    async def mark(self) -> None:
        """Tag the VDI as unfinished, and give it its size. Raises VdiUnmakeable if the cluster made another one."""
        assert self._shape is not None
        assert self._sent is not None
        made = self._inode = await self._cluster.read_inode(self.vdi_id)
        sent = self._sent
        if (sent.size, sent.object_size) != (made.vdi_size, made.object_size):
            raise VdiUnmakeable(
                f"VDI '{self.name}' of {sent.size} bytes in objects of {sent.object_size}",
                f"{made.vdi_size} bytes in objects of {made.object_size}",
            )
        marked = replace(made, tag=UNFINISHED_TAG, vdi_size=self._shape.size)
        # One write: there is no VDI with the tag and a wrong size, which another run could go on with.
        await self._write_inode(TAG_OFFSET, marked.pack()[TAG_OFFSET : SIZE_OFFSET + SIZE_LENGTH])
        self._inode = marked
        self.is_marked = True

    async def publish(self) -> None:
        """Clear the entries that must not stay, as ``settle`` does, and remove the tag.

        Raises ChangedMeanwhile if an object was expected and named, but not created, or if somebody removed the VDI.
        """
        await self.complete()
        await self._write_inode(TAG_OFFSET, messages.pack_name(""))

    async def complete(self) -> None:
        """Do what ``publish`` does before it removes the tag, and raise what it raises."""
        await self.settle()
        found = await self._cluster.read_inode(self.vdi_id)
        if not is_unfinished(found) or found.name != self.name:
            raise ChangedMeanwhile(f"VDI '{self.name}'", "it is not the unfinished restore that was made here")

    async def remove(self, cluster: Cluster) -> None:
        """Delete the VDI and all its own objects through ``cluster``, whose connections must work.

        Raises RequestFailed if something stays, and ClusterError. After a cancellation or an error it can be repeated.
        """
        self._cluster = cluster
        if self._inode is None:
            self._inode = await cluster.read_inode(self.vdi_id)
        table = await cluster.read_owners(self.vdi_id, len(self._owners))
        # If somebody else deleted the VDI meanwhile, the table is empty, and our last objects were created after that.
        ours = np.flatnonzero((table == self.vdi_id) | self._created)
        await for_each(ours.tolist(), self._remove_object)
        await for_each(self._entries_in_use(table), self._clear_entries)
        await self._delete()

    async def _delete(self) -> None:
        """Delete the VDI. If no answer comes, look whether it is gone, and ask once more if it is not."""
        try:
            await self._delete_if_there()
        except ClusterError:
            await self._delete_if_there()

    async def _delete_if_there(self) -> None:
        # Deletion goes by name. Somebody else may have deleted the VDI meanwhile, or made another one of this name.
        try:
            if (await self._cluster.find_vdi(self.name)).vdi_id != self.vdi_id:
                return
        except VdiNotFound:
            return
        await self._cluster.delete_vdi(self.name)

    def _entries_in_use(self, owners: Owners) -> Iterable[tuple[int, int]]:
        for start in range(0, len(owners), _ENTRIES_TO_CLEAR):
            used = np.flatnonzero(owners[start : start + _ENTRIES_TO_CLEAR])
            if len(used):
                yield start + int(used[0]), start + int(used[-1]) + 1

    async def _clear_entries(self, run: tuple[int, int]) -> None:
        start, stop = run
        await self._write_inode(entry_offset(start), bytes(4 * (stop - start)))

    async def _remove_object(self, idx: int) -> None:
        # It may not exist: its creation may have failed, or may never have begun.
        await self._cluster.remove_object(oid.data_oid(self.vdi_id, idx))


def is_unfinished(inode: Inode) -> bool:
    """Tell whether a restore is making this VDI, or left it unfinished."""
    return inode.tag == UNFINISHED_TAG and not inode.is_snapshot and not inode.is_hyper


def may_be_new(inode: Inode) -> bool:
    """Tell whether a restore may have created this VDI a moment ago, and not have tagged it yet: its size is odd."""
    return not inode.tag and not inode.is_snapshot and inode.vdi_size % 2 == 1


def _recognizable(shape: Shape) -> Shape:
    """Draw another size by lot, which needs as many objects. It is odd, as the sizes of guests' disks are not."""
    least = (shape.object_count - 1) * shape.object_size + 1
    size = shape.size
    while size == shape.size:
        size = least + 2 * secrets.randbelow(shape.object_size // 2)
    return replace(shape, size=size)


async def _make(cluster: Cluster, name: str, sent: Shape, parent: Parent | None) -> int:
    """Make VDI ``name`` of the shape ``sent``, which nobody else sends, and give its id. Raises as ``create`` does."""
    request = Request(_creation(cluster, name, sent, parent))
    failed: AsyncBackupError
    try:
        await cluster.router.call([request], cluster.counts)
        if request.result is Result.SUCCESS:
            return cluster.vdi_id_of(request)
        failed = failure(f"creating VDI '{name}'", request.result)
    except ClusterError as error:
        if isinstance(error, ClusterNotReady) and not request.repeats:
            raise
        failed = error
    else:
        if request.result is Result.VDI_EXIST and not request.repeats:
            raise VdiExists(name)
    return await _find_made(cluster, name, sent, failed)


async def _find_made(cluster: Cluster, name: str, sent: Shape, failed: AsyncBackupError) -> int:
    """Find out whether a creation that ``failed`` made a VDI nevertheless, and give its id.

    Raises VdiExists if there is another VDI of this name; ``failed`` or, if no answer came, PerhapsCreated if there is
    none.
    """
    was_answered = isinstance(failed, RequestFailed)
    try:
        with anyio.fail_after(math.inf if was_answered else _LOOK_UP_S):
            found = await cluster.find_vdi(name)
    except VdiNotFound:
        if was_answered:
            raise failed from None
        raise PerhapsCreated(name, str(failed), "a node may still carry out its creation") from failed
    except (AsyncBackupError, TimeoutError) as error:
        reason = str(error) or f"looking for it took longer than {_LOOK_UP_S:g} s"
        raise PerhapsCreated(name, str(failed), reason) from failed
    if (found.vdi_size, found.object_size) != (sent.size, sent.object_size):
        raise VdiExists(name) from failed
    return found.vdi_id


def _creation(cluster: Cluster, name: str, shape: Shape, parent: Parent | None) -> Message:
    shift = shape.object_size.bit_length() - 1
    if not cluster.nodes.gateway.versions.takes_object_sizes:
        if shift != DEFAULT_BLOCK_SIZE_SHIFT:
            raise VdiUnmakeable(
                f"objects of {1 << DEFAULT_BLOCK_SIZE_SHIFT} bytes, which are all that this cluster knows",
                f"{shape.object_size} bytes",
            )
        shift = 0
    if shape.copy_policy and not cluster.nodes.gateway.versions.takes_copy_policies:
        raise RedundancyUnkeepable(shape.copies, shape.copy_policy)
    return messages.new_vdi(
        name,
        shape.size,
        base_vdi_id=parent.inode.vdi_id if parent else 0,
        copies=shape.copies,
        copy_policy=shape.copy_policy,
        block_size_shift=shift,
    )
