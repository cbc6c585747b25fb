"""Where the scheduler of Dask dies in the middle of the work, a command says so, and what to do next."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from asyncbackup.wire.constants import Opcode
from tests.cli.command import disk_store, piped, serving, start
from tests.dask_workers import DaskCluster
from tests.object_stores import Exchange, S3Server, name_store
from tests.waiting import until

pytestmark = pytest.mark.slow

Begun = tuple[subprocess.Popen[bytes], Callable[[], bool]]
"""A command, and what tells whether it is in the middle of its work."""

Working = Callable[[DaskCluster, S3Server], AbstractContextManager[Begun]]


@pytest.fixture
def dask(tmp_path: Path, s3: S3Server) -> Iterator[DaskCluster]:
    """Workers of this test alone."""
    (folder := tmp_path / "dask").mkdir()
    with DaskCluster(folder, workers=2, environment=s3.environment) as running:
        yield running


@contextmanager
def backing_up(dask: DaskCluster, s3: S3Server) -> Iterator[Begun]:
    with serving(disk_store(), "read_obj/1@1+:stall") as served:
        url = f"s3://{s3.new_bucket()}/file"
        line = ("backup", "disk", url, "-s", "b", "--dask", dask.address, "-p", served.port)
        yield start(*line, stderr=subprocess.PIPE), served.is_reading.is_set


@contextmanager
def restoring(dask: DaskCluster, s3: S3Server) -> Iterator[Begun]:
    url = f"s3://{s3.new_bucket()}/file"
    with serving(store := disk_store()) as served:
        assert piped("backup", "disk", url, "-s", "b", "-p", served.port).returncode == 0
    with serving(store, "create_and_write_obj/1@1+:stall") as served:
        line = ("restore", url, "--to", "new", "--take-snapshot", "b", "--dask", dask.address, "-p", served.port)
        creations = served.sheep.requests
        yield start(*line, stderr=subprocess.PIPE), lambda: creations[Opcode.CREATE_AND_WRITE_OBJ] > 1


@contextmanager
def verifying(dask: DaskCluster, s3: S3Server) -> Iterator[Begun]:
    url = f"s3://{s3.new_bucket()}/file"
    with serving(disk_store()) as served:
        assert piped("backup", "disk", url, "-s", "b", "-p", served.port).returncode == 0
    is_reading, is_over = threading.Event(), threading.Event()

    def stall(exchange: Exchange) -> Iterable[bytes]:
        is_reading.set()
        is_over.wait(60)
        return exchange.answer()

    s3.faults.append(lambda request: stall if request.method == "GET" else None)
    try:
        yield start("verify", url, "--dask", dask.address, stderr=subprocess.PIPE), is_reading.is_set
    finally:
        is_over.set()


@pytest.mark.parametrize(
    ("working", "advice"),
    [
        (backing_up, "look at its log, start it and its workers again, and then this command"),
        (restoring, "`asyncbackup restore --discard new` removes it"),
        (verifying, "look at its log, start it and its workers again, and then this command"),
    ],
)
async def test_a_scheduler_that_dies_is_named_and_what_to_do(
    dask: DaskCluster, s3: S3Server, monkeypatch: pytest.MonkeyPatch, working: Working, advice: str
) -> None:
    name_store(s3.endpoint, monkeypatch)
    assert dask.scheduler is not None
    with working(dask, s3) as (process, is_in_the_middle):
        await until(is_in_the_middle)
        dask.scheduler.kill()
        _, err = process.communicate(timeout=60)

    assert process.returncode == 2
    assert err.startswith(f"asyncbackup: lost the scheduler at {dask.address}; ".encode())
    assert advice.encode() in err
    assert err.count(b"\n") == 1
