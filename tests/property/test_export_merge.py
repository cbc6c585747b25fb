"""Random lives of a disk, backed up along random ways through its snapshots: images equal the snapshots.

A way may go back in time and forth again, and meet a time when the disk was smaller.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncbackup import (
    ClientOptions,
    Cluster,
    Dialect,
    Volume,
    WindowOptions,
    backup,
    connect,
    convert,
    export,
    merge,
)
from asyncbackup.engine.reader import open_backup
from asyncbackup.errors import BaseNeeded, NotMergeable
from asyncbackup.format.identity import Identity
from asyncbackup.sheep import MemoryStore, Sheep
from asyncbackup.wire.inode import ENTRY_SIZE, entry_offset
from asyncbackup.wire.oid import inode_oid
from tests.chains import say_what_it_is
from tests.collecting import CollectingTarget
from tests.disks import OBJECT, SHIFT, content_of, noise

pytestmark = pytest.mark.slow

OBJECTS = 3
SECTORS = OBJECTS * OBJECT // 512
SIZE_OFFSET = 536
"""Where in an inode the VDI's size stands."""


@dataclass(frozen=True)
class Write:
    sector: int
    sectors: int
    seed: int
    """0 writes zeros."""


@dataclass(frozen=True)
class Discard:
    idx: int


@dataclass(frozen=True)
class Resize:
    size: int


Step = Write | Discard | Resize

WRITES = st.builds(
    Write,
    st.one_of(st.integers(0, SECTORS - 1), st.sampled_from([0, 100, 500, 1000, 2047, 2048, 2500, 4095])),
    st.one_of(st.integers(1, 6), st.integers(1, 6), st.sampled_from([512, 2048, 2049])),
    st.sampled_from([0, 1, 2, 3]),
)
SIZES = st.sampled_from([OBJECT, 2 * OBJECT - 512, 2 * OBJECT, 2 * OBJECT + 1536, OBJECTS * OBJECT])
STEPS = st.one_of(WRITES, WRITES, WRITES, st.builds(Discard, st.integers(0, OBJECTS - 1)), st.builds(Resize, SIZES))
HISTORIES = st.lists(st.lists(STEPS, min_size=1, max_size=4), min_size=3, max_size=5)
DIALECTS = st.sampled_from(list(Dialect))
OPTIONS = st.builds(
    WindowOptions,
    workers=st.sampled_from([1, 3, 16]),
    memory=st.sampled_from([1 << 20, 4 << 20, 128 << 20]),
)


async def live(cluster: Cluster, size: int, history: list[list[Step]]) -> list[str]:
    """Let a disk have its life, and give the tags of its snapshots. Nobody writes beyond its end, as no guest can."""
    await cluster.create_vdi("disk", size, block_size_shift=SHIFT)
    tags = []
    for number, steps in enumerate(history):
        for step in steps:
            await take(cluster, step)
        tags.append(f"s{number}")
        await cluster.create_snapshot("disk", tags[-1])
    return tags


async def take(cluster: Cluster, step: Step) -> None:
    volume = await Volume.open(cluster, "disk")
    inode = volume.inode
    if isinstance(step, Write):
        length = min(step.sectors * 512, inode.vdi_size - step.sector * 512)
        if length > 0:
            await volume.write(step.sector * 512, noise(step.seed, length) if step.seed else bytes(length))
        return
    if isinstance(step, Discard):
        field, offset = bytes(ENTRY_SIZE), entry_offset(step.idx)
    else:
        field, offset = max(step.size, inode.vdi_size).to_bytes(8, "little"), SIZE_OFFSET
    await cluster.write_object(inode_oid(inode.vdi_id), field, offset, copies=1)


async def image_of(cluster: Cluster, tag: str) -> bytes:
    size = (await cluster.find_vdi("disk", tag)).vdi_size
    content = await content_of(cluster, "disk", tag)
    return b"".join(content.get(idx, bytes(OBJECT)) for idx in range(OBJECTS))[:size]


@dataclass
class Way:
    """A full backup of the first snapshot, and increments from one to the next."""

    files: list[Path]
    images: list[bytes]
    """What each snapshot holds."""
    identities: list[Identity]


async def go(cluster: Cluster, folder: Path, snapshots: list[str], dialect: Dialect, options: WindowOptions) -> Way:
    files = [folder / f"way{number}" for number in range(len(snapshots))]
    for file, base, to in zip(files, [None, *snapshots], snapshots, strict=False):
        await backup(cluster, "disk", file, snapshot=to, base=base, dialect=dialect, options=options)
    identities = [await cluster.identify(await cluster.find_vdi("disk", tag)) for tag in snapshots]
    return Way(files, [await image_of(cluster, tag) for tag in snapshots], identities)


async def check_exports(way: Way, folder: Path, options: WindowOptions) -> None:
    """Export the way at once, to a pipe, and step by step: in place, and onto the image before."""
    standing = folder / "standing"
    await export(way.files[:1], standing, options=options)
    assert standing.read_bytes() == way.images[0]
    for number in range(1, len(way.files)):
        whole, onto, piped, piped_onto = folder / f"whole{number}", folder / f"onto{number}", *targets(2)
        step, image = [way.files[number]], way.images[number]

        await export(way.files[: number + 1], whole, options=options)
        await export(way.files[: number + 1], piped, options=options)
        await export(step, onto, base=standing, options=options)
        await export(step, piped_onto, base=standing, options=options)
        await export(step, standing, base=standing, options=options)

        assert whole.read_bytes() == image
        assert onto.read_bytes() == image
        assert standing.read_bytes() == image
        assert piped.data == piped_onto.data == image
        assert piped.is_complete
        for done in (whole, onto):
            done.unlink()


def targets(count: int) -> list[CollectingTarget]:
    return [CollectingTarget() for _ in range(count)]


async def merge_parts(way: Way, cuts: list[int], folder: Path, dialect: Dialect, options: WindowOptions) -> list[Path]:
    """Merge what lies between ``cuts``; increments without a base where none is needed. Checks each part's manifest."""
    parts = []
    for start, end in pairwise(cuts):
        files, part = way.files[start:end], folder / f"part{start}"
        base = folder / f"base{start}"
        if start:
            base.write_bytes(way.images[start - 1])
            say_what_it_is(base, way.identities[start - 1])
        try:
            await merge(files, part, dialect=dialect, options=options)
        except BaseNeeded:
            assert start, "a full backup needs no base"
            await merge(files, part, base=base, dialect=dialect, options=options)
        except NotMergeable as error:
            assert start, "a full backup can be merged with anything"
            assert error.backups == tuple(map(str, files))  # noqa: PT017 - only where it is raised
            parts += files
            continue
        parts.append(part)
    return parts


@settings(max_examples=15)
@given(st.data(), SIZES, HISTORIES, DIALECTS, OPTIONS)
async def test_exports_along_any_way_equal_the_snapshots(
    data: st.DataObject, size: int, history: list[list[Step]], dialect: Dialect, options: WindowOptions
) -> None:
    async with Sheep(MemoryStore()) as sheep, connect(sheep.host, sheep.port, ClientOptions(connections=2)) as cluster:
        tags = await live(cluster, size, history)
        snapshots = data.draw(st.lists(st.sampled_from(tags), min_size=2, max_size=4), label="way")
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            await check_exports(await go(cluster, folder, snapshots, dialect, options), folder, options)


@settings(max_examples=15)
@given(st.data(), SIZES, HISTORIES, DIALECTS, OPTIONS)
async def test_a_merged_way_exports_to_the_same_image(
    data: st.DataObject, size: int, history: list[list[Step]], dialect: Dialect, options: WindowOptions
) -> None:
    async with Sheep(MemoryStore()) as sheep, connect(sheep.host, sheep.port, ClientOptions(connections=2)) as cluster:
        tags = await live(cluster, size, history)
        snapshots = data.draw(st.lists(st.sampled_from(tags), min_size=3, max_size=6), label="way")
        inner = data.draw(st.sets(st.integers(1, len(snapshots) - 1), max_size=2), label="cuts")
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            way = await go(cluster, folder, snapshots, dialect, options)
            parts = await merge_parts(way, [0, *sorted(inner), len(snapshots)], folder, dialect, options)
            merged, converted, exported = folder / "merged", folder / "converted", CollectingTarget()

            await merge(parts, merged, dialect=dialect, options=options)
            await convert(merged, converted, dialect=Dialect.DOG)
            await export(parts, folder / "image", options=options)
            await export([merged], folder / "merged image", options=options)
            await export([converted], exported, options=options)

            assert (folder / "image").read_bytes() == way.images[-1]
            assert (folder / "merged image").read_bytes() == way.images[-1]
            assert exported.data == way.images[-1]
            async with open_backup(converted) as reader:
                assert reader.subject is not None
                assert reader.subject.identity.tag == snapshots[-1]
                assert reader.subject.is_full


@settings(max_examples=10)
@given(SIZES, HISTORIES, DIALECTS, OPTIONS)
async def test_a_merged_full_backup_proves_what_a_backup_of_the_newest_snapshot_proves(
    size: int, history: list[list[Step]], dialect: Dialect, options: WindowOptions
) -> None:
    async with Sheep(MemoryStore()) as sheep, connect(sheep.host, sheep.port, ClientOptions(connections=2)) as cluster:
        tags = await live(cluster, size, history)
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            way = await go(cluster, folder, tags, dialect, options)

            await merge(way.files, folder / "merged", dialect=dialect, options=options)

            async with open_backup(folder / "merged") as reader:
                found = [record async for record in reader.records()]
                assert all(record.digests and record.digests.base is None for record in found)
            assert (await export([folder / "merged"], folder / "image")).checked
