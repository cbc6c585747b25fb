"""A backup in an object store that is made of pieces there is that of one process, and nothing of them stays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import obstore
import pytest
from obstore.store import MemoryStore

from asyncbackup import Cluster, Delta, Dialect, Progress, Summary, WindowOptions, backup
from asyncbackup.engine import pieces
from asyncbackup.engine.piece_job import Job, Made, make_piece
from asyncbackup.engine.scratch import PieceName, Scratch
from asyncbackup.errors import MemoryTooSmall, ObjectReadFailed, TargetExists, TargetWriteFailed, single_error
from asyncbackup.storage import Access, Layers
from asyncbackup.wire.oid import data_oid
from tests.disks import OBJECTS, make_disk
from tests.faults.deletion import deletable
from tests.object_stores import S3Server, always, forbid

URL = "memory://box/file"
LEFT = "box/.file.pieces/3/killed.0"


class Stop(Exception):
    """Ends a run."""


class Here:
    """Workers in this process."""

    at_once = 3
    on_one_machine = 3

    def __init__(self) -> None:
        self.is_settled = False

    async def check(self, job: Job, scratches: Sequence[Scratch]) -> None:
        """Find nothing."""

    async def make(self, job: Job) -> Made:
        with single_error():
            return await make_piece(job)

    async def settle(self) -> None:
        self.is_settled = True


class Twice(Here):
    """Of each piece another attempt was begun, and came to nothing."""

    async def make(self, job: Job) -> Made:
        for output in job.outputs:
            async with output.scratch.write(PieceName(job.first, "lost"), "lost") as target:
                await target.append([bytes(3 << 20)])
        return await super().make(job)


class Run:
    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.store = MemoryStore()

    async def __call__(self, workers: Here | None = None, **arguments: Any) -> Summary:
        given: dict[str, Any] = {"snapshot": "b", "dialect": Dialect.DOG} | arguments
        access = Access(memory_store=self.store)
        return await backup(self.cluster, "disk", URL, workers=workers, access=access, **given)

    @property
    def names(self) -> list[str]:
        return sorted(found["path"] for found in obstore.list(self.store).collect())

    async def take(self) -> dict[str, bytes]:
        """Take all objects away, and give what they held."""
        content = {}
        for name in self.names:
            content[name] = bytes(await (await obstore.get_async(self.store, name)).bytes_async())
            await obstore.delete_async(self.store, name)
        return content


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_LEAST_OBJECTS", 2)
    monkeypatch.setattr(pieces, "_MOST_OBJECTS", 2)


@pytest.fixture
async def run(cluster: Cluster) -> Run:
    await make_disk(cluster)
    return Run(cluster)


@pytest.mark.parametrize("layers", [None, Layers(zstd_level=3)], ids=["plain", "zstd"])
@pytest.mark.parametrize("base", [None, "a"])
async def test_object_manifest_and_counts_are_those_of_one_process(
    run: Run, base: str | None, layers: Layers | None
) -> None:
    alone = await run(base=base, layers=layers)
    expected = await run.take()

    summary = await run(Here(), base=base, layers=layers)

    assert await run.take() == expected
    for name in ("objects_planned", "objects_done", "objects_read", "bytes_read", "records", "bytes_written"):
        assert getattr(summary, name) == getattr(alone, name)


async def test_several_backups_of_one_pass_are_made_alike(run: Run) -> None:
    also = [Delta("memory://box/full")]
    await run(base="a", also=also)
    expected = await run.take()

    await run(Here(), base="a", also=also)

    assert await run.take() == expected


async def test_attempts_that_came_to_nothing_go_with_their_piece(run: Run) -> None:
    await run()
    expected = await run.take()

    await run(Twice())

    assert await run.take() == expected


async def test_what_a_killed_run_left_is_removed(run: Run) -> None:
    await obstore.put_async(run.store, LEFT, b"left")

    await run(Here())

    assert run.names == ["box/file", "box/file.manifest"]


async def test_what_is_refused_removes_nothing(run: Run) -> None:
    for name in ("box/file", LEFT):
        await obstore.put_async(run.store, name, b"there")

    with pytest.raises(TargetExists):
        await run(Here())

    assert run.names == [LEFT, "box/file"]


async def test_nothing_is_left_of_a_run_that_failed(run: Run) -> None:
    def stop(progress: Progress) -> None:
        if progress.objects_done:
            raise Stop

    workers = Here()
    with pytest.raises(Stop):
        await run(workers, on_progress=stop)

    assert workers.is_settled
    assert run.names == []


async def test_nothing_is_left_of_a_run_that_was_cancelled(run: Run) -> None:
    with anyio.CancelScope() as scope:
        await run(Here(), on_progress=lambda progress: scope.cancel() if progress.objects_done else None)

    assert scope.cancelled_caught
    assert run.names == []


async def test_an_object_that_cannot_be_read_is_the_error_and_nothing_is_left() -> None:
    async with deletable() as (server, cluster):
        await make_disk(cluster)
        run = Run(cluster)
        owners = await cluster.read_owners((await cluster.find_vdi("disk", "b")).vdi_id, OBJECTS)
        server.store.remove(data_oid(int(owners[2]), 2))

        with pytest.raises(ObjectReadFailed, match="reading object 2 "):
            await run(Here())

    assert run.names == []


async def test_memory_that_is_too_little_is_named_before_anything_is_read(run: Run) -> None:
    with pytest.raises(MemoryTooSmall):
        await run(Here(), options=WindowOptions(memory=34 << 20))

    assert run.names == []


async def test_processes_of_this_machine_do_not_go_by_a_store(run: Run) -> None:
    with pytest.raises(ValueError, match="expected files"):
        await run(processes=2)


async def test_a_store_that_refuses_a_piece_is_the_error_and_nothing_is_left(cluster: Cluster, s3: S3Server) -> None:
    await make_disk(cluster)
    bucket = s3.new_bucket()
    s3.faults.append(always(forbid, lambda request: request.method == "PUT" and "/4/" in request.key))

    with pytest.raises(TargetWriteFailed, match=r"s3://bucket\d+/file: the store does not permit this"):
        await backup_to(cluster, f"s3://{bucket}/file", s3)

    assert s3.objects(bucket) == s3.uploads(bucket) == []


async def test_pieces_that_a_store_does_not_let_go_are_named_beside_the_error(cluster: Cluster, s3: S3Server) -> None:
    await make_disk(cluster)
    bucket = s3.new_bucket()
    s3.faults.append(always(forbid, lambda request: request.method == "POST" and "delete" in request.query))

    with pytest.raises(TargetWriteFailed, match="the store does not permit this") as caught:
        await backup_to(cluster, f"s3://{bucket}/file", s3)

    assert any(f"pieces stay in the store at s3://{bucket}/.file.pieces" in note for note in caught.value.__notes__)


async def backup_to(cluster: Cluster, url: str, s3: S3Server) -> None:
    access = Access(s3.options | {"max_retries": "1", "retry_timeout": "1"})
    await backup(cluster, "disk", url, snapshot="b", dialect=Dialect.DOG, access=access, workers=Here())
