"""Several backups of one pass: each is what a run of its own makes, and each object is read once for all of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import pytest

from asyncbackup import (
    Cluster,
    Delta,
    Dialect,
    Progress,
    Summary,
    Volume,
    WindowOptions,
    backup,
    connect,
    estimate,
)
from asyncbackup.errors import MemoryTooSmall, ObjectReadFailed, TargetExists, TargetFull, TargetUnfinished
from asyncbackup.sheep import MemoryStore, Sheep
from asyncbackup.storage.file import FileTarget
from asyncbackup.wire.constants import Opcode
from asyncbackup.wire.messages import ObjectBody, RequestHeader
from asyncbackup.wire.oid import data_oid, is_data
from tests.disks import OBJECT, OBJECTS, make_disk, noise
from tests.faults.deletion import deletable
from tests.folders import left_in

pytestmark = pytest.mark.slow

ONE = WindowOptions(workers=1)
PORTIONS = WindowOptions(workers=2, memory=1 << 20)
"""Objects do not fit into a slot of so little memory."""
BASES: dict[str, str | None] = {"night": "b", "week": "a", "month": None, "again": "b"}


class Stop(Exception):
    """Ends a run."""


class Run:
    """Backs up snapshot c of the disk against several bases, and stops when ``stop_at`` objects are done."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder

    async def __call__(self, stop_at: int | None = None, **arguments: Any) -> Summary:
        def tell(progress: Progress) -> None:
            if stop_at is not None and progress.objects_done >= stop_at and not progress.is_checking:
                raise Stop

        given: dict[str, Any] = {"snapshot": "c", "checkpoint_bytes": 1, "on_progress": tell} | arguments
        first, *others = [Delta(self.folder / name, base) for name, base in BASES.items()]
        return await backup(self.cluster, "disk", first.target, base=first.base, also=others, **given)

    async def alone(self, **arguments: Any) -> dict[str, bytes]:
        """Give what runs of their own make."""
        for name, base in BASES.items():
            await backup(self.cluster, "disk", self.folder / name, snapshot="c", base=base, **arguments)
        return self.take()

    def take(self) -> dict[str, bytes]:
        """Take all files away, and give what they held."""
        files = {path.name: path.read_bytes() for path in sorted(self.folder.iterdir())}
        for name in files:
            (self.folder / name).unlink()
        return files


async def make_snapshots(cluster: Cluster) -> None:
    await make_disk(cluster)
    volume = await Volume.open(cluster, "disk")
    await volume.write(2 * OBJECT + 512, noise(21, 512))
    await volume.write(3 * OBJECT, noise(3, OBJECT))  # as in a, other than in b
    await volume.write(7 * OBJECT + 1024, noise(22, 5120))
    await cluster.create_snapshot("disk", "c")


@pytest.fixture
async def run(cluster: Cluster, tmp_path: Path) -> Run:
    await make_snapshots(cluster)
    (tmp_path / "folder").mkdir()
    return Run(cluster, tmp_path / "folder")


@pytest.mark.parametrize("options", [ONE, WindowOptions(), PORTIONS])
@pytest.mark.parametrize("dialect", Dialect)
async def test_each_file_and_manifest_is_that_of_a_run_of_its_own(
    run: Run, dialect: Dialect, options: WindowOptions
) -> None:
    expected = await run.alone(dialect=dialect, options=options)

    summary = await run(dialect=dialect, options=options)

    assert run.take() == expected
    assert [each.file for each in summary.also] == [str(run.folder / name) for name in [*BASES][1:]]
    assert [each.base for each in summary.also] == ["a", None, "b"]
    assert summary.records == summary.also[2].records
    assert summary.also[1].records == 8


async def test_each_byte_of_the_snapshot_is_asked_for_once(tmp_path: Path) -> None:
    asked: Counter[tuple[int, int]] = Counter()

    def note(request: RequestHeader) -> None:
        body = ObjectBody.unpack(request.body)
        if request.opcode == Opcode.READ_OBJ and is_data(body.oid):
            asked.update((body.oid, at) for at in range(body.offset, body.offset + request.data_length, 512))

    async with Sheep(MemoryStore(), on_request=note) as sheep, connect(sheep.host, sheep.port) as cluster:
        await make_snapshots(cluster)
        asked.clear()
        await Run(cluster, tmp_path)()

    assert set(asked.values()) == {1}


@pytest.mark.parametrize("options", [ONE, PORTIONS])
async def test_what_was_interrupted_anywhere_and_resumed_is_what_was_not_interrupted(
    run: Run, options: WindowOptions
) -> None:
    expected = await run.alone(options=options)

    for stop_at in range(1, OBJECTS):
        try:
            await run(stop_at, options=options)
        except Stop:
            summary = await run(options=options, resume=True)
            assert stop_at == 1 or summary.also[1].bytes_resumed > 0, "there is no checkpoint before the first progress"
        assert run.take() == expected, stop_at


async def test_backups_that_came_differently_far_all_come_to_their_end(run: Run) -> None:
    expected = await run.alone()
    with pytest.raises(Stop):
        await run(5, options=ONE)
    for name in (".week.partial", ".week.partial.manifest"):
        (run.folder / name).unlink()

    summary = await run(resume=True)

    assert run.take() == expected
    assert summary.bytes_resumed > 0
    assert summary.also[0].bytes_resumed == 0


async def test_a_cancellation_between_two_publications_ends_after_all(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = FileTarget.complete

    async def publish_and_cancel(target: FileTarget, beginning: bytes = b"") -> None:
        await publish(target, beginning)
        scope.cancel()

    monkeypatch.setattr(FileTarget, "complete", publish_and_cancel)
    with anyio.CancelScope() as scope:
        await run()

    assert left_in(run.folder) == sorted([*BASES, *(f"{name}.manifest" for name in BASES)])


async def test_no_room_for_the_end_of_one_leaves_all_unfinished(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    append = FileTarget.append

    async def refuse_last(target: FileTarget, *arguments: Any, **more: Any) -> None:
        if target.path.name == "again.manifest":
            raise TargetFull(target.name, "No space left on device")
        await append(target, *arguments, **more)

    monkeypatch.setattr(FileTarget, "append", refuse_last)
    with pytest.raises(TargetFull):
        await run(checkpoint_bytes=1 << 30)

    assert left_in(run.folder) == []


async def test_what_a_run_left_is_refused_for_each_file(run: Run) -> None:
    with pytest.raises(Stop):
        await run(5, options=ONE)

    with pytest.raises(TargetUnfinished):
        await run()
    await run(replace=True)

    assert left_in(run.folder) == sorted([*BASES, *(f"{name}.manifest" for name in BASES)])


@pytest.mark.parametrize("name", BASES)
async def test_a_file_that_exists_is_an_error_before_anything_is_read(run: Run, name: str) -> None:
    (run.folder / name).write_bytes(b"mine")

    with pytest.raises(TargetExists):
        await run()

    assert run.take() == {name: b"mine"}


async def test_an_object_that_is_lost_ends_all_or_is_missing_in_each_that_needs_it(tmp_path: Path) -> None:
    async with deletable() as (server, cluster):
        await make_snapshots(cluster)
        run = Run(cluster, tmp_path)
        owners = await cluster.read_owners((await cluster.find_vdi("disk", "c")).vdi_id, OBJECTS)
        server.store.remove(data_oid(int(owners[2]), 2))

        with pytest.raises(ObjectReadFailed, match="reading object 2 "):
            await run()
        run.take()
        expected = await run.alone(skip_unreadable=True)
        summary = await run(skip_unreadable=True)

    assert run.take() == expected
    assert [list(missing) for missing in (summary.missing, *(each.missing for each in summary.also))] == [[2]] * 4


async def test_an_object_that_one_base_lacks_is_written_whole_against_that_alone(tmp_path: Path) -> None:
    async with deletable() as (server, cluster):
        await make_snapshots(cluster)
        run = Run(cluster, tmp_path)
        owners = await cluster.read_owners((await cluster.find_vdi("disk", "a")).vdi_id, OBJECTS)
        server.store.remove(data_oid(int(owners[2]), 2))

        expected = await run.alone(skip_unreadable=True)
        await run(skip_unreadable=True)

    assert run.take() == expected


async def test_an_estimate_counts_each_object_once(run: Run) -> None:
    bases = [*BASES.values()]

    together = await estimate(run.cluster, "disk", snapshot="c", base=bases[0], also=bases[1:])

    alone = [await estimate(run.cluster, "disk", snapshot="c", base=base) for base in bases]
    assert together.bytes_to_write == sum(each.bytes_to_write for each in alone)
    assert together.objects_to_read < sum(each.objects_to_read for each in alone)
    summary = await run()
    assert summary.objects_read == together.objects_to_read


async def test_memory_for_less_than_one_object_of_all_sides_is_an_error(run: Run) -> None:
    with pytest.raises(MemoryTooSmall, match=f"expected at least {5 * OBJECT} bytes"):
        await run(options=WindowOptions(memory=4 * OBJECT))

    assert left_in(run.folder) == []
