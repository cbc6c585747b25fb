"""A backup that workers of Dask make is that of one process, whatever becomes of them."""

from __future__ import annotations

import random
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from asyncbackup import Cluster, Delta, Dialect, Layers, Progress, Summary, backup, connect
from asyncbackup.dispatch import pool as dispatch_pool
from asyncbackup.dispatch.facts import FACTS
from asyncbackup.dispatch.pieces import DaskWorkers
from asyncbackup.dispatch.pool import connect_dask
from asyncbackup.engine.scratch import FolderScratch
from asyncbackup.errors import (
    ExtraMissing,
    NoWorkers,
    ObjectReadFailed,
    SchedulerLost,
    SchedulerSilent,
    SchedulerUnreachable,
    WorkerLost,
    WorkersDiffer,
    WorkersSilent,
)
from asyncbackup.sheep import MemoryStore, Sheep
from asyncbackup.wire.constants import Opcode
from asyncbackup.wire.messages import ObjectBody, RequestHeader
from asyncbackup.wire.oid import data_oid, is_data
from tests.cli.command import disk_store, serving, start
from tests.dask_workers import DaskCluster
from tests.disks import OBJECT, OBJECTS, make_disk
from tests.faults.deletion import deletable
from tests.folders import left_in
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_pieces")]

ROUNDS = 3


COMPRESSED: dict[str, Any] = {"dialect": Dialect.DOG, "layers": Layers(zstd_level=1, threads=2)}


class Stop(Exception):
    """Ends a run."""


class Run:
    """Backs up snapshot b of the disk, a piece for each object."""

    def __init__(self, cluster: Cluster, folder: Path, address: str) -> None:
        self.cluster = cluster
        self.folder = folder
        self.address = address

    async def alone(self, **arguments: Any) -> dict[str, bytes]:
        """Do it in this process, and take the files away."""
        given: dict[str, Any] = {"snapshot": "b"} | arguments
        await backup(self.cluster, "disk", self.folder / "file", **given)
        return self.take()

    async def __call__(self, **arguments: Any) -> Summary:
        async with connect_dask(self.address) as pool:
            given: dict[str, Any] = {"snapshot": "b", "checkpoint_bytes": 1, "workers": DaskWorkers(pool)} | arguments
            return await backup(self.cluster, "disk", self.folder / "file", **given)

    def take(self) -> dict[str, bytes]:
        """Take all files away, and give what they held."""
        files = {path.name: path.read_bytes() for path in sorted(self.folder.iterdir())}
        for name in files:
            (self.folder / name).unlink()
        return files


@pytest.fixture
async def run(cluster: Cluster, tmp_path: Path, dask: DaskCluster) -> Run:
    await make_disk(cluster)
    return Run(cluster, tmp_path, dask.address)


@asynccontextmanager
async def observed(folder: Path, address: str, at_read: Callable[[], object]) -> AsyncIterator[tuple[Run, Sheep]]:
    """Give a run, and the server that it reads from. ``at_read`` is called with each read of a data object."""

    def note(request: RequestHeader) -> None:
        if is_armed and request.opcode == Opcode.READ_OBJ and is_data(ObjectBody.unpack(request.body).oid):
            at_read()

    is_armed = False
    async with Sheep(MemoryStore(), on_request=note) as sheep, connect(sheep.host, sheep.port) as cluster:
        await make_disk(cluster)
        is_armed = True
        yield Run(cluster, folder, address), sheep


@pytest.mark.parametrize("base", [None, "a"])
async def test_file_manifest_and_counts_are_those_of_one_process(run: Run, base: str | None) -> None:
    alone = await backup(run.cluster, "disk", run.folder / "file", snapshot="b", base=base)
    expected = run.take()

    summary = await run(base=base)

    assert run.take() == expected
    for name in ("objects_planned", "objects_done", "objects_read", "bytes_read", "records", "bytes_written"):
        assert getattr(summary, name) == getattr(alone, name)
    assert summary.latencies_s


async def test_several_backups_of_one_pass_are_handed_out_alike(run: Run) -> None:
    also = [Delta(run.folder / "full")]
    expected = await run.alone(base="a", also=also)

    await run(base="a", also=also)

    assert run.take() == expected


@pytest.mark.parametrize("arguments", [{}, COMPRESSED], ids=["plain", "zstd"])
async def test_what_was_interrupted_is_gone_on_with(run: Run, arguments: dict[str, Any]) -> None:
    expected = await run.alone(**arguments)
    partial = run.folder / ".file.partial"

    def stop(_: Progress) -> None:
        # A checkpoint was taken behind two records, so that there is one that compression does not hold.
        if (run.folder / ".file.partial.manifest").exists() and partial.stat().st_size > 2 * OBJECT:
            raise Stop

    with pytest.raises(Stop):
        await run(on_progress=stop, **arguments)
    summary = await run(resume=True, **arguments)

    assert summary.bytes_resumed > 0
    assert run.take() == expected


@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_the_piece_of_a_worker_that_is_killed_at_a_random_moment_is_made_again(
    dask: DaskCluster, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    reads, last = 0, rng.randrange(1, 30)

    def kill() -> None:
        nonlocal reads
        reads += 1
        if reads == last:
            dask.kill_worker(rng.randrange(3))

    async with observed(tmp_path, dask.address, kill) as (run, _):
        await run()
        made = run.take()
        expected = await run.alone()

    assert reads > last
    assert made == expected


async def test_pieces_that_were_begun_in_vain_are_counted_and_removed(dask: DaskCluster, tmp_path: Path) -> None:
    killed = False

    def kill() -> None:
        nonlocal killed
        if not killed:
            killed = True
            dask.kill_worker(dask.find_writers(tmp_path / ".file.pieces")[0])

    async with observed(tmp_path, dask.address, kill) as (run, _):
        summary = await run()

    assert summary.retry_causes["worker lost"] == 1
    assert left_in(tmp_path) == ["file", "file.manifest"]


async def test_workers_that_die_again_and_again_end_the_run(dask: DaskCluster, tmp_path: Path) -> None:
    def kill_all() -> None:
        for _ in range(3):
            dask.kill_worker(0)

    async with observed(tmp_path, dask.address, kill_all) as (run, _):
        with pytest.raises(WorkerLost, match="ended 3 times before it was done"):
            await run()

    assert left_in(tmp_path) == []


async def test_what_a_worker_cannot_read_is_the_error_of_the_run(dask: DaskCluster, tmp_path: Path) -> None:
    async with deletable() as (server, cluster):
        await make_disk(cluster)
        run = Run(cluster, tmp_path, dask.address)
        owners = await cluster.read_owners((await cluster.find_vdi("disk", "b")).vdi_id, OBJECTS)
        server.store.remove(data_oid(int(owners[2]), 2))

        with pytest.raises(ObjectReadFailed, match="reading object 2 ") as caught:
            await run()

    assert (caught.value.idx, caught.value.oid) == (2, data_oid(int(owners[2]), 2))


async def test_a_cancelled_run_ends_the_reads_of_the_workers_and_leaves_no_piece(run: Run, sheep: Sheep) -> None:
    connected = sheep.connections

    def stop(progress: Progress) -> None:
        if progress.objects_done:
            raise Stop

    with pytest.raises(Stop):
        await run(on_progress=stop, checkpoint_bytes=1 << 30)

    await until(lambda: sheep.connections == connected)
    assert left_in(run.folder) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_workers_stop_when_the_client_is_interrupted_or_gone(
    dask: DaskCluster, tmp_path: Path, number: signal.Signals
) -> None:
    command = ("backup", "-q", "disk", "-s", "b", tmp_path / "file", "--dask", dask.address)
    with serving(store := disk_store(), "read_obj/1@1+:stall") as served:
        process = start(*command, "-p", served.port)
        assert served.is_reading.wait(30)
        process.send_signal(number)
        assert process.wait(10) in (128 + number, -number)
        await until(lambda: served.sheep.connections == 0)

    with serving(store) as served:
        again = start(*command, "-p", served.port)
        assert again.wait(30) == 0
    assert left_in(tmp_path) == ["file", "file.manifest"]


async def test_workers_with_another_version_are_refused_by_name(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch_pool, "FACTS", FACTS | {"asyncbackup": "9.9"})

    with pytest.raises(WorkersDiffer, match=r"tcp://127.0.0.1:\d+ has asyncbackup .*, and this machine 9.9") as caught:
        await run()

    assert len(caught.value.differences) == 3
    assert left_in(run.folder) == []


async def test_workers_that_see_another_folder_are_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def mark_nothing(*_: object) -> None:
        """Leave nothing that a worker could find."""

    monkeypatch.setattr(FolderScratch, "mark", mark_nothing)

    with pytest.raises(WorkersDiffer, match="cannot use the folder"):
        await run()

    assert left_in(run.folder) == []


async def test_a_scheduler_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch_pool, "_CONNECT_S", 0.5)

    for address in ("tcp://127.0.0.1:1", "127.0.0.1", "nonsense://x:1", "tls://127.0.0.1:1", "ucx://127.0.0.1:1"):
        with pytest.raises(SchedulerUnreachable, match=f"cannot reach a scheduler at {address}: "):
            async with connect_dask(address):
                pass


async def test_what_accepts_connections_and_is_no_scheduler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch_pool, "_GREET_S", 0.5)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with anyio.fail_after(30), pytest.raises(SchedulerUnreachable, match=r"no answer within 0\.5 s"):
            async with connect_dask(address):
                pass


async def test_a_worker_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch_pool, "_ANSWER_S", 3)

    with DaskCluster(tmp_path, workers=2) as some:
        some.workers[0].send_signal(signal.SIGSTOP)
        with anyio.fail_after(30), pytest.raises(WorkersSilent, match="did not answer within 3 s") as caught:
            async with connect_dask(some.address):
                pass

    assert len(caught.value.workers) == 1


async def test_a_scheduler_without_workers_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch_pool, "_JOIN_S", 1)

    with DaskCluster(tmp_path, workers=0) as alone, pytest.raises(NoWorkers, match="has no workers"):
        async with connect_dask(alone.address):
            pass


async def test_a_scheduler_that_dies_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "dask").mkdir()
    (tmp_path / "made").mkdir()

    def kill() -> None:
        assert dying.scheduler is not None
        dying.scheduler.kill()

    with DaskCluster(tmp_path / "dask", workers=1) as dying:
        async with observed(tmp_path / "made", dying.address, kill) as (run, _):
            with pytest.raises(SchedulerLost, match=f"lost the scheduler at {dying.address}"):
                await run()

    assert left_in(tmp_path / "made") == []


async def test_a_scheduler_that_hangs_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch_pool, "_SCHEDULER_S", 1)
    (tmp_path / "dask").mkdir()
    (tmp_path / "made").mkdir()

    def stop() -> None:
        assert hanging.scheduler is not None
        hanging.scheduler.send_signal(signal.SIGSTOP)

    with DaskCluster(tmp_path / "dask", workers=1) as hanging:
        async with observed(tmp_path / "made", hanging.address, stop) as (run, _):
            with anyio.fail_after(30), pytest.raises(SchedulerSilent, match="did not answer within 1 s"):
                await run()


async def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)

    with pytest.raises(ExtraMissing) as caught:
        async with connect_dask("tcp://127.0.0.1:1"):
            pass

    assert caught.value.extra == "dask"
