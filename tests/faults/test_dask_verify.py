"""Workers of Dask prove backups as one process does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asyncbackup import Cluster, Progress, backup, verify
from asyncbackup.dispatch.pool import connect_dask
from asyncbackup.dispatch.verify import verify_over
from asyncbackup.errors import SourceMissing, WorkersDiffer
from tests.cli.command import piped
from tests.dask_workers import DaskCluster
from tests.disks import OBJECT, make_disk

pytestmark = pytest.mark.slow


@pytest.fixture
async def chain(cluster: Cluster, tmp_path: Path) -> list[str]:
    await make_disk(cluster)
    await backup(cluster, "disk", tmp_path / "a", snapshot="a")
    await backup(cluster, "disk", tmp_path / "b", snapshot="b", base="a")
    return [str(tmp_path / "a"), str(tmp_path / "b")]


def spoil(path: str, *positions: int) -> None:
    data = bytearray(Path(path).read_bytes())
    for position in positions:
        data[position] ^= 1
    Path(path).write_bytes(data)


def append(path: str, data: bytes) -> None:
    with Path(path).open("ab") as file:
        file.write(data)


async def test_the_report_is_that_of_one_process(dask: DaskCluster, chain: list[str]) -> None:
    told: list[Progress] = []
    async with connect_dask(dask.address) as pool:
        report = await verify_over(pool, chain, on_progress=told.append)

    assert report.is_proved
    assert report.as_dict() == (await verify(chain)).as_dict()
    assert told[-1].bytes_done == told[-1].bytes_planned == sum(file.data_bytes for file in report.files)


@pytest.mark.parametrize("tail", [b"", b"junk"])
async def test_problems_are_found_once_each(dask: DaskCluster, chain: list[str], tail: bytes) -> None:
    spoil(chain[0], OBJECT // 2, 2 * OBJECT, 4 * OBJECT)
    append(chain[1], tail)

    async with connect_dask(dask.address) as pool:
        report = await verify_over(pool, chain)

    alone = await verify(chain)
    assert report.as_dict() == alone.as_dict()
    assert report.files[0].problems.count == 3


async def test_files_are_named_as_they_were_given(
    dask: DaskCluster, chain: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(chain[0]).parent
    monkeypatch.chdir(folder.parent)
    spoil(chain[0], OBJECT // 2)
    spoil(f"{chain[1]}.manifest", 0)
    given = [f"{folder.name}/{name}" for name in ("a", "b")]

    async with connect_dask(dask.address) as pool:
        report = await verify_over(pool, given)
        with pytest.raises(SourceMissing) as missing:
            await verify_over(pool, [*given, "none"])

    assert report.as_dict() == (await verify(given)).as_dict()
    assert [vars(error)["source"] for file in report.files for error in file.problems.errors] == [
        given[0],
        f"{given[1]}.manifest",
    ]
    assert missing.value.source == "none"


async def test_what_is_no_backup_and_what_is_cut_off_is_told_as_by_one_process(
    dask: DaskCluster, chain: list[str]
) -> None:
    os.truncate(chain[0], 3)
    os.truncate(chain[1], OBJECT)

    async with connect_dask(dask.address) as pool:
        report = await verify_over(pool, chain)

    assert not report.is_sound
    assert report.as_dict() == (await verify(chain)).as_dict()


async def test_a_file_that_is_missing_is_the_error(dask: DaskCluster, tmp_path: Path) -> None:
    async with connect_dask(dask.address) as pool:
        with pytest.raises(SourceMissing):
            await verify_over(pool, [str(tmp_path / "none")])


async def test_workers_that_see_other_files_are_refused(
    dask: DaskCluster, chain: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(chain[0]).parent)
    own = "/proc/self/cwd/a"  # Each process has a folder of its own there.

    async with connect_dask(dask.address) as pool:
        with pytest.raises(WorkersDiffer, match="sees another /proc/self/cwd/a, or none"):
            await verify_over(pool, [own])


@pytest.mark.parametrize("given", [("--shard", "1/2"), ("--against", "disk"), ("-",)], ids=lambda given: given[0])
def test_what_workers_cannot_do_is_wrong_use(chain: list[str], given: tuple[str, ...]) -> None:
    done = piped("verify", *chain, *given, "--dask", "local")

    assert done.returncode == 64, done.stderr
