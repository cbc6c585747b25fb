"""Workers of Dask make backups in an object store, prove and restore them, with keys of their own."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from distributed.protocol import pickle

from asyncbackup import Cluster, Dialect, Progress, Summary, backup, compare, connect, restore, verify
from asyncbackup.dispatch.pieces import DaskWorkers
from asyncbackup.dispatch.pool import connect_dask
from asyncbackup.dispatch.restore import DaskFillers
from asyncbackup.dispatch.verify import verify_over
from asyncbackup.engine.chain import ChainOptions
from asyncbackup.errors import WorkersDiffer
from asyncbackup.sheep import MemoryStore, Sheep
from asyncbackup.storage import Access, Layers
from asyncbackup.wire.constants import Opcode
from asyncbackup.wire.messages import ObjectBody, RequestHeader
from asyncbackup.wire.oid import is_data
from tests.cli.command import disk_store, piped, serving, start
from tests.dask_workers import DaskCluster
from tests.disks import make_disk
from tests.object_stores import REGION, SECRET, S3Server, name_store
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_pieces")]


class Stop(Exception):
    """Ends a run."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, running_s3: S3Server) -> Iterator[DaskCluster]:
    with DaskCluster(tmp_path_factory.mktemp("dask"), environment=running_s3.environment) as running:
        yield running


class Run:
    """Backs up snapshot b of the disk into a bucket of its own, a piece for each object."""

    def __init__(self, cluster: Cluster, s3: S3Server, dask: DaskCluster) -> None:
        self.cluster = cluster
        self.s3 = s3
        self.bucket = s3.new_bucket()
        self.url = f"s3://{self.bucket}/folder/file"
        self.address = dask.address
        self.access = Access(s3.options)

    async def alone(self, **arguments: Any) -> dict[str, bytes]:
        given: dict[str, Any] = {"snapshot": "b", "dialect": Dialect.DOG} | arguments
        await backup(self.cluster, "disk", self.url, access=self.access, **given)
        return self.content

    async def __call__(self, **arguments: Any) -> Summary:
        given: dict[str, Any] = {"snapshot": "b", "dialect": Dialect.DOG, "replace": True} | arguments
        async with connect_dask(self.address) as pool:
            workers = DaskWorkers(pool)
            return await backup(self.cluster, "disk", self.url, access=self.access, workers=workers, **given)

    @property
    def content(self) -> dict[str, bytes]:
        return {name: self.s3.content(self.bucket, name) for name in self.s3.objects(self.bucket)}

    @property
    def is_empty(self) -> bool:
        return not self.content and not self.s3.uploads(self.bucket)


@pytest.fixture
async def run(cluster: Cluster, s3: S3Server, dask: DaskCluster) -> Run:
    await make_disk(cluster)
    return Run(cluster, s3, dask)


@asynccontextmanager
async def observed(s3: S3Server, dask: DaskCluster, at_read: Callable[[], object]) -> AsyncIterator[tuple[Run, Sheep]]:
    """Give a run, and the server that it reads from. ``at_read`` is called with each read of a data object."""

    def note(request: RequestHeader) -> None:
        if is_armed and request.opcode == Opcode.READ_OBJ and is_data(ObjectBody.unpack(request.body).oid):
            at_read()

    is_armed = False
    async with Sheep(MemoryStore(), on_request=note) as sheep, connect(sheep.host, sheep.port) as cluster:
        await make_disk(cluster)
        run = Run(cluster, s3, dask)
        is_armed = True
        yield run, sheep


@pytest.mark.parametrize("layers", [None, Layers(zstd_level=3)], ids=["plain", "zstd"])
async def test_object_and_manifest_are_those_of_one_process(run: Run, layers: Layers | None) -> None:
    expected = await run.alone(layers=layers)

    await run(layers=layers)

    assert run.content == expected
    assert not run.s3.uploads(run.bucket)


async def test_the_piece_of_a_worker_that_is_killed_is_made_again(s3: S3Server, dask: DaskCluster) -> None:
    reads = 0

    def kill() -> None:
        nonlocal reads
        reads += 1
        if reads == 5:
            dask.kill_worker(0)

    async with observed(s3, dask, kill) as (run, _):
        await run()
        made = run.content
        expected = await run.alone(replace=True)

    assert made == expected
    assert not s3.uploads(run.bucket)


async def test_a_run_that_ends_early_ends_the_reads_of_the_workers_and_leaves_no_piece(
    s3: S3Server, dask: DaskCluster
) -> None:
    def stop(progress: Progress) -> None:
        if progress.objects_done:
            raise Stop

    async with observed(s3, dask, lambda: None) as (run, sheep):
        connected = sheep.connections
        with pytest.raises(Stop):
            await run(on_progress=stop)

        assert sheep.connections == connected
        assert run.is_empty


async def test_the_next_run_removes_what_a_killed_one_left(
    s3: S3Server, dask: DaskCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_store(s3.endpoint, monkeypatch)
    bucket = s3.new_bucket()
    command = ("backup", "-q", "disk", "-s", "b", f"s3://{bucket}/file", "--dask", dask.address)
    with serving(store := disk_store(), "read_obj/1@1+:stall") as served:
        process = start(*command, "-p", served.port)
        assert served.is_reading.wait(30)
        process.send_signal(signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL
        await until(lambda: served.sheep.connections == 0)
    assert all(name.startswith(".file.pieces/") for name in s3.objects(bucket))

    with serving(store) as served:
        assert start(*command, "-p", served.port).wait(60) == 0
    assert s3.objects(bucket) == ["file", "file.manifest"]


async def test_workers_without_keys_are_refused_by_name_before_anything_is_read(
    run: Run, s3: S3Server, tmp_path: Path
) -> None:
    without = {"AWS_REGION": REGION, "HOME": str(tmp_path)}
    run.access = Access(s3.options | {"retry_timeout": "1", "max_retries": "1"})
    with DaskCluster(tmp_path, workers=1, environment=without) as lacking:
        run.address = lacking.address
        with pytest.raises(WorkersDiffer, match=r"cannot use the store at s3://.*/\.file\.pieces: "):
            await run()

    assert run.is_empty


def note_what_is_sent(monkeypatch: pytest.MonkeyPatch) -> bytearray:
    """Collect all that Dask makes bytes of."""
    sent = bytearray()
    real: Callable[..., bytes] = pickle.dumps

    def note(value: Any, **given: Any) -> bytes:
        content = real(value, **given)
        sent.extend(content)
        return content

    monkeypatch.setattr(pickle, "dumps", note)
    return sent


async def test_no_secret_goes_to_dask(run: Run, dask: DaskCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = note_what_is_sent(monkeypatch)

    await run()

    assert b".file.pieces" in sent
    assert SECRET.encode() not in sent
    assert SECRET.encode() not in dask.log
    assert SECRET not in repr(run.access)


async def test_workers_prove_objects_as_one_process_does(run: Run) -> None:
    await run.alone()
    options = ChainOptions(access=run.access)

    async with connect_dask(run.address) as pool:
        report = await verify_over(pool, [run.url], chain_options=options)

    assert report.is_proved
    assert report.as_dict() == (await verify([run.url], chain_options=options)).as_dict()


async def test_workers_restore_objects_and_no_secret_goes_to_them(
    run: Run, s3: S3Server, dask: DaskCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = note_what_is_sent(monkeypatch)
    await run.alone(layers=Layers(zstd_level=3))
    s3.requests.clear()
    options = ChainOptions(access=run.access)

    async with connect_dask(run.address) as pool:
        summary = await restore(
            run.cluster, [run.url], "new", snapshot="r", fillers=DaskFillers(pool), chain_options=options
        )

    assert summary.checked
    assert (await compare(run.cluster, [run.url], "new", snapshot="r", chain_options=options)).is_good
    # Each share opens the manifest by itself.
    assert s3.count_requests("GET", "folder/file.manifest") > 3
    assert run.url.encode() in sent
    assert SECRET.encode() not in sent
    assert SECRET.encode() not in dask.log


async def test_workers_without_keys_are_refused_before_a_vdi_is_made(run: Run, tmp_path: Path) -> None:
    await run.alone()
    without = {"AWS_REGION": REGION, "HOME": str(tmp_path)}
    access = Access(run.s3.options | {"retry_timeout": "1", "max_retries": "1"})
    with DaskCluster(tmp_path, workers=1, environment=without) as lacking:
        async with connect_dask(lacking.address) as pool:
            with pytest.raises(WorkersDiffer, match="cannot look: "):
                await restore(
                    run.cluster,
                    [run.url],
                    "new",
                    snapshot="r",
                    fillers=DaskFillers(pool),
                    chain_options=ChainOptions(access=access),
                )

    assert not await run.cluster.has_vdi("new")


async def test_workers_that_cannot_read_the_objects_are_refused(run: Run, s3: S3Server, tmp_path: Path) -> None:
    await run.alone()
    elsewhere = s3.environment | {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    options = {key: value for key, value in s3.options.items() if key != "endpoint"}
    access = Access(options | {"retry_timeout": "1", "max_retries": "1"})
    with DaskCluster(tmp_path, workers=1, environment=elsewhere) as lacking, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
        async with connect_dask(lacking.address) as pool:
            with pytest.raises(WorkersDiffer, match=r"cannot look: .*the store cannot be reached"):
                await verify_over(pool, [run.url], chain_options=ChainOptions(access=access))


def test_the_command_takes_urls(s3: S3Server, dask: DaskCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    name_store(s3.endpoint, monkeypatch)
    url = f"s3://{s3.new_bucket()}/file"
    with serving(disk_store()) as served:
        done = piped("backup", "disk", "-s", "b", url, "--zstd", "--dask", dask.address, "-p", served.port)
    assert done.returncode == 0, done.stderr
    assert SECRET.encode() not in done.stdout + done.stderr
    done = piped("verify", url, "--dask", dask.address)
    assert done.returncode == 0, done.stderr
    assert b"good, all data is as its manifest says" in done.stdout
    with serving(disk_store()) as served:
        to = ("--to", "new", "--take-snapshot", "r", "-p", served.port)
        done = piped("restore", url, *to, "--dask", dask.address)
        assert done.returncode == 0, done.stderr
        assert b"took snapshot r" in done.stdout
        done = piped("verify", url, "--against", "new", "-s", "r", "-p", served.port)
    assert done.returncode == 0, done.stderr
