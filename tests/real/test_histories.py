"""Made-up histories of VDIs: for any two snapshots we write what ``dog`` writes."""

from __future__ import annotations

import asyncio
import itertools
import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from asyncbackup import Cluster, Dialect, Volume, backup, connect
from asyncbackup.format import RecordHeader
from asyncbackup.format.record import END_IDX, RECORD_HEADER_SIZE
from asyncbackup.wire.inode import ENTRY_SIZE, entry_offset
from asyncbackup.wire.oid import inode_oid
from tests.clusters import MISSING, RealCluster

pytestmark = [pytest.mark.real, pytest.mark.skipif(bool(MISSING), reason=MISSING)]

MIB = 1 << 20
SNAPSHOTS = ("one", "two", "three", "four")


@dataclass
class Guest:
    """Writes to VDI ``name`` at random places, always the same ones for a seed."""

    cluster: Cluster
    name: str
    random: random.Random = field(default_factory=lambda: random.Random(20))

    async def scribble(self, writes: int) -> None:
        """Write sectors, and some whole objects of zeros: what a guest's discard of a range comes to."""
        volume = await Volume.open(self.cluster, self.name)
        size, object_size = volume.inode.vdi_size, volume.inode.object_size
        for _ in range(writes):
            length = self.random.choice((512, 512, 4096, 70_144, 300_032))
            offset = self.random.randrange((size - length) // 512) * 512
            await volume.write(offset, self.random.randbytes(length))
        idx = self.random.randrange(size // object_size)
        await volume.write(idx * object_size, bytes(object_size))

    async def forget(self, idx: int) -> None:
        """Make nobody own an object any more."""
        inode = (await Volume.open(self.cluster, self.name)).inode
        await self.cluster.write_object(
            inode_oid(inode.vdi_id), bytes(ENTRY_SIZE), entry_offset(idx), copies=inode.nr_copies
        )


@pytest.fixture(scope="module")
def history(real: RealCluster) -> RealCluster:
    """VDI ``history``: four snapshots, written between them, grown, zeroed and discarded in part."""

    async def live() -> None:
        async with connect("127.0.0.1", real.port) as cluster:
            await cluster.create_vdi("history", 60 * MIB - 4096)
            guest = Guest(cluster, "history")
            for step, tag in enumerate(SNAPSHOTS):
                await guest.scribble(12)
                if step == 1:
                    real.dog("vdi", "resize", "history", "90M")
                if step == 2:
                    await guest.forget(3)
                await cluster.create_snapshot("history", tag)

    asyncio.run(live())
    return real


@pytest.mark.parametrize(("base", "to"), list(itertools.product(SNAPSHOTS, repeat=2)))
async def test_any_two_snapshots(history: RealCluster, client: Cluster, tmp_path: Path, base: str, to: str) -> None:
    target = tmp_path / "file"

    await backup(client, "history", target, snapshot=to, base=base, dialect=Dialect.DOG)

    assert target.read_bytes() == history.dog("vdi", "backup", "-s", to, "-F", base, "history")


@pytest.mark.parametrize("to", SNAPSHOTS)
async def test_full_backup_onto_zeros_is_the_snapshot(
    history: RealCluster, client: Cluster, tmp_path: Path, to: str
) -> None:
    target = tmp_path / "file"

    await backup(client, "history", target, snapshot=to, dialect=Dialect.DOG)

    content = history.dog("vdi", "read", "-s", to, "history")
    assert applied(target.read_bytes(), len(content), 4 * MIB) == content


async def test_live_backup_is_the_working_vdi(history: RealCluster, client: Cluster, tmp_path: Path) -> None:
    target = tmp_path / "file"
    await Guest(client, "history").scribble(1)

    await backup(client, "history", target, live=True, dialect=Dialect.DOG)

    content = history.dog("vdi", "read", "history")
    assert applied(target.read_bytes(), len(content), 4 * MIB) == content


@pytest.mark.parametrize("shift", [20, 22, 23, 25])
def test_object_sizes(real: RealCluster, tmp_path: Path, shift: int) -> None:
    name, target, object_size = f"shift{shift}", tmp_path / "file", 1 << shift
    noise = random.Random(shift).randbytes(6 * MIB)
    real.dog("vdi", "create", "-z", str(shift), name, str(3 * object_size))
    real.dog("vdi", "write", name, str(object_size - 512), str(len(noise)), data=noise)
    real.dog("vdi", "snapshot", "-s", "a", name)
    real.dog("vdi", "write", name, "1024", "512", data=noise[:512])
    real.dog("vdi", "write", name, str(2 * object_size - 1024), "2048", data=noise[:2048])
    # Far apart in one object: a record of more than one piece where objects are large.
    real.dog("vdi", "write", name, str(2 * object_size + object_size // 2), "512", data=noise[:512])
    real.dog("vdi", "snapshot", "-s", "b", name)

    for base, to in (("a", "b"), ("b", "a")):
        ran = real.asyncbackup("backup", "--format=dog", "--force", "-s", to, "-F", base, name, target)
        assert ran.returncode == 0, ran.stderr
        assert target.read_bytes() == real.dog("vdi", "backup", "-s", to, "-F", base, name)

    assert real.asyncbackup("backup", "--format=dog", "--force", "-s", "b", name, target).returncode == 0
    assert applied(target.read_bytes(), 3 * object_size, object_size) == real.dog("vdi", "read", "-s", "b", name)


def test_hyper_volume(real: RealCluster, tmp_path: Path) -> None:
    target = tmp_path / "file"
    noise = random.Random(1).randbytes(5 * MIB)
    real.dog("vdi", "create", "-y", "hyper", "40M")
    real.dog("vdi", "write", "hyper", str(3 * MIB), str(len(noise)), data=noise)
    real.dog("vdi", "write", "hyper", str(33 * MIB), "512", data=noise[:512])

    ran = real.asyncbackup("backup", "--format=dog", "--live", "hyper", target)

    assert ran.returncode == 0, ran.stderr
    assert applied(target.read_bytes(), 40 * MIB, 4 * MIB) == real.dog("vdi", "read", "hyper")


def test_hyper_volume_beyond_the_owner_tables_reach(real: RealCluster, tmp_path: Path) -> None:
    target, far = tmp_path / "file", 5 << 40
    real.dog("vdi", "create", "-y", "far", "6T")
    real.dog("vdi", "write", "far", str(far + 512), "512", data=b"x" * 512)

    ran = real.asyncbackup("backup", "--format=dog", "--live", "far", target)

    assert ran.returncode == 0, ran.stderr
    assert records(target.read_bytes()) == [(far // (4 * MIB), 512, b"x" * 512)]


def test_erasure_coded_vdi_equals_a_replicated_one(real: RealCluster, tmp_path: Path) -> None:
    noise = random.Random(2).randbytes(9 * MIB)
    written = {}
    for name, copies in (("coded", "2:1"), ("replicated", "2")):
        target = tmp_path / name
        real.dog("vdi", "create", "-c", copies, name, "16M")
        real.dog("vdi", "write", name, "1536", str(len(noise)), data=noise)
        real.dog("vdi", "snapshot", "-s", "a", name)
        real.dog("vdi", "write", name, str(5 * MIB), "70144", data=noise[:70_144])
        real.dog("vdi", "snapshot", "-s", "b", name)
        ran = real.asyncbackup("backup", "--format=dog", "-s", "b", "-F", "a", name, target)
        assert ran.returncode == 0, ran.stderr
        written[name] = target.read_bytes()

    assert written["coded"] == written["replicated"] == real.dog("vdi", "backup", "-s", "b", "-F", "a", "coded")


def records(backup: bytes) -> list[tuple[int, int, bytes]]:
    """Read a backup in the dog dialect: idx, offset and data of each record."""
    found, position = [], 8
    while (header := RecordHeader.decode(backup[position : position + RECORD_HEADER_SIZE])).idx != END_IDX:
        position += RECORD_HEADER_SIZE
        found.append((header.idx, header.offset, backup[position : position + header.length]))
        position += header.length
    assert position + RECORD_HEADER_SIZE == len(backup)
    return found


def applied(backup: bytes, size: int, object_size: int) -> bytes:
    """Write a backup's records over zeros, and give the first ``size`` bytes."""
    content = bytearray(-(-size // object_size) * object_size)
    for idx, offset, data in records(backup):
        start = idx * object_size + offset
        content[start : start + len(data)] = data
    return bytes(content[:size])
