"""Objects that a cluster has lost: a backup names them, or does without them, and nobody takes that for a whole one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from asyncbackup import (
    ClientOptions,
    Cluster,
    Dialect,
    NullTarget,
    Progress,
    Summary,
    Volume,
    WindowOptions,
    backup,
    compare,
    connect,
    convert,
    export,
    follow,
    info,
    merge,
    restore,
    verify,
)
from asyncbackup.errors import (
    BackupIncomplete,
    BegunOtherwise,
    ConnectionLost,
    ObjectReadFailed,
    ObjectsUnreadable,
    PlacementUnknown,
    RequestFailed,
    SnapshotChanged,
)
from asyncbackup.sheep import Fault, MemoryStore, Sheep
from asyncbackup.sheep.release import Release
from asyncbackup.verbs.convert import convert_to_rbd_diff
from asyncbackup.wire import messages
from asyncbackup.wire.constants import Result
from asyncbackup.wire.oid import data_oid
from asyncbackup.wire.vdi_ids import first_id
from tests.disks import OBJECT, OBJECTS, content_of, make_disk
from tests.faults.deletion import deletable
from tests.folders import left_in

A, B = first_id("disk"), first_id("disk") + 1
"""The vdi ids of the snapshots: object 0 of b is that of a, and 1 to 6 are its own."""
PORTIONS = WindowOptions(workers=2, memory=1 << 20)
"""Objects do not fit into a slot of so little memory."""
WINDOWS = pytest.mark.parametrize("options", [WindowOptions(), PORTIONS], ids=["whole", "portions"])


class Lossy:
    """A cluster with the disk of tests.disks that loses objects, and backups of it in ``folder``."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder

    async def lose(self, vdi_id: int, *indices: int) -> None:
        for idx in indices:
            await self.cluster.expect_success(messages.remove_object(data_oid(vdi_id, idx)), "losing it")

    async def backup(self, name: str = "file", **arguments: Any) -> Summary:
        usual: dict[str, Any] = {"snapshot": "b", "skip_unreadable": True}
        return await backup(self.cluster, "disk", self.folder / name, **usual | arguments)

    async def incomplete(self, name: str = "file") -> Path:
        """Make a full backup that lacks objects 2 and 5."""
        await self.lose(B, 2, 5)
        await self.backup(name)
        return self.folder / name

    async def image(self, snapshot: str) -> bytearray:
        content = await content_of(self.cluster, "disk", snapshot)
        return bytearray(b"".join(content.get(idx, bytes(OBJECT)) for idx in range(OBJECTS)))


@pytest.fixture
async def lossy(cluster: Cluster, tmp_path: Path) -> Lossy:
    await make_disk(cluster)
    return Lossy(cluster, tmp_path)


@WINDOWS
async def test_a_backup_fails_and_names_all_that_it_found_lost(lossy: Lossy, options: WindowOptions) -> None:
    await lossy.lose(B, 2, 3)

    with pytest.raises(ObjectReadFailed) as raised:
        await lossy.backup(skip_unreadable=False, options=options)

    assert (raised.value.idx, raised.value.result) == (2, Result.NO_OBJ)
    assert isinstance(raised.value, ObjectsUnreadable)
    assert [failure.idx for failure in raised.value.failures] == [2, 3]
    assert left_in(lossy.folder) == []


@WINDOWS
@pytest.mark.parametrize("dialect", Dialect)
async def test_a_backup_can_do_without_what_is_lost(lossy: Lossy, dialect: Dialect, options: WindowOptions) -> None:
    await lossy.lose(B, 2, 5, 6)

    summary = await lossy.backup(dialect=dialect, options=options)

    assert (list(summary.missing), summary.records) == ([2, 5, 6], 4)
    assert summary.objects_done == summary.objects_planned == 7
    lines = (lossy.folder / "file.manifest").read_text().splitlines()
    assert [line for line in lines if line.startswith('{"missing"')] == [
        '{"missing":2}',
        '{"missing":5}',
        '{"missing":6}',
    ]
    assert lines[-1].startswith('{"records":4,"missing":3,')


async def test_the_size_of_the_window_makes_no_difference(lossy: Lossy) -> None:
    await lossy.lose(B, 2, 5)

    await lossy.backup("one")
    await lossy.backup("other", options=PORTIONS)

    for suffix in ("", ".manifest"):
        assert (lossy.folder / f"one{suffix}").read_bytes() == (lossy.folder / f"other{suffix}").read_bytes()


async def test_where_nothing_is_lost_the_data_is_that_of_any_backup(lossy: Lossy) -> None:
    await lossy.backup("one")
    await lossy.backup("other", skip_unreadable=False)

    assert (lossy.folder / "one").read_bytes() == (lossy.folder / "other").read_bytes()
    assert (await verify([lossy.folder / "one"])).is_proved


@WINDOWS
async def test_an_object_of_which_only_the_base_is_lost_is_written_whole(lossy: Lossy, options: WindowOptions) -> None:
    image = await lossy.image("b")
    await lossy.backup("full", snapshot="a")
    await lossy.lose(A, 1, 2)

    summary = await lossy.backup("increment", base="a", options=options)

    assert (list(summary.missing), summary.bases_unreadable) == ([], 2)
    await export([lossy.folder / "full", lossy.folder / "increment"], lossy.folder / "image")
    assert (lossy.folder / "image").read_bytes() == image


async def test_without_leave_a_lost_base_ends_an_increment(lossy: Lossy) -> None:
    await lossy.lose(A, 1)

    with pytest.raises(ObjectReadFailed):
        await lossy.backup(base="a", skip_unreadable=False)


async def test_what_is_left_out_needs_a_manifest_to_be_named_in(lossy: Lossy) -> None:
    async with NullTarget() as target:
        with pytest.raises(ValueError, match="expected a manifest"):
            await backup(lossy.cluster, "disk", target, snapshot="b", skip_unreadable=True)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("read_obj@5+:reset", ConnectionLost), ("read_obj@1+:error=EIO", RequestFailed)],
    ids=["of the way", "of an inode"],
)
async def test_other_errors_end_the_backup_as_ever(tmp_path: Path, fault: str, kind: type[Exception]) -> None:
    store, options = MemoryStore(), ClientOptions(connections=1, give_up_after_s=0, retry_delay_s=0)
    async with Sheep(store) as sheep, connect(sheep.host, sheep.port, options) as cluster:
        await make_disk(cluster)

    async with (
        Sheep(store, faults=[Fault.parse(fault)]) as sheep,
        connect(sheep.host, sheep.port, options) as cluster,
    ):
        with pytest.raises(kind) as raised:
            await Lossy(cluster, tmp_path).backup()
    assert not isinstance(raised.value, ObjectReadFailed)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("tag", ["a", "b"])
async def test_what_is_gone_because_a_snapshot_was_deleted_is_not_left_out(tmp_path: Path, tag: str) -> None:
    async with deletable() as (server, cluster):
        await make_disk(cluster)
        inode = await cluster.find_vdi("disk", tag)
        server.at_read(4, lambda: server.empty(inode, OBJECTS))

        with pytest.raises(SnapshotChanged):
            await Lossy(cluster, tmp_path).backup(base="a")
    assert left_in(tmp_path) == []


# What was interrupted.


class Stop(Exception):
    """Ends a run."""


def stop_at(count: int) -> Callable[[Progress], None]:
    def tell(progress: Progress) -> None:
        if progress.objects_done == count and not progress.is_checking:
            raise Stop

    return tell


KEPT: dict[str, Any] = {"checkpoint_bytes": 1, "options": WindowOptions(workers=1)}


@pytest.mark.parametrize("count", [1, 3, 4, 6])
async def test_what_was_interrupted_is_gone_on_with(lossy: Lossy, count: int) -> None:
    await lossy.lose(B, 2, 5)
    await lossy.backup("whole", **KEPT)
    with pytest.raises(Stop):
        await lossy.backup(on_progress=stop_at(count), **KEPT)

    summary = await lossy.backup(resume=True, **KEPT)

    assert list(summary.missing) == [2, 5]
    for suffix in ("", ".manifest"):
        assert (lossy.folder / f"file{suffix}").read_bytes() == (lossy.folder / f"whole{suffix}").read_bytes()


async def test_what_failed_for_a_lost_object_can_be_gone_on_with_without_it(lossy: Lossy) -> None:
    await lossy.lose(B, 4)
    await lossy.backup("whole", **KEPT)
    with pytest.raises(ObjectReadFailed):
        await lossy.backup(skip_unreadable=False, **KEPT)

    summary = await lossy.backup(resume=True, **KEPT)

    assert summary.bytes_resumed > 3 * OBJECT
    for suffix in ("", ".manifest"):
        assert (lossy.folder / f"file{suffix}").read_bytes() == (lossy.folder / f"whole{suffix}").read_bytes()


async def test_what_may_lack_objects_is_not_gone_on_with_as_a_whole_backup(lossy: Lossy) -> None:
    with pytest.raises(Stop):
        await lossy.backup(on_progress=stop_at(3), **KEPT)

    with pytest.raises(BegunOtherwise, match="unreadable objects"):
        await lossy.backup(resume=True, skip_unreadable=False, **KEPT)


# What becomes of a backup that lacks objects.


async def test_the_file_says_what_it_lacks(lossy: Lossy) -> None:
    file = await lossy.incomplete()

    report = await verify([file])

    assert not report.is_good
    assert report.is_sound
    assert list(report.files[0].missing) == [2, 5]
    assert list((await info(file)).missing) == [2, 5]


def restoring(lossy: Lossy, files: Sequence[Path]) -> Awaitable[object]:
    return restore(lossy.cluster, files, "new")


def exporting(lossy: Lossy, files: Sequence[Path]) -> Awaitable[object]:
    return export(files, lossy.folder / "new")


def merging(lossy: Lossy, files: Sequence[Path]) -> Awaitable[object]:
    return merge(files, lossy.folder / "new")


def converting(lossy: Lossy, files: Sequence[Path]) -> Awaitable[object]:
    return convert(files[0], lossy.folder / "new", dialect=Dialect.DOG)


def converting_for_ceph(lossy: Lossy, files: Sequence[Path]) -> Awaitable[object]:
    return convert_to_rbd_diff(files[0], lossy.folder / "new")


def following(lossy: Lossy, files: Sequence[Path]) -> Awaitable[object]:
    return follow(lossy.cluster, files, "disk")


@pytest.mark.parametrize("use", [restoring, exporting, merging, converting, converting_for_ceph, following])
async def test_nobody_takes_it_for_a_whole_one(
    lossy: Lossy, use: Callable[[Lossy, Sequence[Path]], Awaitable[object]]
) -> None:
    file = await lossy.incomplete()
    before = left_in(lossy.folder)

    with pytest.raises(BackupIncomplete, match="2 objects could not be read for it: 2, 5") as raised:
        await use(lossy, [file])

    assert raised.value.missing == (2, 5)
    assert left_in(lossy.folder) == before
    assert not await lossy.cluster.has_vdi("new")


async def test_an_image_in_place_is_not_made_incomplete(lossy: Lossy) -> None:
    await lossy.backup("full", snapshot="a")
    image = lossy.folder / "image"
    await export([lossy.folder / "full"], image)
    before = image.read_bytes()
    await lossy.lose(B, 2)
    await lossy.backup("increment", base="a")

    with pytest.raises(BackupIncomplete):
        await export([lossy.folder / "increment"], image, base=image, allow_incomplete=True)
    assert image.read_bytes() == before


async def test_an_export_that_is_allowed_has_zeros_for_what_is_missing_and_no_state_that_names_it(
    lossy: Lossy,
) -> None:
    expected = await lossy.image("b")
    file = await lossy.incomplete()
    for idx in (2, 5):
        expected[idx * OBJECT : (idx + 1) * OBJECT] = bytes(OBJECT)

    summary = await export([file], lossy.folder / "image", allow_incomplete=True)

    assert list(summary.missing) == [2, 5]
    assert (lossy.folder / "image").read_bytes() == expected
    assert "image.state" not in left_in(lossy.folder)


async def test_a_restore_that_is_allowed_says_what_is_missing_and_does_not_equal_the_snapshot(lossy: Lossy) -> None:
    file = await lossy.incomplete()

    summary = await restore(lossy.cluster, [file], "new", allow_incomplete=True)

    assert list(summary.missing) == [2, 5]
    assert (summary.origin, summary.origin_missing) == (None, "the backups lack some of its objects")
    assert set(await content_of(lossy.cluster, "new", None)) == {0, 1, 3, 4, 6}


async def test_an_increment_behind_it_is_laid_over_what_is_there(lossy: Lossy) -> None:
    """The increment knows what its base held in object 2, and the full backup does not."""
    file = await lossy.incomplete()
    volume = await Volume.open(lossy.cluster, "disk")
    await volume.write(3 * OBJECT, b"new" * 512)
    await lossy.cluster.create_snapshot("disk", "c")
    await lossy.backup("increment", snapshot="c", base="b", skip_unreadable=False)

    summary = await restore(lossy.cluster, [file, lossy.folder / "increment"], "new", allow_incomplete=True)

    assert list(summary.missing) == [2, 5]
    with pytest.raises(BackupIncomplete):
        await restore(lossy.cluster, [file, lossy.folder / "increment"], "other")


async def test_what_a_base_held_is_not_compared_where_a_backup_before_lacks_it(lossy: Lossy) -> None:
    volume = await Volume.open(lossy.cluster, "disk")
    await volume.write(2 * OBJECT, b"new" * 512)
    await lossy.cluster.create_snapshot("disk", "c")
    await lossy.backup("increment", snapshot="c", base="b")
    file = await lossy.incomplete()

    await export([file, lossy.folder / "increment"], lossy.folder / "image", allow_incomplete=True)

    image = (lossy.folder / "image").read_bytes()
    assert image[2 * OBJECT : 3 * OBJECT] == (b"new" * 512).ljust(OBJECT, b"\0")


async def test_what_it_has_can_be_compared_and_audited(lossy: Lossy) -> None:
    file = await lossy.incomplete()

    comparison = await compare(lossy.cluster, [file], "disk", sample=1)

    assert comparison.is_good
    assert comparison.objects_done == 5


# Replicas.


async def test_all_replicas_of_what_is_compared_are_read(lossy: Lossy) -> None:
    await lossy.backup()

    comparison = await compare(lossy.cluster, [lossy.folder / "file"], "disk", all_replicas=True)

    assert comparison.is_good
    assert comparison.replicas is not None
    assert (comparison.replicas.objects, comparison.replicas.replicas) == (7, 7)
    assert comparison.replicas.bytes_read == 7 * OBJECT


@pytest.mark.parametrize(("result", "problem"), [("EIO", "I/O error"), ("NO_OBJ", "no such object")])
async def test_a_replica_that_its_node_cannot_give_is_named(tmp_path: Path, result: str, problem: str) -> None:
    oid = data_oid(B, 3)
    fault = Fault.parse(f"read_peer/{oid:016x}@1+:error={result}")
    async with Sheep(MemoryStore(), faults=[fault]) as sheep, connect(sheep.host, sheep.port) as cluster:
        await make_disk(cluster)
        await backup(cluster, "disk", tmp_path / "file", snapshot="b")

        comparison = await compare(cluster, [tmp_path / "file"], "disk", all_replicas=True)

    assert not comparison.is_good
    assert not comparison.differing
    replica = {"node": f"127.0.0.1:{sheep.port}", "digest": None, "problem": problem}
    told = comparison.as_dict()["replicas"]
    assert (told["objects"], told["diverging"]) == (7, 1)
    assert told["named"] == [{"idx": 3, "oid": f"{oid:016x}", "replicas": [replica]}]


async def test_where_nobody_knows_the_ring_replicas_cannot_be_read(tmp_path: Path) -> None:
    store = MemoryStore()
    async with Sheep(store) as sheep, connect(sheep.host, sheep.port) as cluster:
        await make_disk(cluster)

    async with Sheep(store, release=Release.V0_6) as sheep, connect(sheep.host, sheep.port) as cluster:
        await backup(cluster, "disk", tmp_path / "file", snapshot="b")

        with pytest.raises(PlacementUnknown, match="of another release"):
            await compare(cluster, [tmp_path / "file"], "disk", all_replicas=True)
