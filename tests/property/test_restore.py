"""Random lives of a disk, backed up along random ways through its snapshots: what is restored equals the snapshots."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncbackup import (
    BaseSnapshot,
    ClientOptions,
    Cluster,
    Dialect,
    WindowOptions,
    compare,
    connect,
    merge,
    restore,
    verify,
)
from asyncbackup.sheep import MemoryStore, Sheep
from asyncbackup.wire.oid import data_oid
from tests.chains import say_what_it_is
from tests.disks import OBJECT
from tests.property.test_export_merge import (
    DIALECTS,
    HISTORIES,
    OPTIONS,
    SIZES,
    WRITES,
    Discard,
    Resize,
    Step,
    Write,
    go,
    image_of,
    live,
)

pytestmark = pytest.mark.slow

SECTOR = 512


async def working_image(cluster: Cluster, name: str) -> bytes:
    """Read all that a working VDI holds."""
    inode = await cluster.find_vdi(name)
    image = bytearray(inode.object_count * OBJECT)
    for idx, owner in enumerate((await cluster.read_owners(inode.vdi_id, inode.object_count)).tolist()):
        if owner:
            await cluster.read_object(data_oid(owner, idx), memoryview(image)[idx * OBJECT : (idx + 1) * OBJECT])
    return bytes(image[: inode.vdi_size])


@settings(max_examples=15)
@given(st.data(), SIZES, HISTORIES, DIALECTS, OPTIONS)
async def test_a_restored_way_reads_as_its_last_snapshot(
    data: st.DataObject, size: int, history: list[list[Step]], dialect: Dialect, options: WindowOptions
) -> None:
    async with Sheep(MemoryStore()) as sheep, connect(sheep.host, sheep.port, ClientOptions(connections=2)) as cluster:
        tags = await live(cluster, size, history)
        snapshots = data.draw(st.lists(st.sampled_from(tags), min_size=2, max_size=4), label="way")
        start = data.draw(st.integers(1, len(snapshots) - 1), label="start")
        before = [await image_of(cluster, tag) for tag in tags]
        with tempfile.TemporaryDirectory() as made:
            way = await go(cluster, Path(made), snapshots, dialect, options)

            await restore(cluster, way.files, "whole", options=options)
            await restore(
                cluster, way.files[start:], "clone", base=BaseSnapshot(cluster, snapshots[start - 1]), options=options
            )
            await merge(way.files, Path(made) / "merged", dialect=dialect, options=options)
            await restore(cluster, [Path(made) / "merged"], "of one", options=options)
            image = Path(made) / "image"
            image.write_bytes(way.images[start - 1])
            say_what_it_is(image, way.identities[start - 1])
            await restore(cluster, way.files[start:], "on an image", base=image, options=options)

        assert await working_image(cluster, "whole") == way.images[-1]
        assert await working_image(cluster, "clone") == way.images[-1]
        assert await working_image(cluster, "of one") == way.images[-1]
        assert await working_image(cluster, "on an image") == way.images[-1]
        assert [await image_of(cluster, tag) for tag in tags] == before


UPPER = [idx * OBJECT // SECTOR for idx in (1, 2)]
"""Where the objects begin that a small disk does not have, in sectors."""


@st.composite
def growing(draw: st.DrawFn) -> tuple[int, list[list[Step]]]:
    """A disk that is small, grows and is filled then, and loses in the end some of what it grew by."""
    small, large = draw(st.sampled_from([OBJECT, OBJECT - 512])), draw(st.sampled_from([3 * OBJECT, 2 * OBJECT + 1536]))
    start = draw(st.sampled_from([0, 100, UPPER[0]]))
    fill = Write(start, large // SECTOR - start, draw(st.sampled_from([1, 2])))
    loss = st.one_of(
        st.builds(Discard, st.sampled_from([1, 2])),
        st.builds(Write, st.sampled_from(UPPER), st.sampled_from([2, 1000, 2048]), st.sampled_from([0, 3])),
    )
    return small, [[draw(WRITES)], [Resize(large), fill], draw(st.lists(loss, min_size=1, max_size=3))]


WAYS = st.sampled_from([[0, 1], [0, 2], [0, 1, 2], [1, 0, 1], [1, 0, 2], [2, 0, 1], [1, 0, 2, 1], [0, 1, 0, 2]])
"""Snapshots of a growing disk: the base, and what increments go to. Some pass the time when it was small."""


@settings(max_examples=15)
@given(growing(), WAYS, DIALECTS, OPTIONS)
async def test_increments_on_a_base_of_another_size_read_as_the_last_snapshot(
    disk: tuple[int, list[list[Step]]], snapshots: list[int], dialect: Dialect, options: WindowOptions
) -> None:
    async with Sheep(MemoryStore()) as sheep, connect(sheep.host, sheep.port, ClientOptions(connections=2)) as cluster:
        tags = await live(cluster, *disk)
        with tempfile.TemporaryDirectory() as made:
            way = await go(cluster, Path(made), [tags[number] for number in snapshots], dialect, options)
            image = Path(made) / "image"
            image.write_bytes(way.images[0])
            say_what_it_is(image, way.identities[0])

            await restore(
                cluster, way.files[1:], "clone", base=BaseSnapshot(cluster, tags[snapshots[0]]), options=options
            )
            await restore(cluster, way.files[1:], "on an image", base=image, options=options)

        assert await working_image(cluster, "clone") == way.images[-1]
        assert await working_image(cluster, "on an image") == way.images[-1]


@settings(max_examples=15)
@given(st.data(), SIZES, HISTORIES, DIALECTS, OPTIONS)
async def test_a_way_verifies_and_compares_with_its_last_snapshot(
    data: st.DataObject, size: int, history: list[list[Step]], dialect: Dialect, options: WindowOptions
) -> None:
    async with Sheep(MemoryStore()) as sheep, connect(sheep.host, sheep.port, ClientOptions(connections=2)) as cluster:
        tags = await live(cluster, size, history)
        snapshots = data.draw(st.lists(st.sampled_from(tags), min_size=2, max_size=4), label="way")
        start = data.draw(st.integers(0, len(snapshots) - 1), label="start")
        with tempfile.TemporaryDirectory() as made:
            files = (await go(cluster, Path(made), snapshots, dialect, options)).files[start:]

            assert (await verify(files)).is_good
            found = await compare(cluster, files, "disk", snapshots[-1], sample=1, options=options)

        assert found.is_good
        assert found.objects_done == found.objects_planned
        assert found.unchanged_audited == found.unchanged
