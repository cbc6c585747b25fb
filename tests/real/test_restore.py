"""Restores into real clusters: what ``dog`` reads there, whom they leave alone, and that ``dog`` restores our files."""

from __future__ import annotations

import asyncio
import random
import zlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from asyncbackup import (
    BaseSnapshot,
    ChainOptions,
    Cluster,
    Dialect,
    Volume,
    WindowOptions,
    backup,
    compare,
    connect,
    export,
    restore,
)
from asyncbackup.errors import DigestMismatch, WrongSnapshot
from asyncbackup.storage.publication import manifest_path
from tests.clusters import MISSING, RealCluster

pytestmark = [pytest.mark.real, pytest.mark.skipif(bool(MISSING), reason=MISSING)]

MIB = 1 << 20
SIZE = 40 * MIB - 4096
TAGS = ("monday", "tuesday", "wednesday")
SIZES = ChainOptions(object_size=4 * MIB, size=SIZE)


@dataclass
class Backed:
    """VDI ``name`` with a snapshot a day, and backups: a full one and an increment a day."""

    real: RealCluster
    name: str
    files: list[Path]

    def read(self, name: str, tag: str | None = None) -> bytes:
        return self.real.dog("vdi", "read", name, *(("-s", tag) if tag else ()))

    def delete(self, name: str, tag: str | None = None) -> None:
        self.real.dog("vdi", "delete", name, *(("-s", tag) if tag else ()))


async def live(real: RealCluster, name: str, folder: Path) -> Backed:
    made = Backed(real, name, [folder / f"{name}.{tag}" for tag in TAGS])
    guest = random.Random(name)
    async with connect("127.0.0.1", real.port) as cluster:
        await cluster.create_vdi(name, SIZE)
        for file, tag, base in zip(made.files, TAGS, (None, *TAGS), strict=False):
            volume = await Volume.open(cluster, name)
            for _ in range(6):
                length = guest.choice((512, 4096, 70_144, 3 * MIB))
                await volume.write(guest.randrange((SIZE - length) // 512) * 512, guest.randbytes(length))
            await cluster.create_snapshot(name, tag)
            await backup(cluster, name, file, snapshot=tag, base=base, dialect=Dialect.DOG)
    return made


@pytest.fixture
async def backed(real: RealCluster, tmp_path: Path, request: pytest.FixtureRequest) -> Backed:
    return await live(real, f"vm{zlib.crc32(request.node.name.encode()):x}", tmp_path)


def objects_in(real: RealCluster) -> set[str]:
    """Name the data objects that the nodes store."""
    stored = real._folder.glob("store*/obj/*")
    return {path.name for path in stored if len(path.name) == 16 and int(path.name, 16) < 1 << 56}


async def test_a_restored_chain_reads_as_the_snapshot(client: Cluster, backed: Backed) -> None:
    to = f"{backed.name}-whole"

    await restore(client, backed.files, to)

    assert backed.read(to) == backed.read(backed.name, "wednesday")
    assert (await compare(client, backed.files, to, assume_base=True, sample=1)).is_good


async def test_increments_on_a_snapshot_read_as_the_last_one(client: Cluster, backed: Backed) -> None:
    to = f"{backed.name}-clone"

    await restore(client, backed.files[1:], to, base=BaseSnapshot(client, "monday"))

    assert backed.read(to) == backed.read(backed.name, "wednesday")
    inode = await client.find_vdi(to)
    assert inode.parent_vdi_id == (await client.find_vdi(backed.name, "monday")).vdi_id


async def test_increments_on_an_image_read_as_the_last_one(client: Cluster, backed: Backed, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    await export(backed.files[:1], ours)
    await asyncio.to_thread(lambda: theirs.write_bytes(backed.read(backed.name, "monday")))

    proved = await restore(client, backed.files[1:], f"{backed.name}-ours", base=ours)
    vouched = await restore(client, backed.files[1:], f"{backed.name}-theirs", base=theirs, assume_base=True)

    expected = backed.read(backed.name, "wednesday")
    assert backed.read(f"{backed.name}-ours") == expected
    assert backed.read(f"{backed.name}-theirs") == expected
    assert (proved.assumed is None, vouched.assumed is None) == (True, False)


async def test_what_exists_stays_as_it_is(client: Cluster, backed: Backed) -> None:
    before = [backed.read(backed.name, tag) for tag in (*TAGS, None)]
    to = f"{backed.name}-clone"
    await restore(client, backed.files[1:], to, base=BaseSnapshot(client, "monday"))

    await asyncio.to_thread(backed.delete, to)

    assert [backed.read(backed.name, tag) for tag in (*TAGS, None)] == before


async def test_a_clone_outlives_what_it_was_made_of(client: Cluster, backed: Backed) -> None:
    to = f"{backed.name}-clone"
    expected = backed.read(backed.name, "wednesday")
    await restore(client, backed.files[1:], to, base=BaseSnapshot(client, "monday"))

    for tag in (None, *reversed(TAGS)):
        await asyncio.to_thread(backed.delete, backed.name, tag)

    assert backed.read(to) == expected


async def test_a_restored_vdi_lives_on(client: Cluster, backed: Backed) -> None:
    to = f"{backed.name}-clone"
    await restore(client, backed.files[1:], to, base=BaseSnapshot(client, "monday"))
    await client.create_snapshot(to, "kept")
    kept = backed.read(to)

    await (await Volume.open(client, to)).write(0, random.Random(5).randbytes(9 * MIB))

    assert backed.read(to, "kept") == kept
    assert backed.read(to)[: 9 * MIB] == random.Random(5).randbytes(9 * MIB)


async def test_a_wrong_base_leaves_nothing_behind(client: Cluster, real: RealCluster, backed: Backed) -> None:
    before = objects_in(real)

    with pytest.raises(WrongSnapshot):
        await restore(client, backed.files[2:], f"{backed.name}-clone", base=BaseSnapshot(client, "monday"))

    assert not await client.has_vdi(f"{backed.name}-clone")
    assert not objects_in(real) - before


async def test_a_failure_at_the_last_object_leaves_nothing_behind(
    client: Cluster, real: RealCluster, backed: Backed
) -> None:
    data = bytearray(backed.files[0].read_bytes())
    data[-20] ^= 1  # in the last record, before the end marker
    backed.files[0].write_bytes(data)
    before = objects_in(real)
    snapshots = [backed.read(backed.name, tag) for tag in TAGS]

    with pytest.raises(DigestMismatch):
        await restore(client, backed.files, f"{backed.name}-whole", options=WindowOptions(workers=1))

    assert not await client.has_vdi(f"{backed.name}-whole")
    assert not objects_in(real) - before
    assert [backed.read(backed.name, tag) for tag in TAGS] == snapshots


async def test_without_manifests_dog_s_own_backups_are_restored(
    client: Cluster, real: RealCluster, backed: Backed
) -> None:
    for file, tag, base in zip(backed.files[1:], TAGS[1:], TAGS, strict=False):
        manifest_path(file).unlink()
        file.write_bytes(real.dog("vdi", "backup", backed.name, "-s", tag, "-F", base))
    to = f"{backed.name}-clone"

    await restore(
        client,
        backed.files[1:],
        to,
        base=BaseSnapshot(client, "monday", backed.name),
        assume_base=True,
        chain_options=SIZES,
    )

    assert backed.read(to) == backed.read(backed.name, "wednesday")


async def test_dog_restores_our_files(client: Cluster, real: RealCluster, backed: Backed) -> None:
    expected = backed.read(backed.name, "tuesday")

    await asyncio.to_thread(
        lambda: real.dog("vdi", "restore", backed.name, "-s", "monday", data=backed.files[1].read_bytes())
    )

    # What dog restored is a snapshot without a tag: it makes the last snapshot the working VDI again, over it.
    (restored,) = [
        inode.snap_id
        for inode in (await client.list_vdis()).sound
        if inode.name == backed.name and inode.is_snapshot and not inode.tag
    ]
    assert backed.read(backed.name, str(restored)) == expected
