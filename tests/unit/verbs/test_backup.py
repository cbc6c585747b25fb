from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import xxhash

from asyncbackup import Cluster, Dialect, NullTarget, Progress, Summary, Volume, WindowOptions, backup, estimate
from asyncbackup.errors import HyperVolume, PatchNeeded, SnapshotNotFound, TargetExists
from asyncbackup.format.manifest import RecordDigests
from asyncbackup.sheep import Sheep
from asyncbackup.storage.target import Bytes, Step
from asyncbackup.wire import btree
from asyncbackup.wire.constants import Opcode
from asyncbackup.wire.inode import TABLE_OFFSET
from asyncbackup.wire.oid import data_oid, inode_oid
from tests.collecting import CollectingTarget, PatchedTarget
from tests.disks import OBJECT, OBJECTS, PARTS, content_of, make_disk, noise
from tests.property import reference
from tests.waiting import turn, until


class ScriptedSink(PatchedTarget):
    """Keeps what it is given; stops at the first append until it is let go on, if told to."""

    def __init__(self, *, stuck: bool = False) -> None:
        super().__init__()
        self.appends = 0
        self.go_on = asyncio.Event()
        if not stuck:
            self.go_on.set()

    async def append(self, buffers: Sequence[Bytes], *, before: Step | None = None) -> None:
        assert all(buffers), "nothing empty is written"
        self.appends += 1
        await self.go_on.wait()
        await super().append(buffers, before=before)


class Stream(ScriptedSink):
    can_patch = False


async def test_a_difference_holds_what_changed_and_nothing_else(cluster: Cluster) -> None:
    await make_disk(cluster)
    target = ScriptedSink()

    await backup(cluster, "disk", target, snapshot="b", base="a")

    to, base = [await content_of(cluster, "disk", tag) for tag in "ba"]
    assert target.is_complete
    records = reference.parse(bytes(target.data), "collie", OBJECT)
    assert records == reference.difference(to, base, OBJECT)
    assert [record.idx for record in records] == [1, 2, 3, 5, 6]


async def test_shared_objects_are_not_read(cluster: Cluster, sheep: Sheep) -> None:
    await make_disk(cluster)
    before = sheep.requests[Opcode.READ_OBJ]

    summary = await backup(cluster, "disk", NullTarget(), snapshot="b", base="a")

    metadata = 10  # two inode headers and two owner tables, and again at the end; those of the working VDI
    assert (summary.objects_planned, summary.objects_shared, summary.objects_read) == (6, 1, 10)
    assert sheep.requests[Opcode.READ_OBJ] - before == 10 * PARTS + metadata


async def test_a_snapshot_against_itself_reads_nothing(cluster: Cluster) -> None:
    await make_disk(cluster)
    target = ScriptedSink()

    summary = await backup(cluster, "disk", target, snapshot="b", base="b", dialect=Dialect.DOG)

    assert (summary.objects_planned, summary.objects_read, summary.bytes_read, summary.records) == (0, 0, 0, 0)
    assert bytes(target.data) == Dialect.DOG.opening + Dialect.DOG.ending


async def test_a_full_backup_is_the_difference_to_nothing(cluster: Cluster) -> None:
    await make_disk(cluster)
    target = ScriptedSink()

    await backup(cluster, "disk", target, snapshot="a")

    records = reference.parse(bytes(target.data), "collie", OBJECT)
    assert reference.apply({}, records, OBJECT) == await content_of(cluster, "disk", "a")


async def test_the_working_vdi_is_read_when_asked_to(cluster: Cluster) -> None:
    await make_disk(cluster)

    summary = await backup(cluster, "disk", NullTarget(), base="b", live=True)

    assert (summary.snapshot, summary.base, summary.objects_planned) == (None, "b", 0)


@pytest.mark.parametrize("arguments", [{}, {"snapshot": "a", "live": True}])
async def test_a_backup_is_of_a_snapshot_or_live(cluster: Cluster, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="either a snapshot or live=True"):
        await backup(cluster, "disk", NullTarget(), **arguments)


async def test_the_summary_tells_what_was_done(cluster: Cluster) -> None:
    await make_disk(cluster)
    target = ScriptedSink()

    summary = await backup(cluster, "disk", target, snapshot=2, base=1, dialect=Dialect.DOG)

    assert (summary.vdi, summary.snapshot, summary.base, summary.dialect) == ("disk", "2", "1", Dialect.DOG)
    assert (summary.bytes_read, summary.records, summary.bytes_written) == (10 * OBJECT, 5, len(target.data))
    assert (summary.requests, summary.retries) == (2 * 6 + 4 + 10 * PARTS, 0)
    assert summary.elapsed_s > 0


async def test_backups_at_the_same_time_each_report_their_own_requests(cluster: Cluster) -> None:
    await make_disk(cluster)
    alone = [await backup(cluster, "disk", NullTarget(), snapshot="b", base=base) for base in ("a", None)]

    async with asyncio.TaskGroup() as group:
        together = [
            group.create_task(backup(cluster, "disk", NullTarget(), snapshot="b", base=base)) for base in ("a", None)
        ]

    assert [task.result().requests for task in together] == [summary.requests for summary in alone]
    assert alone[0].requests != alone[1].requests


async def test_a_file_is_replaced_only_where_that_is_said(cluster: Cluster, tmp_path: Path) -> None:
    await make_disk(cluster)
    (tmp_path / "file").write_bytes(b"old")

    with pytest.raises(TargetExists):
        await backup(cluster, "disk", tmp_path / "file", snapshot="b")
    await backup(cluster, "disk", tmp_path / "file", snapshot="b", replace=True)

    assert len(reference.parse((tmp_path / "file").read_bytes(), "collie", OBJECT)) == 7


async def test_a_target_that_is_open_already_replaces_nothing(cluster: Cluster) -> None:
    with pytest.raises(ValueError, match="expected a path to replace, got a target that is open already"):
        await backup(cluster, "disk", NullTarget(), snapshot="b", replace=True)


async def test_progress_only_grows_and_ends_complete(cluster: Cluster) -> None:
    await make_disk(cluster)
    seen: list[Progress] = []

    await backup(cluster, "disk", NullTarget(), snapshot="b", on_progress=seen.append)

    amounts = [(progress.objects_done, progress.bytes_done) for progress in seen]
    assert len(set(amounts)) > 2
    for earlier, later in itertools.pairwise(amounts):
        assert all(before <= after for before, after in zip(earlier, later, strict=True))
    assert all(progress.objects_planned == 7 for progress in seen)
    assert seen[-1].objects_done == seen[-1].objects_planned == 7


async def test_a_stream_takes_no_dialect_that_is_completed_at_its_beginning(cluster: Cluster) -> None:
    with pytest.raises(PatchNeeded, match="a collie backup is completed at its beginning, so it needs a plain file"):
        await backup(cluster, "disk", Stream(), snapshot="a")


async def test_a_stream_takes_the_other_dialect(cluster: Cluster) -> None:
    await make_disk(cluster)
    target = Stream()

    await backup(cluster, "disk", target, snapshot="a", dialect=Dialect.DOG)

    assert len(reference.parse(bytes(target.data), "dog", OBJECT)) == 5


async def test_a_stuck_target_stops_the_reads(cluster: Cluster, sheep: Sheep) -> None:
    await make_disk(cluster)
    target = ScriptedSink(stuck=True)
    options = WindowOptions(workers=2)
    task = asyncio.create_task(backup(cluster, "disk", target, snapshot="b", options=options))
    await until(lambda: target.appends == 1)
    await turn()

    before = sheep.requests[Opcode.READ_OBJ]
    await turn()
    assert sheep.requests[Opcode.READ_OBJ] == before
    target.go_on.set()
    await task

    assert target.is_complete


async def test_a_path_is_a_file_that_must_not_exist(cluster: Cluster, tmp_path: Path) -> None:
    await make_disk(cluster)
    await backup(cluster, "disk", tmp_path / "file", snapshot="a")

    with pytest.raises(TargetExists):
        await backup(cluster, "disk", str(tmp_path / "file"), snapshot="a")


async def test_an_unknown_base_is_told(cluster: Cluster) -> None:
    await make_disk(cluster)

    with pytest.raises(SnapshotNotFound, match="no snapshot 'c'"):
        await backup(cluster, "disk", NullTarget(), snapshot="a", base="c")


@pytest.mark.parametrize("memory", [1 << 20, 2 << 20, 128 << 20])
async def test_the_file_is_the_same_however_little_memory(cluster: Cluster, memory: int) -> None:
    await make_disk(cluster)
    whole, pieces = ScriptedSink(), ScriptedSink()

    await backup(cluster, "disk", whole, snapshot="b", base="a")
    summary = await backup(
        cluster, "disk", pieces, snapshot="b", base="a", options=WindowOptions(memory=memory, workers=3)
    )

    assert pieces.data == whole.data
    assert summary.objects_done == summary.objects_planned
    assert summary.objects_read == 10


# What manifests say of the base


async def bases_told(cluster: Cluster, vdi: str, **wanted: Any) -> tuple[dict[int, str | None], Summary]:
    """Back up, and give what the manifest says of the base by idx."""
    manifest = CollectingTarget()
    summary = await backup(cluster, vdi, NullTarget(), manifest=manifest, **wanted)
    _, *records, _ = bytes(manifest.data).splitlines(keepends=True)
    return {record.header.idx: record.base for record in map(RecordDigests.decode, records)}, summary


async def test_a_base_that_was_compared_is_told_and_another_is_not_read_for_that(cluster: Cluster) -> None:
    await make_disk(cluster, shift=22)
    base = await content_of(cluster, "disk", "a")
    without = await backup(cluster, "disk", NullTarget(), snapshot="b", base="a")

    found, summary = await bases_told(cluster, "disk", snapshot="b", base="a")

    middle = 1 << 21
    assert found == {
        1: xxhash.xxh3_128_hexdigest(base[1][:512]),
        2: xxhash.xxh3_128_hexdigest(base[2][middle : middle + 3 * 512]),
        3: None,  # changed as a whole: only its ends were compared
        5: xxhash.xxh3_128_hexdigest(bytes(512)),
        6: xxhash.xxh3_128_hexdigest(bytes(512)),
    }
    assert summary.bytes_read == without.bytes_read
    assert summary.bytes_read < 10 << 22


async def test_a_full_backup_says_nothing_of_a_base(cluster: Cluster) -> None:
    await make_disk(cluster)

    found, _ = await bases_told(cluster, "disk", snapshot="a")

    assert found == dict.fromkeys(range(5))


async def test_of_objects_read_in_pieces_nothing_of_the_base_is_told(cluster: Cluster) -> None:
    await make_disk(cluster)

    found, _ = await bases_told(cluster, "disk", snapshot="b", base="a", options=WindowOptions(memory=1 << 20))

    assert found == dict.fromkeys([1, 2, 3, 5, 6])


async def test_objects_larger_than_usual_are_backed_up_in_pieces(cluster: Cluster) -> None:
    shift = 23
    size = 1 << shift
    await cluster.create_vdi("large", 2 * size, block_size_shift=shift)
    vdi_id = (await cluster.find_vdi("large")).vdi_id
    data = noise(1, size - 1024)
    await cluster.create_object(data_oid(vdi_id, 1), data, 512, copies=1)
    await cluster.write_object(inode_oid(vdi_id), struct.pack("<I", vdi_id), TABLE_OFFSET + 4, copies=1)
    await cluster.create_snapshot("large", "a")
    target = ScriptedSink()

    await backup(cluster, "large", target, snapshot="a")

    assert reference.parse(bytes(target.data), "collie", size) == [reference.Record(1, 512, data)]


async def test_a_last_piece_as_large_as_what_is_gathered_is_kept_while_others_are_read(cluster: Cluster) -> None:
    piece, gathered = OBJECT // 4, 64 << 10
    await cluster.create_vdi("disk", OBJECTS * OBJECT, block_size_shift=20)
    volume = await Volume.open(cluster, "disk")
    for idx in range(OBJECTS):
        await volume.write(idx * OBJECT, noise(idx, piece + gathered))
    await cluster.create_snapshot("disk", "a")
    target = ScriptedSink()

    await backup(cluster, "disk", target, snapshot="a", options=WindowOptions(memory=1 << 20))

    assert reference.parse(bytes(target.data), "collie", OBJECT) == [
        reference.Record(idx, 0, noise(idx, piece + gathered)) for idx in range(OBJECTS)
    ]


async def test_an_object_that_was_dropped_becomes_zeros(cluster: Cluster) -> None:
    await make_disk(cluster)
    for snapshot in ("b", None):
        inode = await cluster.find_vdi("disk", snapshot)
        await cluster.write_object(inode_oid(inode.vdi_id), bytes(4), TABLE_OFFSET, copies=1)

    for memory in (1 << 20, 128 << 20):
        target = ScriptedSink()
        await backup(cluster, "disk", target, snapshot="b", base="a", options=WindowOptions(memory=memory))

        first = reference.parse(bytes(target.data), "collie", OBJECT)[0]
        assert first == reference.Record(0, 0, bytes(OBJECT))


async def test_a_hyper_volume_is_backed_up_whole(cluster: Cluster) -> None:
    vdi_id = await hyper_volume(cluster)
    target = ScriptedSink()

    await backup(cluster, "hyper", target, live=True)

    assert reference.parse(bytes(target.data), "collie", OBJECT) == [reference.Record(3, 0, noise(1, 512))]
    assert vdi_id


async def test_a_hyper_volume_has_no_difference(cluster: Cluster) -> None:
    await hyper_volume(cluster)
    snapshot = await cluster.find_vdi("hyper")
    await cluster.write_object(inode_oid(snapshot.vdi_id), replace(snapshot, snap_ctime=1).pack(), copies=1)

    with pytest.raises(HyperVolume, match="'hyper' is a hyper volume, which takes only a full backup"):
        await backup(cluster, "hyper", NullTarget(), snapshot=1, base=1)


async def test_a_volume_of_more_objects_than_a_backup_can_number_is_refused(cluster: Cluster) -> None:
    await cluster.create_vdi("huge", OBJECT << 32, block_size_shift=20, store_policy=1)

    with pytest.raises(HyperVolume, match="which has 4294967296 objects, more than a backup can number"):
        await backup(cluster, "huge", NullTarget(), live=True)


async def hyper_volume(cluster: Cluster) -> int:
    vdi_id = await cluster.create_vdi("hyper", OBJECTS * OBJECT, block_size_shift=20, store_policy=1)
    root = btree.pack_node_header(btree.LEAF, 2) + struct.pack("<4I", 3, vdi_id, OBJECTS, vdi_id)
    await cluster.write_object(inode_oid(vdi_id), root, TABLE_OFFSET, copies=1)
    await cluster.create_object(data_oid(vdi_id, 3), noise(1, 512), copies=1)
    return vdi_id


@pytest.mark.parametrize("base", ["a", None])
async def test_an_estimate_is_kept_by_the_backup_and_reads_no_data(
    cluster: Cluster, sheep: Sheep, base: str | None
) -> None:
    await make_disk(cluster)
    before = sheep.requests[Opcode.READ_OBJ]

    guessed = await estimate(cluster, "disk", snapshot="b", base=base)

    assert sheep.requests[Opcode.READ_OBJ] - before < 12
    done = await backup(cluster, "disk", NullTarget(), snapshot="b", base=base, dialect=Dialect.DOG)
    assert (guessed.objects_planned, guessed.objects_shared) == (done.objects_planned, done.objects_shared)
    assert guessed.objects_to_read == done.objects_read
    assert done.bytes_read <= guessed.bytes_to_read == guessed.objects_to_read * OBJECT
    assert guessed.bytes_to_write == guessed.objects_planned * OBJECT


async def test_an_estimate_is_of_a_snapshot_or_live(cluster: Cluster) -> None:
    with pytest.raises(ValueError, match="either a snapshot or live=True"):
        await estimate(cluster, "disk")
