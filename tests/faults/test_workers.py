"""A backup that several processes make is that of one, whatever becomes of them."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from asyncbackup import (
    Cluster,
    Delta,
    Dialect,
    Layers,
    NullTarget,
    Progress,
    Summary,
    WindowOptions,
    backup,
    connect,
)
from asyncbackup.engine import pieces
from asyncbackup.errors import MemoryTooSmall, ObjectReadFailed, TargetFull, WorkerLost
from asyncbackup.sheep import MemoryStore, Sheep
from asyncbackup.storage.publication import MANIFEST, NAME_MAX
from asyncbackup.wire.constants import Opcode
from asyncbackup.wire.messages import ObjectBody, RequestHeader
from asyncbackup.wire.oid import data_oid, is_data
from tests.disks import OBJECT, OBJECTS, make_disk
from tests.faults.deletion import deletable
from tests.folders import left_in

pytestmark = pytest.mark.slow


COMPRESSED: dict[str, Any] = {"dialect": Dialect.DOG, "layers": Layers(zstd_level=1, threads=2)}


class Stop(Exception):
    """Ends a run."""


class Run:
    """Backs up snapshot b of the disk with two processes, a piece for each object."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder

    async def __call__(self, processes: int = 2, **arguments: Any) -> Summary:
        given: dict[str, Any] = {"snapshot": "b", "checkpoint_bytes": 1} | arguments
        return await backup(self.cluster, "disk", self.folder / "file", processes=processes, **given)

    def take(self) -> dict[str, bytes]:
        """Take all files away, and give what they held."""
        files = {path.name: path.read_bytes() for path in sorted(self.folder.iterdir())}
        for name in files:
            (self.folder / name).unlink()
        return files


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_LEAST_OBJECTS", 1)
    monkeypatch.setattr(pieces, "_MOST_OBJECTS", 1)


@pytest.fixture
async def run(cluster: Cluster, tmp_path: Path) -> Run:
    await make_disk(cluster)
    (tmp_path / "folder").mkdir()
    return Run(cluster, tmp_path / "folder")


def is_kept(folder: Path) -> bool:
    """Tell whether a checkpoint was taken behind two records, so that there is one that compression does not hold."""
    partial = folder / ".file.partial"
    return (folder / ".file.partial.manifest").exists() and partial.stat().st_size > 2 * OBJECT


def children() -> list[int]:
    """Give the workers that this process has started. Python's multiprocessing may have started others."""
    started = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in started if b"anyio.to_process" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.mark.parametrize("base", [None, "a"])
@pytest.mark.parametrize("dialect", Dialect)
async def test_file_manifest_and_counts_are_those_of_one_process(run: Run, dialect: Dialect, base: str | None) -> None:
    alone = await run(1, dialect=dialect, base=base)
    expected = run.take()

    summary = await run(dialect=dialect, base=base)

    assert run.take() == expected
    for name in ("objects_planned", "objects_done", "objects_read", "bytes_read", "records", "bytes_written"):
        assert getattr(summary, name) == getattr(alone, name)
    assert summary.latencies_s


async def test_several_backups_of_one_pass_are_split_alike(run: Run) -> None:
    also = [Delta(run.folder / "full")]
    await run(1, base="a", also=also)
    expected = run.take()

    await run(base="a", also=also)

    assert run.take() == expected


@pytest.mark.parametrize("arguments", [{}, COMPRESSED], ids=["plain", "zstd"])
async def test_what_was_interrupted_is_gone_on_with_by_any_number_of_processes(
    run: Run, arguments: dict[str, Any]
) -> None:
    await run(1, **arguments)
    expected = run.take()

    def stop(_: Progress) -> None:
        if is_kept(run.folder):
            raise Stop

    for first, second in ((2, 2), (2, 1), (1, 2)):
        with pytest.raises(Stop):
            await run(first, on_progress=stop, options=WindowOptions(workers=1), **arguments)
        summary = await run(second, resume=True, **arguments)
        assert summary.bytes_resumed > 0
        assert run.take() == expected


async def test_the_piece_of_a_process_that_is_killed_is_made_again(tmp_path: Path) -> None:
    killed: list[int] = []

    def kill(request: RequestHeader) -> None:
        body = ObjectBody.unpack(request.body)
        if armed and request.opcode == Opcode.READ_OBJ and is_data(body.oid) and not killed:
            killed.append(children()[0])
            os.kill(killed[0], signal.SIGKILL)

    armed = False
    async with Sheep(MemoryStore(), on_request=kill) as sheep, connect(sheep.host, sheep.port) as cluster:
        await make_disk(cluster)
        run = Run(cluster, tmp_path)
        await run(1)
        expected = run.take()
        armed = True
        summary = await run()

    assert killed
    assert summary.retry_causes["worker process lost"] == 1
    assert run.take() == expected


async def test_processes_that_die_again_and_again_end_the_run(tmp_path: Path) -> None:
    def kill(request: RequestHeader) -> None:
        if request.opcode == Opcode.READ_OBJ and is_data(ObjectBody.unpack(request.body).oid):
            for child in children():
                os.kill(child, signal.SIGKILL)

    async with Sheep(MemoryStore(), on_request=kill) as sheep, connect(sheep.host, sheep.port) as cluster:
        await make_disk(cluster)
        with pytest.raises(WorkerLost, match="ended 3 times before it was done"):
            await Run(cluster, tmp_path)()

    assert left_in(tmp_path) == []


@pytest.mark.parametrize(("program", "why"), [("/bin/false", ""), ("/none", ": No such file or directory")])
async def test_processes_that_do_not_start_end_the_run(
    run: Run, monkeypatch: pytest.MonkeyPatch, program: str, why: str
) -> None:
    monkeypatch.setattr(sys, "executable", program)

    with pytest.raises(WorkerLost, match=f"ended 3 times before it was done{why}$"):
        await run()

    assert left_in(run.folder) == []


@pytest.mark.parametrize("limit", [OBJECT // 2, OBJECT + 4096])
async def test_a_full_disk_says_how_much_room_pieces_and_backup_need(run: Run, limit: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))  # The first one does for no piece, the other for one.
    try:
        with pytest.raises(TargetFull) as caught:
            await run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    written = (await run(1, resume=True)).bytes_written
    assert caught.value.needed is not None
    assert caught.value.enough is not None
    assert caught.value.needed <= written
    assert caught.value.enough >= written - limit + 4 * OBJECT


async def test_what_a_process_cannot_read_is_the_error_of_the_run(tmp_path: Path) -> None:
    async with deletable() as (server, cluster):
        await make_disk(cluster)
        run = Run(cluster, tmp_path)
        owners = await cluster.read_owners((await cluster.find_vdi("disk", "b")).vdi_id, OBJECTS)
        server.store.remove(data_oid(int(owners[2]), 2))

        with pytest.raises(ObjectReadFailed, match="reading object 2 ") as caught:
            await run()
        assert (caught.value.idx, caught.value.oid) == (2, data_oid(int(owners[2]), 2))
        run.take()
        await run(1, skip_unreadable=True)
        expected = run.take()
        summary = await run(skip_unreadable=True)

    assert list(summary.missing) == [2]
    assert run.take() == expected


async def test_a_cancelled_run_leaves_no_process_that_works_and_no_piece(run: Run) -> None:
    def stop(progress: Progress) -> None:
        if progress.objects_done:
            raise Stop

    with pytest.raises(Stop):
        await run(on_progress=stop, checkpoint_bytes=1 << 30)

    assert left_in(run.folder) == []


@pytest.mark.parametrize("processes", [1, 2])
async def test_pieces_that_a_killed_run_left_are_removed_by_any_number_of_processes(run: Run, processes: int) -> None:
    left = run.folder / ".file.pieces"
    left.mkdir()
    (left / "0").write_bytes(b"left")

    await run(processes)

    assert left_in(run.folder) == ["file", "file.manifest"]


async def test_the_longest_name_of_a_file_with_a_manifest_leaves_room_for_its_pieces(run: Run) -> None:
    name = "n" * (NAME_MAX - len(MANIFEST))

    await backup(run.cluster, "disk", run.folder / name, snapshot="b", processes=2)

    assert left_in(run.folder) == [name, name + MANIFEST]


async def test_pieces_of_another_file_stay_whatever_the_name(run: Run) -> None:
    (run.folder / ".other.pieces").mkdir()

    await backup(run.cluster, "disk", run.folder / "*", snapshot="b", processes=2)

    assert left_in(run.folder) == ["*", "*.manifest", ".other.pieces"]


@pytest.mark.parametrize(("parent", "code"), [("os.getppid()", 0), ("1 << 30", 1)])
def test_a_process_whose_parent_has_ended_makes_no_piece(parent: str, code: int) -> None:
    script = f"import os; from asyncbackup.engine import processes; processes._end_with({parent})"

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == code


async def test_memory_is_shared_out_and_refused_where_it_is_too_little(run: Run) -> None:
    with pytest.raises(MemoryTooSmall):
        await run(8, options=WindowOptions(memory=8 * OBJECT))


async def test_only_files_take_what_several_processes_make(run: Run) -> None:
    with pytest.raises(ValueError, match="expected files"):
        await backup(run.cluster, "disk", NullTarget(), snapshot="b", processes=2)
