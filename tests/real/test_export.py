"""Images and streams made of backups of a real cluster, against ``dog`` and against Ceph's own tools."""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncbackup import Cluster, Volume, backup, connect, convert_to_rbd_diff, export, merge
from asyncbackup.engine.opening import BaseSnapshot
from asyncbackup.wire.inode import ENTRY_SIZE, entry_offset
from asyncbackup.wire.oid import inode_oid
from tests import ceph, rbd_diffs
from tests.ceph import CephCluster
from tests.clusters import MISSING, RealCluster

pytestmark = [pytest.mark.real, pytest.mark.skipif(bool(MISSING), reason=MISSING)]

needs_rbd = pytest.mark.skipif(shutil.which("rbd") is None, reason="no rbd on PATH: Debian has it in ceph-common")
needs_ceph = pytest.mark.skipif(bool(ceph.MISSING), reason=ceph.MISSING)

MIB = 1 << 20
SNAPSHOTS = ("mon", "tue", "wed")
SIZE = 40 * MIB - 512 * 9


@pytest.fixture(scope="module")
def lived(real: RealCluster) -> RealCluster:
    """VDI ``moving``: three snapshots, written between them, zeroed, discarded in part, and grown."""

    async def live() -> None:
        guest = random.Random(3)
        async with connect("127.0.0.1", real.port) as cluster:
            await cluster.create_vdi("moving", SIZE)
            for step, tag in enumerate(SNAPSHOTS):
                volume = await Volume.open(cluster, "moving")
                for length in (512, 512, 70_144, 300_032, 5 * MIB):
                    offset = guest.randrange((volume.inode.vdi_size - length) // 512) * 512
                    await volume.write(offset, guest.randbytes(length))
                if step == 1:
                    real.dog("vdi", "resize", "moving", "50M")
                    await volume.write(4 * MIB, bytes(4 * MIB))
                if step == 2:
                    inode = (await Volume.open(cluster, "moving")).inode
                    await cluster.write_object(
                        inode_oid(inode.vdi_id), bytes(ENTRY_SIZE), entry_offset(2), copies=inode.nr_copies
                    )
                await cluster.create_snapshot("moving", tag)

    asyncio.run(live())
    return real


@pytest.fixture
async def files(lived: RealCluster, client: Cluster, tmp_path: Path) -> list[Path]:
    """A full backup of the first snapshot, and the increments."""
    made = []
    for base, to in zip((None, *SNAPSHOTS), SNAPSHOTS, strict=False):
        made.append(tmp_path / to)
        await backup(client, "moving", made[-1], snapshot=to, base=base)
    return made


def read(cluster: RealCluster, snapshot: str) -> bytes:
    return cluster.dog("vdi", "read", "-s", snapshot, "moving")


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_an_image_is_what_dog_reads(lived: RealCluster, files: list[Path], tmp_path: Path, count: int) -> None:
    await export(files[:count], tmp_path / "image")

    assert (tmp_path / "image").read_bytes() == read(lived, SNAPSHOTS[count - 1])


async def test_an_image_rolled_night_after_night_is_what_dog_reads(
    lived: RealCluster, files: list[Path], tmp_path: Path
) -> None:
    standby = tmp_path / "standby"
    await export(files[:1], standby)

    for file, snapshot in zip(files[1:], SNAPSHOTS[1:], strict=True):
        await export([file], standby, base=standby)

        assert standby.read_bytes() == read(lived, snapshot)


async def test_increments_merged_on_a_snapshot_in_the_cluster(
    lived: RealCluster, client: Cluster, files: list[Path], tmp_path: Path
) -> None:
    base = BaseSnapshot(client, "mon")
    await export(files[:1], standby := tmp_path / "standby")

    await merge(files[1:], tmp_path / "merged", base=base)
    await export([tmp_path / "merged"], standby, base=standby)

    assert standby.read_bytes() == read(lived, "wed")


@needs_rbd
async def test_rbd_merges_converted_increments(lived: RealCluster, files: list[Path], tmp_path: Path) -> None:
    diffs = [tmp_path / f"{file.name}.diff" for file in files]
    for file, diff in zip(files, diffs, strict=True):
        await convert_to_rbd_diff(file, diff)
    increments, whole = tmp_path / "increments", tmp_path / "whole"

    run_rbd("merge-diff", str(diffs[1]), str(diffs[2]), str(increments))
    run_rbd("merge-diff", str(diffs[0]), str(increments), str(whole))

    merged = rbd_diffs.parse(increments.read_bytes())
    assert (merged.base, merged.snapshot, merged.size) == ("mon", "wed", 50 * MIB)
    assert merged.apply(read(lived, "mon")) == read(lived, "wed")
    assert rbd_diffs.parse(whole.read_bytes()).apply(b"") == read(lived, "wed")


def run_rbd(*arguments: str) -> None:
    # It asks for a configuration, and works without.
    subprocess.run(["rbd", "-c", "/dev/null", "--no-progress", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def ceph_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CephCluster]:
    with CephCluster(tmp_path_factory.mktemp("ceph")) as cluster:
        yield cluster


@needs_ceph
async def test_a_vdi_moves_to_ceph_increment_after_increment(
    lived: RealCluster, files: list[Path], ceph_cluster: CephCluster, tmp_path: Path
) -> None:
    image = tmp_path.name
    ceph_cluster.rbd("create", "--size", "1", image)
    for file, snapshot in zip(files, SNAPSHOTS, strict=True):
        await convert_to_rbd_diff(file, diff := tmp_path / f"{snapshot}.diff")

        ceph_cluster.rbd("import-diff", "--no-progress", str(diff), image)
        ceph_cluster.rbd(
            "export", "--no-progress", f"{image}@{snapshot}", str(exported := tmp_path / f"{snapshot}.image")
        )

        assert exported.read_bytes() == read(lived, snapshot)
