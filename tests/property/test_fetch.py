"""Records that are fetched in portions are those of the whole objects, and no byte is read twice."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbackup import Cluster
from asyncbackup.client.objects import ObjectRead
from asyncbackup.engine.fetch import Fetcher
from asyncbackup.engine.plan import Pair
from asyncbackup.engine.progress import BackupCounts
from asyncbackup.engine.record_writer import Fragment
from asyncbackup.engine.window import Slot
from asyncbackup.format import RecordHeader
from asyncbackup.wire.oid import data_oid
from tests.property import reference
from tests.property.test_compact import SECTOR, contents


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


@pytest.mark.slow
@pytest.mark.parametrize("portion_sectors", [1, 2, 4])
@given(contents(POWERS), OWNERS)
async def test_an_extent_found_in_portions_is_the_one_of_the_whole(
    portion_sectors: int, pair: tuple[bytes, bytes], owners: tuple[int, int]
) -> None:
    to, base = (content if owner else bytes(len(content)) for content, owner in zip(pair, owners, strict=True))
    cluster = ObjectsInMemory({data_oid(5, 0): to, data_oid(6, 0): base})
    portion_size = portion_sectors * SECTOR
    fetcher = Fetcher(cluster, len(to), portion_size, BackupCounts())

    _, (extent,) = await fetcher.find_extents(Pair(0, owners[0], (owners[1],)), Slot([portion_size] * 2))

    assert extent == reference.trim(to, base)


@pytest.mark.slow
@pytest.mark.parametrize("compared_sectors", [1, 3, 4])
@given(pair=contents(st.sampled_from([1, 4, 8])), owners=OWNERS)
async def test_a_record_fetched_in_portions_is_the_one_of_the_whole(
    *, compared_sectors: int, pair: tuple[bytes, bytes], owners: tuple[int, int]
) -> None:
    to, base = (content if owner else bytes(len(content)) for content, owner in zip(pair, owners, strict=True))
    cluster = ObjectsInMemory({data_oid(5, 7): to, data_oid(6, 7): base})
    size, offset, length = len(to), *reference.trim(to, base)
    fetcher = Fetcher(cluster, size, size, BackupCounts(), lambda: compared_sectors * SECTOR)

    (fragment,), _ = await fetcher.fetch_records(Pair(7, owners[0], (owners[1],)), Slot([size] * 2))

    if fragment is None:
        assert not length
        return
    assert isinstance(fragment, Fragment)
    assert fragment.header == RecordHeader(7, offset, length)
    assert b"".join(fragment.data) == to[offset : offset + length]
    if fragment.base is not None:
        assert b"".join(fragment.base) == base[offset : offset + length]
    else:
        assert any(cluster.unread(data_oid(6, 7), offset, length)) or not owners[1], "what was read is given"
