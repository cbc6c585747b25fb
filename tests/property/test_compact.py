from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbackup import Cluster
from asyncbackup.client.objects import ObjectRead
from asyncbackup.engine.compact import trim
from asyncbackup.engine.fetch import Fetcher
from asyncbackup.engine.plan import Pair
from asyncbackup.engine.progress import BackupCounts
from asyncbackup.engine.window import Slot
from asyncbackup.format import RecordHeader
from asyncbackup.wire.oid import data_oid
from tests.property import reference

SECTOR = 512
SIZES = st.sampled_from([1, 2, 3, 7, 64, 127, 129, 300, 1000, 2047, 2049, 5000])
"""Sectors; around the steps in which contents are compared."""


@st.composite
def contents(draw: st.DrawFn, sizes: st.SearchStrategy[int] = SIZES) -> tuple[bytes, bytes]:
    """Two contents that differ in a few bytes, or not at all."""
    sectors = draw(sizes)
    base = random.Random(draw(st.integers(0, 3))).randbytes(sectors * SECTOR)
    to = bytearray(base)
    for at in draw(st.lists(st.integers(0, len(base) - 1), max_size=4)):
        to[at] ^= draw(st.integers(0, 255))
    return bytes(to), base


@given(contents())
def test_trimming_agrees_with_the_obvious_way(pair: tuple[bytes, bytes]) -> None:
    to, base = pair

    assert trim(memoryview(to), memoryview(base)) == reference.trim(to, base)


class ObjectsInMemory(Cluster):
    """Answers reads from a dict, without any server, and each byte only once."""

    def __init__(self, objects: dict[int, bytes]) -> None:
        self._objects = objects
        self._unread = {oid: bytearray(b"\1" * len(data)) for oid, data in objects.items()}

    def unread(self, oid: int, offset: int, length: int) -> bytes:
        """Tell of each byte whether it was not read, as 1."""
        return bytes(self._unread[oid][offset : offset + length])

    async def read_objects(self, reads: Sequence[ObjectRead]) -> None:
        for oid, into, offset in reads:
            inside = slice(offset, offset + len(into))
            assert all(self._unread[oid][inside]), "nothing is read twice"
            self._unread[oid][inside] = bytes(len(into))
            data = self._objects[oid][inside]
            assert len(data) == len(into), "reads stay within the object"
            into[:] = data


POWERS = st.sampled_from([4, 8, 32])
OWNERS = st.sampled_from([(5, 6), (5, 0), (0, 6)])


@pytest.mark.parametrize("piece_sectors", [1, 2, 4])
@given(contents(POWERS), OWNERS)
async def test_an_extent_found_in_pieces_is_the_one_of_the_whole(
    piece_sectors: int, pair: tuple[bytes, bytes], owners: tuple[int, int]
) -> None:
    to, base = (content if owner else bytes(len(content)) for content, owner in zip(pair, owners, strict=True))
    cluster = ObjectsInMemory({data_oid(5, 0): to, data_oid(6, 0): base})
    piece_size = piece_sectors * SECTOR
    fetcher = Fetcher(cluster, len(to), piece_size, BackupCounts())

    _, extent = await fetcher.find_extent(Pair(0, *owners), Slot([piece_size] * 2))

    assert extent == reference.trim(to, base)


@pytest.mark.parametrize("part_sectors", [1, 3, 4])
@given(pair=contents(st.sampled_from([1, 4, 8])), owners=OWNERS)
async def test_a_record_fetched_in_parts_is_the_one_of_the_whole(
    *, part_sectors: int, pair: tuple[bytes, bytes], owners: tuple[int, int]
) -> None:
    to, base = (content if owner else bytes(len(content)) for content, owner in zip(pair, owners, strict=True))
    cluster = ObjectsInMemory({data_oid(5, 7): to, data_oid(6, 7): base})
    size, offset, length = len(to), *reference.trim(to, base)
    fetcher = Fetcher(cluster, size, size, BackupCounts(), part_sectors * SECTOR)

    chunk = await fetcher.fetch_record(Pair(7, *owners), Slot([size] * 2))

    assert chunk.header == (RecordHeader(7, offset, length) if length else None)
    assert b"".join(chunk.payload) == to[offset : offset + length]
    if chunk.base is not None:
        assert b"".join(chunk.base) == base[offset : offset + length]
    else:
        assert any(cluster.unread(data_oid(6, 7), offset, length)) or not owners[1], "what was read is given"
