"""A restore that workers of Dask make is that of one process, whatever becomes of them, now or later."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from asyncbackup import (
    BaseSnapshot,
    ChainOptions,
    ClientOptions,
    Cluster,
    Dialect,
    Progress,
    RestoreSummary,
    Volume,
    WindowOptions,
    backup,
    compare,
    connect,
    discard,
    restore,
)
from asyncbackup.client.construction import UNFINISHED_TAG
from asyncbackup.dispatch import pool as dispatch_pool
from asyncbackup.dispatch.pool import connect_dask
from asyncbackup.dispatch.restore import DaskFillers
from asyncbackup.errors import (
    DigestMismatch,
    LeftUnfinished,
    ManifestMissing,
    MemoryTooSmall,
    ObjectsTooLarge,
    WorkersDiffer,
)
from asyncbackup.sheep import Fault, MemoryStore, Sheep
from asyncbackup.wire.constants import HEADER_SIZE, Opcode
from asyncbackup.wire.messages import ObjectBody, RequestHeader
from asyncbackup.wire.oid import is_data
from tests.cli.command import piped, start
from tests.dask_workers import DaskCluster
from tests.disks import OBJECT, OBJECTS, content_of, make_disk, noise
from tests.faults.proxy import serve
from tests.waiting import until

pytestmark = pytest.mark.slow

ROUNDS = 3


class Stop(Exception):
    """Ends a run."""


def is_creation(request: RequestHeader) -> bool:
    """Tell whether a request creates a data object."""
    return request.opcode == Opcode.CREATE_AND_WRITE_OBJ and is_data(ObjectBody.unpack(request.body).oid)


@dataclass
class Disk:
    """A served disk, the chain of its backups, and what its snapshot b holds."""

    store: MemoryStore
    sheep: Sheep
    cluster: Cluster
    chain: list[str]
    content: dict[int, bytes]
    at_create: Callable[[int], object] = lambda _: None
    """Is called with the number of each creation of a data object, from 1 on, before it is served."""
    creations: int = field(default=0, init=False)

    async def restore(
        self, address: str, chain: list[str] | None = None, cluster: Cluster | None = None, **arguments: Any
    ) -> RestoreSummary:
        async with connect_dask(address) as pool:
            given: dict[str, Any] = {"snapshot": "b", "fillers": DaskFillers(pool)} | arguments
            return await restore(cluster or self.cluster, chain or self.chain, "new", **given)

    async def check(self) -> None:
        """Check that the new VDI and its snapshot hold what the disk holds."""
        assert (await self.cluster.find_vdi("new")).tag == ""
        for snapshot in (None, "b"):
            assert await content_of(self.cluster, "new", snapshot) == self.content
        report = await compare(self.cluster, self.chain, "new", snapshot="b")
        assert report.is_good


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[Disk]:
    def note(request: RequestHeader) -> None:
        if is_creation(request):
            made.creations += 1
            made.at_create(made.creations)

    store = MemoryStore()
    # It never opens another one, so the others are those of workers.
    one = ClientOptions(connections=1)
    async with Sheep(store, on_request=note) as sheep, connect(sheep.host, sheep.port, one) as cluster:
        made = Disk(store, sheep, cluster, [str(tmp_path / "a"), str(tmp_path / "b")], {})
        await make_disk(cluster)
        await backup(cluster, "disk", made.chain[0], snapshot="a")
        await backup(cluster, "disk", made.chain[1], snapshot="b", base="a")
        made.content = await content_of(cluster, "disk", "b")
        made.creations = 0
        yield made


def spoil(path: str) -> None:
    data = bytearray(Path(path).read_bytes())
    data[2 * OBJECT] ^= 1
    Path(path).write_bytes(data)


def remove_manifest(path: str) -> None:
    Path(f"{path}.manifest").unlink()


async def test_vdi_and_counts_are_those_of_one_process(dask: DaskCluster, disk: Disk) -> None:
    told: list[Progress] = []
    summary = await disk.restore(dask.address, on_progress=told.append)

    await disk.check()
    alone = await restore(disk.cluster, disk.chain, "alone", snapshot="b")
    for name in ("size", "copies", "origin", "objects_done", "bytes_written", "checked", "snapshot"):
        assert getattr(summary, name) == getattr(alone, name)
    assert summary.workers_lost == []
    assert told[-1].objects_done == told[-1].objects_planned == disk.creations // 2


async def test_a_clone_takes_from_its_base_what_the_backups_lack(dask: DaskCluster, disk: Disk) -> None:
    await disk.restore(dask.address, [disk.chain[1]], base=BaseSnapshot(disk.cluster, "a"))

    await disk.check()
    new, base = await disk.cluster.find_vdi("new", "b"), await disk.cluster.find_vdi("disk", "a")
    assert new.parent_vdi_id == base.vdi_id
    owners = await disk.cluster.read_owners(new.vdi_id, OBJECTS)
    assert set(owners.tolist()) == {0, base.vdi_id, new.vdi_id}


@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_the_share_of_a_worker_that_is_killed_at_a_random_moment_is_written_again(
    dask: DaskCluster, disk: Disk, seed: int
) -> None:
    rng = random.Random(seed)
    last = rng.randrange(1, 7)
    disk.at_create = lambda number: dask.kill_worker(rng.randrange(3)) if number == last else None

    await disk.restore(dask.address)

    await disk.check()


@dataclass
class Slow:
    """Passes requests on to a server, but keeps the first creation of a data object until it is let go."""

    upstream: int
    at_creation: Callable[[], object]
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    is_kept: bool = False

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        back = asyncio.create_task(self._pass_back(server_reader, writer))
        try:
            while True:
                header = await reader.readexactly(HEADER_SIZE)
                payload = await reader.readexactly(RequestHeader.unpack(header).payload_length)
                if not self.is_kept and is_creation(RequestHeader.unpack(header)):
                    self.is_kept = True
                    self.at_creation()
                    await self.let_go.wait()
                server_writer.write(header + payload)
        finally:
            server_writer.close()
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)

    async def _pass_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)


async def test_a_worker_that_slept_in_a_write_until_the_vdi_is_used_changes_nothing(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL", "2s")
    (folder := tmp_path / "dask").mkdir()
    used = {idx: noise(100 + idx, OBJECT) for idx in range(OBJECTS)}
    connected = disk.sheep.connections

    def freeze() -> None:
        own.workers[0].send_signal(signal.SIGSTOP)
        own.start_worker()

    slow = Slow(disk.sheep.port, freeze)
    with DaskCluster(folder, workers=1) as own:
        async with serve(slow.handle) as port:
            async with connect("127.0.0.1", port) as behind:
                summary = await disk.restore(own.address, cluster=behind)
            await disk.check()
            volume = await Volume.open(disk.cluster, "new")
            for idx, content in used.items():
                await volume.write(idx * OBJECT, content)
            before = disk.creations
            slow.let_go.set()
            await until(lambda: disk.creations > before)
            own.workers[0].send_signal(signal.SIGCONT)
            await until(lambda: disk.sheep.connections == connected)

    assert len(summary.workers_lost) == 1
    assert await content_of(disk.cluster, "new", None) == used
    assert await content_of(disk.cluster, "new", "b") == disk.content


async def test_a_restore_that_fails_is_removed_when_all_workers_have_ended(dask: DaskCluster, disk: Disk) -> None:
    spoil(disk.chain[0])
    connected = disk.sheep.connections

    with pytest.raises(DigestMismatch):
        await disk.restore(dask.address)

    assert disk.sheep.connections == connected
    assert not await disk.cluster.has_vdi("new")


async def test_a_restore_that_fails_is_left_where_a_lost_worker_may_still_write(dask: DaskCluster, disk: Disk) -> None:
    disk.at_create = lambda number: dask.kill_worker(0) if number == 1 else None

    def stop(_: Progress) -> None:
        if disk.creations:
            raise Stop

    with pytest.raises(LeftUnfinished, match=r"workers may still write into it \(lost were tcp://.*: end them before"):
        await disk.restore(dask.address, on_progress=stop)

    assert (await disk.cluster.find_vdi("new")).tag == UNFINISHED_TAG
    await discard(disk.cluster, "new")
    assert not await disk.cluster.has_vdi("new")


async def test_a_restore_is_left_where_a_worker_does_not_answer(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch_pool, "_END_S", 1)
    (folder := tmp_path / "dask").mkdir()
    with DaskCluster(folder, workers=2) as own:
        disk.at_create = lambda number: own.workers[0].send_signal(signal.SIGSTOP) if number == 1 else None

        def stop(_: Progress) -> None:
            if disk.creations:
                raise Stop

        with pytest.raises(LeftUnfinished, match=r"\(not all of them answer\)"):
            await disk.restore(own.address, on_progress=stop)


async def test_a_scheduler_that_dies_ends_the_run_and_leaves_the_vdi(tmp_path: Path, disk: Disk) -> None:
    (folder := tmp_path / "dask").mkdir()

    def kill(_: int) -> None:
        assert dying.scheduler is not None
        dying.scheduler.kill()

    disk.at_create = kill
    with DaskCluster(folder, workers=1) as dying, pytest.raises(LeftUnfinished, match="not all of them answer"):
        await disk.restore(dying.address)

    assert (await disk.cluster.find_vdi("new")).tag == UNFINISHED_TAG


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_workers_stop_when_the_client_is_interrupted_or_gone(
    dask: DaskCluster, disk: Disk, number: signal.Signals
) -> None:
    def stop(request: RequestHeader) -> None:
        if is_creation(request) and sheep.requests[Opcode.CREATE_AND_WRITE_OBJ] == 1:
            process.send_signal(number)

    hanging = [Fault.parse("create_and_write_obj/1@1+:stall")]
    async with Sheep(disk.store, faults=hanging, on_request=stop) as sheep:
        to = ("--to", "new", "--take-snapshot", "b", "--dask", dask.address, "-p", str(sheep.port))
        process = start("restore", "-q", *disk.chain, *to)
        await until(lambda: process.poll() in (128 + number, -number))
        await until(lambda: sheep.connections == 0)

    async with Sheep(disk.store) as sheep, connect(sheep.host, sheep.port) as cluster:
        assert await cluster.has_vdi("new") == (number == signal.SIGKILL)
        if number == signal.SIGKILL:
            assert (await cluster.find_vdi("new")).tag == UNFINISHED_TAG
            await discard(cluster, "new")


async def test_workers_that_see_other_files_are_refused_before_anything_is_made(
    dask: DaskCluster, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(disk.chain[0]).parent)

    with pytest.raises(WorkersDiffer, match="sees another /proc/self/cwd/a, or none"):
        await disk.restore(dask.address, ["/proc/self/cwd/a"])

    assert not await disk.cluster.has_vdi("new")


async def test_backups_without_a_manifest_are_refused(dask: DaskCluster, disk: Disk) -> None:
    remove_manifest(disk.chain[0])

    with pytest.raises(ManifestMissing):
        await disk.restore(
            dask.address, disk.chain[:1], chain_options=ChainOptions(Dialect.COLLIE, OBJECT, OBJECTS * OBJECT)
        )


async def test_objects_that_need_several_requests_are_refused(dask: DaskCluster, disk: Disk) -> None:
    with pytest.raises(MemoryTooSmall):
        await disk.restore(dask.address, options=WindowOptions(memory=8 << 20))

    await disk.cluster.create_vdi("large", 8 << 20, block_size_shift=23)
    await (await Volume.open(disk.cluster, "large")).write(0, noise(1, 512))
    await disk.cluster.create_snapshot("large", "b")
    file = f"{disk.chain[0]}.large"
    await backup(disk.cluster, "large", file, snapshot="b")
    with pytest.raises(ObjectsTooLarge, match="objects of 4194304 bytes at most, these have 8388608"):
        await disk.restore(dask.address, [file])

    assert not await disk.cluster.has_vdi("new")


@pytest.mark.parametrize(
    "given",
    [
        (),
        ("--take-snapshot", "b", "--onto"),
        ("--take-snapshot", "b", "--resume"),
        ("--take-snapshot", "b", "--base-image", "image"),
        ("--take-snapshot", "b", "-"),
    ],
    ids=lambda given: given[-1] if given else "no snapshot",
)
def test_what_workers_cannot_do_is_wrong_use(given: tuple[str, ...]) -> None:
    done = piped("restore", "file", "--to", "new", *given, "--dask", "local")

    assert done.returncode == 64, done.stderr
