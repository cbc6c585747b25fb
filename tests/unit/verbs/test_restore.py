"""What a restore makes, and what it refuses before it writes."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
import numpy as np
import pytest

from asyncbackup import (
    BaseSnapshot,
    ChainOptions,
    Cluster,
    Dialect,
    Progress,
    Volume,
    WindowOptions,
    backup,
    connect,
    export,
    restore,
)
from asyncbackup.client.construction import UNFINISHED_TAG
from asyncbackup.engine import removal
from asyncbackup.engine.lineage import read_origin
from asyncbackup.errors import (
    BackupDamaged,
    BaseMismatch,
    BaseUnnamed,
    BaseUnproved,
    BaseUnwanted,
    ChangedMeanwhile,
    DigestMismatch,
    FactMissing,
    HalfRolled,
    HyperVolume,
    LeftUnfinished,
    ObjectSizesDiffer,
    OutsideVdi,
    PerhapsCreated,
    RedundancyUnkeepable,
    RequestFailed,
    ResizeUnproved,
    SnapshotNotFound,
    SourceUnreadable,
    UnfinishedExists,
    VdiExists,
    VdiUnmakeable,
    WrongSnapshot,
)
from asyncbackup.format import RecordHeader
from asyncbackup.format.identity import Identity, time_text
from asyncbackup.format.replica import Origin
from asyncbackup.sheep import Fault, MemoryStore, Release, Sheep
from asyncbackup.sheep.volumes import owners_of
from asyncbackup.storage.image import marker_path, state_path
from asyncbackup.storage.publication import manifest_path
from asyncbackup.wire import messages
from asyncbackup.wire.constants import SECTOR_SIZE, Flag, Opcode, Result
from asyncbackup.wire.inode import TABLE_OFFSET, TAG_OFFSET
from asyncbackup.wire.messages import ObjectBody, RequestHeader, VdiBody
from asyncbackup.wire.oid import INODE_BIT, data_oid, index_of, inode_oid, is_data, vdi_of
from tests.chains import say_what_it_is
from tests.disks import OBJECT, OBJECTS, SHIFT, make_disk, noise
from tests.property.test_export_merge import Discard, Resize, Step, Write, go, live
from tests.property.test_restore import working_image
from tests.streams import standard_input


@dataclass
class Backed:
    """A disk, its full backup of snapshot a, and its increment from a to b."""

    store: MemoryStore
    cluster: Cluster
    sheep: Sheep
    requests: list[RequestHeader]
    full: Path
    increment: Path

    @property
    def files(self) -> list[Path]:
        return [self.full, self.increment]

    def offsets_written(self, vdi_id: int) -> list[int]:
        """Give the offsets in an inode that were written to."""
        bodies = [ObjectBody.unpack(each.body) for each in self.requests if each.opcode == Opcode.WRITE_OBJ]
        return [body.offset for body in bodies if body.oid & INODE_BIT and vdi_of(body.oid) == vdi_id]


@pytest.fixture
async def backed(tmp_path: Path) -> AsyncIterator[Backed]:
    requests: list[RequestHeader] = []
    store = MemoryStore()
    async with Sheep(store, on_request=requests.append) as sheep, connect(sheep.host, sheep.port) as cluster:
        await make_disk(cluster)
        full, increment = tmp_path / "full", tmp_path / "increment"
        await backup(cluster, "disk", full, snapshot="a")
        await backup(cluster, "disk", increment, snapshot="b", base="a")
        requests.clear()
        sheep.requests.clear()
        yield Backed(store, cluster, sheep, requests, full, increment)


@asynccontextmanager
async def failing(
    store: MemoryStore, *faults: str, on_request: Callable[[RequestHeader], None] | None = None
) -> AsyncIterator[tuple[Sheep, Cluster]]:
    """Serve what is there once more, with faults."""
    script = [Fault.parse(fault) for fault in faults]
    async with (
        Sheep(store, faults=script, on_request=on_request) as sheep,
        connect(sheep.host, sheep.port) as cluster,
    ):
        yield sheep, cluster


def of_sectors(*indices: int) -> bytes:
    """Make a backup that has the first sector of some objects."""
    records = b"".join(RecordHeader(idx, 0, SECTOR_SIZE).encode() + noise(idx, SECTOR_SIZE) for idx in indices)
    return Dialect.DOG.opening + records + Dialect.DOG.ending


def without_manifest(*files: Path) -> None:
    for file in files:
        manifest_path(file).unlink()


async def test_a_full_backup_becomes_a_vdi_of_the_same_size(backed: Backed) -> None:
    summary = await restore(backed.cluster, [backed.full], "new")

    inode = await backed.cluster.find_vdi("new")
    assert (inode.vdi_size, inode.object_size, inode.tag) == (OBJECTS * OBJECT, OBJECT, "")
    assert (summary.base, summary.checked, summary.objects_done) == (None, True, 5)
    assert summary.vdi_id == f"{inode.vdi_id:x}"


async def test_the_owner_table_of_a_fresh_vdi_is_written_in_one_piece_ahead_of_all_objects(backed: Backed) -> None:
    summary = await restore(backed.cluster, backed.files, "new")

    offsets = backed.offsets_written(int(summary.vdi_id, 16))
    assert offsets == [TAG_OFFSET, TABLE_OFFSET, TAG_OFFSET]
    kinds = [each.opcode for each in backed.requests if each.opcode in {Opcode.CREATE_AND_WRITE_OBJ, Opcode.WRITE_OBJ}]
    created = kinds.count(Opcode.CREATE_AND_WRITE_OBJ)
    assert kinds == [Opcode.WRITE_OBJ, Opcode.WRITE_OBJ, *[Opcode.CREATE_AND_WRITE_OBJ] * created, Opcode.WRITE_OBJ]


async def test_the_vdi_says_which_snapshot_it_equals_before_it_loses_its_mark(backed: Backed) -> None:
    summary = await restore(backed.cluster, backed.files, "new")

    inode = await backed.cluster.find_vdi("new")
    value = await backed.cluster.read_attribute(inode, f"asyncbackup.origin.{inode.vdi_id:x}")
    assert value is not None
    identity = await backed.cluster.identify(await backed.cluster.find_vdi("disk", "b"))
    assert Origin.decode(value) == Origin(
        identity, inode.vdi_size, str(time_text(inode.create_time)), None, assumed=False
    )
    assert (summary.origin, summary.origin_missing) == (str(identity), None)
    opcodes = [request.opcode for request in backed.requests]
    # The last write takes off the mark.
    assert opcodes.index(Opcode.GET_VDI_ATTR) < max(at for at, code in enumerate(opcodes) if code == Opcode.WRITE_OBJ)


async def test_a_cluster_that_takes_no_attributes_is_restored_to_nevertheless(backed: Backed) -> None:
    async with failing(backed.store, "get_vdi_attr@1+:error=NO_SUPPORT") as (_, cluster):
        summary = await restore(cluster, backed.files, "new")

        assert (await cluster.find_vdi("new")).tag == ""
    assert summary.origin is None
    assert "writing attribute 'asyncbackup.origin." in str(summary.origin_missing)


async def test_a_vdi_that_no_manifest_knows_says_nothing_of_itself(backed: Backed) -> None:
    without_manifest(backed.full)
    summary = await restore(
        backed.cluster, [backed.full], "new", chain_options=ChainOptions(object_size=OBJECT, size=OBJECTS * OBJECT)
    )

    assert (summary.origin, summary.origin_missing) == (
        None,
        f"no manifest says which snapshot of {OBJECTS * OBJECT} bytes it is",
    )
    asked = [request for request in backed.requests if request.opcode == Opcode.GET_VDI_ATTR]
    assert not any(request.flags & Flag.ATTR_CREATE for request in asked)


async def test_a_vdi_of_another_size_than_the_snapshot_says_nothing_of_itself(backed: Backed) -> None:
    larger = ChainOptions(size=2 * OBJECTS * OBJECT)

    assert (await restore(backed.cluster, backed.files, "new", chain_options=larger)).origin is None


async def test_what_was_assumed_of_the_base_is_said(backed: Backed) -> None:
    without_manifest(backed.full)
    await restore(
        backed.cluster,
        backed.files,
        "new",
        assume_base=True,
        chain_options=ChainOptions(object_size=OBJECT, size=OBJECTS * OBJECT),
    )

    origin = await read_origin(backed.cluster, await backed.cluster.find_vdi("new"))
    assert origin is not None
    assert origin.assumed


async def test_a_snapshot_of_a_restored_vdi_is_no_base_unless_somebody_vouches_for_it(backed: Backed) -> None:
    await restore(backed.cluster, [backed.full], "new")
    await backed.cluster.create_snapshot("new", "later")
    base = BaseSnapshot(backed.cluster, "later", "new")

    with pytest.raises(BaseUnproved, match=r"it may have been written to between its restore as .* and the snapshot"):
        await restore(backed.cluster, [backed.increment], "newer", base=base)

    summary = await restore(backed.cluster, [backed.increment], "newer", base=base, assume_base=True)
    assert await working_image(backed.cluster, "newer") == await working_image(backed.cluster, "disk")
    assert summary.assumed is not None


class Ownership:
    """Watches a server: which objects came when the table did not name them, and how many it names ahead."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.created = 0
        self.unnamed: list[int] = []
        self.most_ahead = 0

    def __call__(self, request: RequestHeader) -> None:
        if request.opcode != Opcode.CREATE_AND_WRITE_OBJ:
            return
        oid = ObjectBody.unpack(request.body).oid
        inode = self.store.get(inode_oid(vdi_of(oid)))
        assert inode is not None
        named = np.flatnonzero(owners_of(inode) == vdi_of(oid)).tolist()
        if index_of(oid) not in named:
            self.unnamed.append(index_of(oid))
        self.most_ahead = max(self.most_ahead, len(named) - self.created)
        self.created += 1


@pytest.mark.parametrize("memory", [1 << 20, 128 << 20])
async def test_every_object_is_named_before_it_is_created(backed: Backed, memory: int) -> None:
    watch, options = Ownership(backed.store), WindowOptions(memory=memory)
    async with failing(backed.store, on_request=watch) as (_, cluster):
        await restore(cluster, backed.files, "new", options=options)
        await restore(cluster, [backed.increment], "clone", base=BaseSnapshot(cluster, "a"), options=options)

    assert watch.created == 7 + 5
    assert not watch.unnamed


async def test_of_a_pipe_only_objects_that_have_come_are_named(backed: Backed) -> None:
    count, in_flight = 40, 3
    watch = Ownership(backed.store)
    async with failing(backed.store, on_request=watch) as (_, cluster):
        with standard_input(of_sectors(*range(0, 2 * count, 2))):
            await restore(
                cluster,
                ["-"],
                "new",
                chain_options=ChainOptions(Dialect.DOG, OBJECT, 2 * count * OBJECT),
                options=WindowOptions(workers=in_flight),
            )
        inode = await cluster.find_vdi("new")
        owners = (await cluster.read_owners(inode.vdi_id, 2 * count)).tolist()

    assert watch.created == count
    assert not watch.unnamed
    assert watch.most_ahead <= in_flight
    assert owners == [inode.vdi_id, 0] * count


async def test_of_a_clone_only_changed_entries_are_written(backed: Backed) -> None:
    summary = await restore(backed.cluster, [backed.increment], "clone", base=BaseSnapshot(backed.cluster, "a"))

    entries = [offset for offset in backed.offsets_written(int(summary.vdi_id, 16)) if offset >= TABLE_OFFSET]
    # Objects 1 to 3 in one run, 5 and 6 in another: 0 and 4 stay the base's.
    assert sorted(entries) == [TABLE_OFFSET + 4 * 1, TABLE_OFFSET + 4 * 5]
    inode = await backed.cluster.find_vdi("clone")
    base = await backed.cluster.find_vdi("disk", "a")
    owners = (await backed.cluster.read_owners(inode.vdi_id, OBJECTS)).tolist()
    own, inherited = inode.vdi_id, base.vdi_id
    assert owners == [inherited, own, own, own, inherited, own, own, 0]
    assert inode.parent_vdi_id == base.vdi_id


async def test_what_an_increment_grew_is_restored_on_its_base(tmp_path: Path) -> None:
    async with Sheep(MemoryStore()) as sheep, connect(sheep.host, sheep.port) as cluster:
        whole = Write(0, 3 * OBJECT // SECTOR_SIZE, 1)
        tags = await live(cluster, OBJECT, [[whole], [Resize(3 * OBJECT), whole]])
        way = await go(cluster, tmp_path, tags, Dialect.COLLIE, WindowOptions())

        await restore(cluster, way.files[1:], "grown", base=BaseSnapshot(cluster, tags[0]))

        assert await working_image(cluster, "grown") == way.images[-1]


async def test_what_was_behind_the_end_in_between_is_not_the_base_s(tmp_path: Path) -> None:
    async with Sheep(MemoryStore()) as sheep, connect(sheep.host, sheep.port) as cluster:
        sectors = OBJECT // SECTOR_SIZE
        history: list[list[Step]] = [
            [Write(0, sectors, 1)],
            [Resize(3 * OBJECT), Write(sectors, 2 * sectors, 2)],
            [Write(sectors, sectors // 2, 0), Discard(2)],
        ]
        small, base, last = await live(cluster, OBJECT, history)
        way = await go(cluster, tmp_path, [base, small, last], Dialect.COLLIE, WindowOptions())

        await restore(cluster, way.files[1:], "clone", base=BaseSnapshot(cluster, base))

        assert await working_image(cluster, "clone") == way.images[-1]


def as_dog_reads_it(image: Path, identity: Identity) -> Path:
    """Write out the holes of an image, and say what it is."""
    content = image.read_bytes()
    image.unlink()
    image.write_bytes(content)
    say_what_it_is(image, identity)
    return image


def filled_in(content: Path | bytes) -> list[bool]:
    """Tell of each object of a disk whether it has anything but zeros."""
    content = content.read_bytes() if isinstance(content, Path) else content
    return [bool(content[idx * OBJECT : (idx + 1) * OBJECT].strip(b"\0")) for idx in range(OBJECTS)]


@pytest.fixture
async def image(backed: Backed, tmp_path: Path) -> Path:
    """An image of snapshot a, with holes."""
    await export([backed.full], tmp_path / "image")
    return tmp_path / "image"


@pytest.mark.parametrize("has_holes", [True, False])
@pytest.mark.parametrize("memory", [1 << 20, 128 << 20])
async def test_an_increment_on_an_image_of_its_base_becomes_a_fresh_vdi(
    backed: Backed, image: Path, memory: int, *, has_holes: bool
) -> None:
    if not has_holes:
        as_dog_reads_it(image, await backed.cluster.identify(await backed.cluster.find_vdi("disk", "a")))
    told: list[Progress] = []

    summary = await restore(
        *(backed.cluster, [backed.increment], "new"),
        base=image,
        options=WindowOptions(memory=memory),
        on_progress=told.append,
    )

    content = await working_image(backed.cluster, "disk")
    assert await working_image(backed.cluster, "new") == content
    inode = await backed.cluster.find_vdi("new")
    owners = (await backed.cluster.read_owners(inode.vdi_id, OBJECTS)).tolist()
    filled = [below or above for below, above in zip(filled_in(image), filled_in(content), strict=True)]
    assert owners == [inode.vdi_id if has_any else 0 for has_any in filled]
    assert 0 in owners
    assert (inode.parent_vdi_id, inode.tag) == (0, "")
    assert (summary.base, summary.base_image, summary.assumed) == (None, str(image), None)
    assert summary.objects_done == sum(filled)
    assert (told[-1].objects_done, told[-1].objects_planned) == (sum(filled), sum(filled))
    assert told[-1].bytes_done == summary.bytes_written
    assert any(each.is_checking and each.objects_planned == OBJECTS for each in told)


async def test_a_piped_increment_goes_on_an_image_too(backed: Backed, image: Path) -> None:
    options = ChainOptions(manifests=[manifest_path(backed.increment)])

    with standard_input(backed.increment):
        await restore(backed.cluster, ["-"], "new", base=image, chain_options=options)

    assert await working_image(backed.cluster, "new") == await working_image(backed.cluster, "disk")


async def test_the_table_names_what_an_image_has_ahead(backed: Backed, image: Path) -> None:
    options = WindowOptions(workers=1)

    summary = await restore(backed.cluster, [backed.increment], "new", base=image, options=options)

    assert backed.offsets_written(int(summary.vdi_id, 16)) == [TAG_OFFSET, TABLE_OFFSET, TAG_OFFSET]


async def test_an_image_that_nothing_proves_is_taken_only_if_somebody_vouches_for_it(
    backed: Backed, image: Path
) -> None:
    state_path(image).unlink()

    with pytest.raises(BaseUnproved, match="no state beside it"):
        await restore(backed.cluster, [backed.increment], "new", base=image)
    assert not backed.sheep.requests[Opcode.NEW_VDI]
    summary = await restore(backed.cluster, [backed.increment], "new", base=image, assume_base=True)

    assert summary.assumed is not None
    assert await working_image(backed.cluster, "new") == await working_image(backed.cluster, "disk")


async def test_an_image_of_another_snapshot_is_refused_before_a_vdi_is_made(backed: Backed, image: Path) -> None:
    await export(backed.files, image, replace=True)

    with pytest.raises(WrongSnapshot, match=r"expected snapshot 1 'a' of VDI 'disk' .*got snapshot 2 'b' of VDI"):
        await restore(backed.cluster, [backed.increment], "new", base=image, assume_base=True)

    assert not backed.sheep.requests[Opcode.NEW_VDI]


async def test_a_half_rolled_image_is_no_base_of_a_restore(backed: Backed, image: Path) -> None:
    marker_path(image).write_bytes(b"")

    with pytest.raises(HalfRolled):
        await restore(backed.cluster, [backed.increment], "new", base=image, assume_base=True)

    assert not backed.sheep.requests[Opcode.NEW_VDI]


async def test_an_image_that_does_not_hold_what_the_manifest_says_is_refused(backed: Backed, image: Path) -> None:
    with image.open("r+b") as file:
        file.seek(OBJECT)
        file.write(noise(99, SECTOR_SIZE))

    with pytest.raises(BaseMismatch, match="image does not hold at object 1 "):
        await restore(backed.cluster, [backed.increment], "new", base=image, assume_base=True)

    assert not await backed.cluster.has_vdi("new")


async def test_an_image_of_another_size_than_increments_without_manifests_is_refused(
    backed: Backed, image: Path
) -> None:
    without_manifest(backed.increment)
    options = ChainOptions(object_size=OBJECT, size=OBJECTS * OBJECT + OBJECT)

    with pytest.raises(ResizeUnproved, match="no manifest says that the VDI did"):
        await restore(backed.cluster, [backed.increment], "new", base=image, assume_base=True, chain_options=options)


async def test_an_object_of_an_image_that_lies_behind_the_end_is_refused(backed: Backed, image: Path) -> None:
    last = len(filled_in(image)) - 1 - filled_in(image)[::-1].index(True)

    with pytest.raises(OutsideVdi):
        await restore(
            *(backed.cluster, [backed.increment], "new"),
            base=image,
            chain_options=ChainOptions(size=last * OBJECT),
        )

    assert not backed.sheep.requests[Opcode.NEW_VDI]


async def test_an_image_that_is_written_to_meanwhile_leaves_no_vdi(backed: Backed, image: Path) -> None:
    def write(progress: Progress) -> None:
        if not progress.is_checking:
            os.utime(image, ns=(0, 0))

    with pytest.raises(SourceUnreadable, match="somebody wrote to it"):
        await restore(backed.cluster, [backed.increment], "new", base=image, on_progress=write)

    assert not await backed.cluster.has_vdi("new")


async def test_a_base_in_another_cluster_is_refused(backed: Backed) -> None:
    async with connect(backed.sheep.host, backed.sheep.port) as other:
        with pytest.raises(ValueError, match="in the cluster that is restored to"):
            await restore(backed.cluster, [backed.increment], "new", base=BaseSnapshot(other, "a"))


async def test_what_was_behind_the_end_in_between_is_not_the_image_s(tmp_path: Path) -> None:
    async with Sheep(MemoryStore()) as sheep, connect(sheep.host, sheep.port) as cluster:
        sectors = OBJECT // SECTOR_SIZE
        history: list[list[Step]] = [
            [Write(0, sectors, 1)],
            [Resize(3 * OBJECT), Write(sectors, 2 * sectors, 2)],
            [Write(sectors, sectors // 2, 0), Discard(2)],
        ]
        small, base, last = await live(cluster, OBJECT, history)
        way = await go(cluster, tmp_path, [base, small, last], Dialect.COLLIE, WindowOptions())
        await export(way.files[:1], tmp_path / "image")

        await restore(cluster, way.files[1:], "new", base=tmp_path / "image")

        assert await working_image(cluster, "new") == way.images[-1]
        made = await cluster.find_vdi("new")
        assert (await cluster.read_owners(made.vdi_id, 3)).tolist() == [made.vdi_id, made.vdi_id, 0]


async def test_the_vdi_is_marked_before_its_first_object(backed: Backed) -> None:
    await restore(backed.cluster, [backed.full], "new")

    kinds = [(each.opcode, ObjectBody.unpack(each.body).offset) for each in backed.requests]
    assert kinds.index((Opcode.WRITE_OBJ, TAG_OFFSET)) < min(
        place for place, (opcode, _) in enumerate(kinds) if opcode == Opcode.CREATE_AND_WRITE_OBJ
    )


@pytest.mark.parametrize("memory", [1 << 20, 128 << 20])
async def test_pieces_of_objects_make_the_same_vdi(backed: Backed, memory: int) -> None:
    await restore(backed.cluster, backed.files, "new", options=WindowOptions(memory=memory))
    await restore(
        backed.cluster,
        [backed.increment],
        "clone",
        base=BaseSnapshot(backed.cluster, "a"),
        options=WindowOptions(memory=memory),
    )

    expected = await working_image(backed.cluster, "disk")
    assert await working_image(backed.cluster, "new") == expected
    assert await working_image(backed.cluster, "clone") == expected


async def test_a_taken_name_is_refused_before_anything_is_written(backed: Backed) -> None:
    with pytest.raises(VdiExists, match="'disk' exists already"):
        await restore(backed.cluster, backed.files, "disk")

    assert not {Opcode.NEW_VDI, Opcode.CREATE_AND_WRITE_OBJ, Opcode.WRITE_OBJ} & backed.sheep.requests.keys()


async def test_an_increment_alone_says_which_snapshot_it_goes_on(backed: Backed) -> None:
    with pytest.raises(BaseUnnamed, match=r"difference to snapshot 1 'a' of VDI 'disk' .*, and no base"):
        await restore(backed.cluster, [backed.increment], "new")


async def test_a_full_backup_goes_on_no_snapshot(backed: Backed) -> None:
    with pytest.raises(BaseUnwanted, match="full backup"):
        await restore(backed.cluster, [backed.full], "new", base=BaseSnapshot(backed.cluster, "a"))


async def test_a_missing_base_is_told_with_what_exists(backed: Backed) -> None:
    with pytest.raises(SnapshotNotFound, match=r"2 \(b\), 1 \(a\)"):
        await restore(backed.cluster, [backed.increment], "new", base=BaseSnapshot(backed.cluster, "c"))


@pytest.mark.parametrize("assume_base", [False, True])
async def test_a_wrong_base_is_refused_before_a_vdi_is_made(backed: Backed, *, assume_base: bool) -> None:
    backed.sheep.requests.clear()

    with pytest.raises(WrongSnapshot, match=r"expected snapshot 1 'a' of VDI 'disk' .*got snapshot 2 'b' of VDI"):
        await restore(
            backed.cluster, [backed.increment], "new", base=BaseSnapshot(backed.cluster, "b"), assume_base=assume_base
        )

    assert not backed.sheep.requests[Opcode.NEW_VDI]


async def test_a_base_that_was_changed_is_refused_before_the_first_write_of_an_object(backed: Backed) -> None:
    inode = await backed.cluster.find_vdi("disk", "a")
    assert backed.store.write(data_oid(inode.vdi_id, 1), 0, noise(99, SECTOR_SIZE))

    with pytest.raises(BaseMismatch, match=r"snapshot 1 does not hold at object 1 "):
        await restore(
            backed.cluster,
            [backed.increment],
            "new",
            base=BaseSnapshot(backed.cluster, "a"),
            options=WindowOptions(workers=1),
        )

    assert not backed.sheep.requests[Opcode.CREATE_AND_WRITE_OBJ]
    assert not await backed.cluster.has_vdi("new")


async def test_changed_data_is_refused(backed: Backed) -> None:
    data = bytearray(backed.full.read_bytes())
    data[-1] ^= 1
    backed.full.write_bytes(data)

    with pytest.raises(DigestMismatch):
        await restore(backed.cluster, [backed.full], "new")

    assert not await backed.cluster.has_vdi("new")


async def test_a_truncated_file_is_not_begun(backed: Backed) -> None:
    backed.increment.write_bytes(backed.increment.read_bytes()[:-1])

    with pytest.raises(BackupDamaged, match="ends here"):
        await restore(backed.cluster, backed.files, "new")

    assert not backed.sheep.requests[Opcode.NEW_VDI]


async def test_without_a_manifest_sizes_have_to_be_named(backed: Backed) -> None:
    without_manifest(backed.full)

    with pytest.raises(FactMissing, match="how large the objects are"):
        await restore(backed.cluster, [backed.full], "new")
    with pytest.raises(FactMissing, match="how large the VDI is"):
        await restore(backed.cluster, [backed.full], "new", chain_options=ChainOptions(object_size=OBJECT))


async def test_without_a_manifest_a_backup_is_taken_for_a_full_one(backed: Backed) -> None:
    without_manifest(*backed.files)
    options = ChainOptions(object_size=OBJECT, size=OBJECTS * OBJECT)

    summary = await restore(backed.cluster, backed.files, "new", assume_base=True, chain_options=options)

    assert not summary.checked
    assert summary.assumed is not None
    assert await working_image(backed.cluster, "new") == await working_image(backed.cluster, "disk")


async def test_without_a_manifest_the_base_s_vdi_has_to_be_named(backed: Backed) -> None:
    without_manifest(backed.increment)
    options = ChainOptions(object_size=OBJECT, size=OBJECTS * OBJECT)

    with pytest.raises(FactMissing, match="which VDI was backed up"):
        await restore(
            backed.cluster,
            [backed.increment],
            "new",
            base=BaseSnapshot(backed.cluster, "a"),
            assume_base=True,
            chain_options=options,
        )
    with pytest.raises(BaseUnproved, match="has no manifest"):
        await restore(
            backed.cluster,
            [backed.increment],
            "new",
            base=BaseSnapshot(backed.cluster, "a", "disk"),
            chain_options=options,
        )
    summary = await restore(
        backed.cluster,
        [backed.increment],
        "new",
        base=BaseSnapshot(backed.cluster, "a", "disk"),
        assume_base=True,
        chain_options=options,
    )

    assert summary.assumed is not None

    assert await working_image(backed.cluster, "new") == await working_image(backed.cluster, "disk")


async def test_a_size_too_small_for_the_records_is_refused(backed: Backed) -> None:
    with pytest.raises(OutsideVdi, match="object 4, which does not lie within"):
        await restore(backed.cluster, [backed.full], "new", chain_options=ChainOptions(size=4 * OBJECT))

    assert not backed.sheep.requests[Opcode.NEW_VDI]


async def test_a_larger_size_and_other_copies_can_be_asked_for(backed: Backed, monkeypatch: pytest.MonkeyPatch) -> None:
    async def three(_: Cluster) -> int:
        return 3

    monkeypatch.setattr(Cluster, "count_nodes", three)

    await restore(backed.cluster, [backed.full], "new", copies=3, chain_options=ChainOptions(size=20 * OBJECT))

    inode = await backed.cluster.find_vdi("new")
    assert (inode.vdi_size, inode.nr_copies) == (20 * OBJECT, 3)


async def test_more_copies_than_nodes_are_refused(backed: Backed) -> None:
    with pytest.raises(RedundancyUnkeepable, match="2 copies of each object, but the cluster has only one node"):
        await restore(backed.cluster, [backed.full], "new", copies=2)

    assert not backed.sheep.requests[Opcode.NEW_VDI]


async def test_where_the_nodes_are_not_known_copies_are_not_judged(tmp_path: Path) -> None:
    async with Sheep(MemoryStore(), release=Release.V0_6) as sheep, connect(sheep.host, sheep.port) as cluster:
        await cluster.create_vdi("disk", 3 << 22)
        await cluster.create_snapshot("disk", "a")
        await backup(cluster, "disk", tmp_path / "full", snapshot="a")

        await restore(cluster, [tmp_path / "full"], "new", copies=2)

        assert (await cluster.find_vdi("new")).nr_copies == 2


@pytest.mark.parametrize("name", ["", "x" * 256, "\u00e4" * 128, "a\0b"])
async def test_a_name_that_no_vdi_has_is_refused(backed: Backed, name: str) -> None:
    with pytest.raises(VdiUnmakeable, match="a name of 1 to 255 bytes without zeros"):
        await restore(backed.cluster, [backed.full], name)

    assert not backed.sheep.requests[Opcode.NEW_VDI]


async def test_the_longest_name_is_taken(backed: Backed) -> None:
    await restore(backed.cluster, [backed.full], "x" * 255)

    assert await backed.cluster.has_vdi("x" * 255)


@pytest.mark.parametrize("size", [0, -1])
async def test_a_vdi_of_no_size_is_refused(backed: Backed, size: int) -> None:
    with pytest.raises(VdiUnmakeable, match="at least 1 byte"):
        await restore(backed.cluster, [backed.full], "new", chain_options=ChainOptions(size=size))

    assert not backed.sheep.requests[Opcode.NEW_VDI]


async def test_what_an_unfinished_restore_left_is_told_as_that(backed: Backed) -> None:
    inode = await backed.cluster.find_vdi("disk")
    tag = messages.pack_name(UNFINISHED_TAG)
    await backed.cluster.write_object(inode_oid(inode.vdi_id), tag, TAG_OFFSET, copies=1)

    with pytest.raises(UnfinishedExists, match="'disk' exists already: an unfinished restore left it"):
        await restore(backed.cluster, backed.files, "disk")


async def test_a_vdi_whose_inode_cannot_be_read_is_removed(backed: Backed) -> None:
    async with failing(backed.store, "read_obj@1:error=EIO") as (_, cluster):
        with pytest.raises(RequestFailed, match="reading object"):
            await restore(cluster, [backed.full], "new")

        assert not await cluster.has_vdi("new")


async def test_a_vdi_whose_inode_can_never_be_read_is_told(backed: Backed) -> None:
    async with failing(backed.store, "read_obj@1+:error=EIO") as (_, cluster):
        with pytest.raises(PerhapsCreated, match="VDI 'new', empty and without a mark, may be there"):
            await restore(cluster, [backed.full], "new")


async def test_a_restore_survives_that_the_creation_and_the_mark_get_no_answer(backed: Backed) -> None:
    async with failing(backed.store, "new_vdi@1:reset", "write_obj@1:reset") as (_, cluster):
        summary = await restore(cluster, [backed.full], "new")

        found = await cluster.find_vdi("new")
        assert (found.vdi_size, found.tag, f"{found.vdi_id:x}") == (summary.size, "", summary.vdi_id)
        assert summary.size == OBJECTS * OBJECT


async def test_a_vdi_that_somebody_made_during_the_creation_is_not_removed(backed: Backed) -> None:
    def make(request: RequestHeader) -> None:
        made.append(request) if request.opcode == Opcode.NEW_VDI else None
        if len(made) == 1 and request.opcode == Opcode.NEW_VDI:
            store_service.new("new", VdiBody(vdi_size=OBJECTS * OBJECT, block_size_shift=20))

    made: list[RequestHeader] = []
    async with failing(backed.store, "new_vdi@1:error=AGAIN", on_request=make) as (sheep, cluster):
        store_service = sheep._cluster.volumes
        with pytest.raises(VdiExists):
            await restore(cluster, [backed.full], "new")

        assert await cluster.has_vdi("new")
        assert not sheep.requests[Opcode.DEL_VDI]


async def test_a_vdi_that_somebody_deletes_meanwhile_is_not_called_restored(backed: Backed) -> None:
    store = backed.store

    def delete(request: RequestHeader) -> None:
        body = ObjectBody.unpack(request.body)
        if request.opcode == Opcode.CREATE_AND_WRITE_OBJ and index_of(body.oid) == 4:
            store.write(inode_oid(vdi_of(body.oid)), 0, bytes(256))

    before = {oid for oid in store.oids() if is_data(oid)}
    async with failing(store, on_request=delete) as (_, cluster):
        with pytest.raises(ChangedMeanwhile, match="'new' was changed by somebody else"):
            await restore(cluster, [backed.full], "new")

    assert {oid for oid in store.oids() if is_data(oid)} == before


async def test_a_size_that_only_a_hyper_volume_has_is_refused(backed: Backed) -> None:
    with pytest.raises(HyperVolume, match="hyper volume"):
        await restore(backed.cluster, [backed.full], "new", chain_options=ChainOptions(size=(1 << 20) * OBJECT + 1))


async def test_objects_of_another_size_than_the_base_s_are_refused(backed: Backed) -> None:
    await backed.cluster.create_vdi("other", 8 << 22)
    await backed.cluster.create_snapshot("other", "a")
    without_manifest(backed.increment)
    options = ChainOptions(object_size=OBJECT, size=OBJECTS * OBJECT)

    with pytest.raises(ObjectSizesDiffer, match="objects of 1048576 bytes, and VDI 'other' snapshot 1 of 4194304"):
        await restore(
            backed.cluster,
            [backed.increment],
            "new",
            base=BaseSnapshot(backed.cluster, "a", "other"),
            assume_base=True,
            chain_options=options,
        )


async def test_the_name_of_a_deleted_vdi_is_free_though_it_has_snapshots(backed: Backed) -> None:
    working, before = await backed.cluster.find_vdi("disk"), await working_image(backed.cluster, "disk")
    table = inode_oid(working.vdi_id)
    await backed.cluster.write_object(table, bytes(4 * OBJECTS), TABLE_OFFSET, copies=1)
    await backed.cluster.expect_success(messages.delete_vdi("disk"), "deleting it")

    await restore(backed.cluster, [backed.increment], "disk", base=BaseSnapshot(backed.cluster, "a"))

    assert await working_image(backed.cluster, "disk") == before


@pytest.mark.parametrize("release", [Release.V0_4, Release.V0_6])
async def test_older_releases_get_requests_of_their_own_kind(tmp_path: Path, release: Release) -> None:
    requests: list[RequestHeader] = []
    async with (
        Sheep(MemoryStore(), release=release, on_request=requests.append) as sheep,
        connect(sheep.host, sheep.port) as cluster,
    ):
        await cluster.create_vdi("disk", 3 << 22)
        await (await Volume.open(cluster, "disk")).write(0, noise(1, OBJECT))
        await cluster.create_snapshot("disk", "a")
        await backup(cluster, "disk", tmp_path / "full", snapshot="a")
        requests.clear()

        await restore(cluster, [tmp_path / "full"], "new")

        assert await working_image_of_any(cluster, "new") == await working_image_of_any(cluster, "disk")
    (new,) = [VdiBody.unpack(each.body) for each in requests if each.opcode == Opcode.NEW_VDI]
    assert (new.copy_policy, new.store_policy, new.block_size_shift) == (0, 0, 0)


async def working_image_of_any(cluster: Cluster, name: str) -> dict[int, bytes]:
    inode = await cluster.find_vdi(name)
    content = {}
    for idx, owner in enumerate((await cluster.read_owners(inode.vdi_id, inode.object_count)).tolist()):
        if owner:
            buffer = bytearray(inode.object_size)
            await cluster.read_object(owner << 32 | idx, memoryview(buffer))
            content[idx] = bytes(buffer)
    return content


async def test_progress_comes_to_what_was_planned(backed: Backed) -> None:
    seen: list[tuple[int | None, int]] = []

    await restore(
        backed.cluster,
        backed.files,
        "new",
        on_progress=lambda progress: seen.append((progress.objects_planned, progress.objects_done)),
    )

    assert seen[-1] == (7, 7)


async def test_a_summary_is_plain_values(backed: Backed) -> None:
    summary = await restore(backed.cluster, [backed.increment], "clone", base=BaseSnapshot(backed.cluster, "a"))

    fields = json.loads(json.dumps(summary.as_dict()))
    assert (fields["vdi"], fields["vdi_id"]) == ("clone", f"{(await backed.cluster.find_vdi('clone')).vdi_id:x}")
    assert (fields["base"], fields["files"], fields["checked"]) == ("VDI 'disk' snapshot 1", 1, True)


async def test_a_hyper_volume_is_no_base(backed: Backed) -> None:
    vdi_id = await backed.cluster.create_vdi("hyper", OBJECTS * OBJECT, block_size_shift=SHIFT, store_policy=1)
    snapshot = replace(await backed.cluster.find_vdi("hyper"), snap_ctime=1)
    await backed.cluster.write_object(inode_oid(vdi_id), snapshot.pack(), copies=1)

    with pytest.raises(HyperVolume, match="'hyper' is a hyper volume, which has no snapshots that could be a base"):
        await restore(backed.cluster, [backed.increment], "new", base=BaseSnapshot(backed.cluster, 1, "hyper"))


@pytest.mark.parametrize("object_size", [3 * OBJECT, 1 << 19, 1 << 32, 0])
async def test_an_object_size_that_no_vdi_has_is_refused(backed: Backed, object_size: int) -> None:
    without_manifest(backed.full)
    backed.full.write_bytes(of_sectors(0))
    options = ChainOptions(object_size=object_size, size=OBJECTS * OBJECT)

    with pytest.raises(VdiUnmakeable, match=f"a power of two, from 1048576 to 2147483648 bytes, got {object_size} "):
        await restore(backed.cluster, [backed.full], "new", chain_options=options)

    assert not backed.sheep.requests[Opcode.NEW_VDI]


async def test_a_pipe_is_restored_without_knowing_how_much_it_is(backed: Backed) -> None:
    seen: list[tuple[int | None, int]] = []

    with standard_input(of_sectors(0, 2)):
        summary = await restore(
            backed.cluster,
            ["-"],
            "new",
            chain_options=ChainOptions(Dialect.DOG, OBJECT, 3 * OBJECT),
            on_progress=lambda progress: seen.append((progress.objects_planned, progress.objects_done)),
        )

    assert (summary.checked, seen[-1]) == (False, (None, 2))
    expected = [noise(0, SECTOR_SIZE).ljust(OBJECT, b"\0"), bytes(OBJECT), noise(2, SECTOR_SIZE).ljust(OBJECT, b"\0")]
    assert await working_image(backed.cluster, "new") == b"".join(expected)


async def test_a_pipe_that_turns_out_not_to_fit_leaves_nothing(backed: Backed) -> None:
    with (
        standard_input(of_sectors(0, 3)),
        pytest.raises(OutsideVdi, match="object 3, which does not lie within 3145728 bytes"),
    ):
        await restore(backed.cluster, ["-"], "new", chain_options=ChainOptions(Dialect.DOG, OBJECT, 3 * OBJECT))

    assert backed.sheep.requests[Opcode.NEW_VDI] == 1
    assert not await backed.cluster.has_vdi("new")


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (Result.FULL_VDI, RequestFailed, "creating VDI 'new' failed"),
        (Result.VDI_EXIST, VdiExists, "'new' exists already"),
    ],
)
async def test_a_vdi_that_was_never_made_is_not_removed(
    backed: Backed, result: Result, error: type[Exception], message: str
) -> None:
    async with failing(backed.store, f"new_vdi@1:error={result.name}") as (sheep, cluster):
        with pytest.raises(error, match=message):
            await restore(cluster, [backed.full], "new")

        assert not {Opcode.DEL_VDI, Opcode.REMOVE_OBJ, Opcode.WRITE_OBJ} & sheep.requests.keys()


async def test_a_vdi_that_cannot_be_removed_is_told_with_what_failed_first(backed: Backed) -> None:
    faults = "create_and_write_obj@2:error=EIO", "del_vdi@1:error=EIO"
    async with failing(backed.store, *faults) as (_, cluster):
        with pytest.raises(LeftUnfinished, match=f"VDI 'new', tagged '{UNFINISHED_TAG}', may be left behind") as raised:
            await restore(cluster, [backed.full], "new")

        assert (await cluster.find_vdi("new")).tag == UNFINISHED_TAG
    assert raised.value.cause.startswith("creating object")
    assert raised.value.reason.startswith("removing it failed (deleting VDI 'new' failed")


async def test_a_removal_that_takes_too_long_is_given_up(backed: Backed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "_REMOVAL_S", 0.25)
    faults = "create_and_write_obj@2:error=EIO", "remove_obj@1:stall"
    async with failing(backed.store, *faults) as (_, cluster):
        with pytest.raises(LeftUnfinished, match=r"removing it failed \(it took longer than 0\.25 s\)"):
            await restore(cluster, [backed.full], "new")

        assert (await cluster.find_vdi("new")).tag == UNFINISHED_TAG


async def test_a_restore_that_a_scope_cancels_says_that_it_was_stopped(backed: Backed) -> None:
    scope = anyio.CancelScope()

    def stop(request: RequestHeader) -> None:
        if request.opcode == Opcode.CREATE_AND_WRITE_OBJ:
            scope.cancel()

    async with failing(backed.store, "del_vdi@1:error=EIO", on_request=stop) as (_, cluster):
        with pytest.raises(LeftUnfinished, match=r"^the restore was stopped; VDI 'new', tagged "), scope:
            await restore(cluster, [backed.full], "new")


async def test_a_cancelled_restore_whose_vdi_stays_says_that_it_was_stopped(backed: Backed) -> None:
    def stop(request: RequestHeader) -> None:
        if request.opcode == Opcode.CREATE_AND_WRITE_OBJ and not work.cancelling():
            work.cancel()

    async with failing(backed.store, "del_vdi@1:error=EIO", on_request=stop) as (_, cluster):
        work = asyncio.create_task(restore(cluster, [backed.full], "new"))
        with pytest.raises(LeftUnfinished, match=r"^the restore was stopped; VDI 'new', tagged "):
            await work

        assert (await cluster.find_vdi("new")).tag == UNFINISHED_TAG
