"""Joining that is cancelled, killed, or runs out of room; pieces that lack objects."""

from __future__ import annotations

import itertools
import resource
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from asyncbackup import Cluster, Progress, Shard, backup, join
from asyncbackup.errors import ChangedMeanwhile, ObjectReadFailed, TargetFull
from asyncbackup.format.manifest import ManifestEncoder, RecordDigests, Subject
from asyncbackup.storage.publication import manifest_path
from asyncbackup.wire.oid import data_oid
from tests.cli.command import PROGRAM
from tests.disks import OBJECT, OBJECTS, make_disk
from tests.faults.deletion import Deletable, deletable
from tests.faults.steps import WAYS, Cancel, run_cancelled
from tests.folders import left_in
from tests.pieces import make_pieces, read_both

KILLING = """
import os, signal, sys
from asyncbackup.cli.main import run

calls, last = 0, int(sys.argv.pop(1))

def counted(function):
    def call(*arguments, **options):
        global calls
        calls += 1
        if calls == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call

for name in ("copy_file_range", "writev", "pwrite", "fsync", "ftruncate", "link", "rename", "replace", "unlink"):
    setattr(os, name, counted(getattr(os, name)))
sys.exit(run(sys.argv[1:]))
"""
"""Runs the command line, and kills it before the call with that number which changes files."""


@pytest.fixture
async def pieces(cluster: Cluster, tmp_path: Path) -> list[Path]:
    await make_disk(cluster)
    (tmp_path / "pieces").mkdir()
    await backup(cluster, "disk", tmp_path / "whole", snapshot="b")
    return await make_pieces(cluster, tmp_path / "pieces", 3)


@pytest.mark.slow
@pytest.mark.parametrize("cancel", WAYS, ids=["task", "scope"])
async def test_joining_that_is_cancelled_at_any_step_leaves_all_or_nothing(
    pieces: list[Path], tmp_path: Path, cancel: Cancel
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()

    async def work() -> None:
        await join(pieces, folder / "joined")

    for at in itertools.count():
        was_cut = await run_cancelled(cancel, work, at)
        if left_in(folder):
            assert left_in(folder) == ["joined", "joined.manifest"], at
            assert read_both(folder / "joined") == read_both(tmp_path / "whole")
            (folder / "joined").unlink()
            (folder / "joined.manifest").unlink()
        if not was_cut:
            break

    assert at, "there were steps to be cancelled at"


@pytest.mark.slow
async def test_joining_that_is_killed_at_any_call_leaves_nothing_that_a_reader_takes_for_the_backup(
    pieces: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    names = {"joined", "joined.manifest"}
    for last in itertools.count(1):
        line = [sys.executable, "-c", KILLING, last, "join", *pieces, "--to", folder / "joined", "-q", "--force"]
        ended = await anyio.run_process(list(map(str, line)), check=False)
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        if "joined" in left_in(folder):
            assert (folder / "joined").read_bytes() == (tmp_path / "whole").read_bytes()
            verified = await anyio.run_process([*PROGRAM, "verify", str(folder / "joined")], check=False)
            # Either both have their names, or it says which rename is due.
            assert (verified.returncode == 0) == (names <= set(left_in(folder))), verified.stdout

    assert last > 5
    assert read_both(folder / "joined") == read_both(tmp_path / "whole")
    assert left_in(folder) == sorted(names)


async def test_a_full_disk_says_how_much_room_is_missing_and_leaves_nothing(pieces: list[Path], tmp_path: Path) -> None:
    limit = 4 * OBJECT
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(TargetFull) as caught:
            await join(pieces, tmp_path / "joined")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert caught.value.needed is not None
    assert (tmp_path / "whole").stat().st_size - limit <= caught.value.needed
    assert left_in(tmp_path) == ["pieces", "whole", "whole.manifest"]


@pytest.fixture
async def lossy(tmp_path: Path) -> AsyncIterator[tuple[Deletable, Cluster]]:
    """A disk of which an object of snapshot b is lost."""
    async with deletable() as (server, cluster):
        await make_disk(cluster)
        owners = await cluster.read_owners((await cluster.find_vdi("disk", "b")).vdi_id, OBJECTS)
        server.store.remove(data_oid(int(owners[2]), 2))
        yield server, cluster


@pytest.mark.parametrize("count", [2, OBJECTS])
async def test_pieces_that_lack_objects_join_to_what_one_run_that_lacks_them_makes(
    lossy: tuple[Deletable, Cluster], tmp_path: Path, count: int
) -> None:
    _, cluster = lossy
    await backup(cluster, "disk", tmp_path / "whole", snapshot="b", skip_unreadable=True)
    pieces = await make_pieces(cluster, tmp_path, count, skip_unreadable=True)

    summary = await join(pieces, tmp_path / "joined")

    assert list(summary.missing) == [2]
    assert read_both(tmp_path / "joined") == read_both(tmp_path / "whole")


async def test_only_the_piece_with_a_lost_object_fails_and_need_be_made_to_lack_it(
    lossy: tuple[Deletable, Cluster], tmp_path: Path
) -> None:
    _, cluster = lossy
    await backup(cluster, "disk", tmp_path / "whole", snapshot="b", skip_unreadable=True)
    with pytest.raises(ObjectReadFailed):
        await make_pieces(cluster, tmp_path, 2)
    await backup(cluster, "disk", tmp_path / "piece1", snapshot="b", shard=Shard(1, 2), skip_unreadable=True)
    await backup(cluster, "disk", tmp_path / "piece2", snapshot="b", shard=Shard(2, 2))

    await join([tmp_path / "piece1", tmp_path / "piece2"], tmp_path / "joined")

    assert read_both(tmp_path / "joined") == read_both(tmp_path / "whole")


async def test_a_manifest_that_is_replaced_while_pieces_are_joined_ends_it(pieces: list[Path], tmp_path: Path) -> None:
    last = manifest_path(pieces[-1])
    first, *records, _ = last.read_bytes().splitlines(keepends=True)
    encoder = ManifestEncoder()
    other = [encoder.opening(replace(Subject.decode(first), copies=2))]
    other += [encoder.record(RecordDigests.decode(line)) for line in records]
    other.append(encoder.ending(pieces[-1].stat().st_size))

    def change(_: Progress) -> None:
        last.write_bytes(b"".join(other))

    with pytest.raises(ChangedMeanwhile, match="its manifest says something else"):
        await join(pieces, tmp_path / "joined", on_progress=change)
    assert "joined" not in left_in(tmp_path)


async def test_a_manifest_that_goes_while_pieces_are_joined_ends_it(pieces: list[Path], tmp_path: Path) -> None:
    def remove(_: Progress) -> None:
        manifest_path(pieces[-1]).unlink(missing_ok=True)

    with pytest.raises(ChangedMeanwhile, match="its manifest is gone"):
        await join(pieces, tmp_path / "joined", on_progress=remove)
    assert "joined" not in left_in(tmp_path)
