"""What is read of a pair, and what becomes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from itertools import pairwise

import pytest

from asyncbackup import Cluster
from asyncbackup.client.objects import ObjectRead
from asyncbackup.engine.compact import Extent
from asyncbackup.engine.fetch import Fetcher, Found, Unreadable, Wanted
from asyncbackup.engine.plan import Pair
from asyncbackup.engine.portion import Portion
from asyncbackup.engine.progress import BackupCounts
from asyncbackup.engine.record_writer import Fragment
from asyncbackup.engine.window import Slot
from asyncbackup.errors import ObjectReadFailed
from asyncbackup.format import RecordHeader
from asyncbackup.wire.constants import Result
from asyncbackup.wire.inode import Inode
from asyncbackup.wire.oid import data_oid
from tests.disks import make_disk, noise

SECTOR = 512
SIZE = 4 * SECTOR
OBJECT = 4 * SIZE
TO, BASE = 5, 6
OLD = noise(1, OBJECT)


class Objects(Cluster):
    """Answers reads from a dict, and others with ``result``; ``reads`` are those that it was asked for.

    ``owner`` owns each object now.
    """

    def __init__(self, objects: dict[int, bytes], owner: int = 0, result: Result = Result.NO_OBJ) -> None:
        self.objects = objects
        self.owner = owner
        self.result = result
        self.reads: list[tuple[int, int, int]] = []

    async def read_objects(self, reads: Sequence[ObjectRead]) -> None:
        for oid, into, offset in reads:
            self.reads.append((oid, offset, len(into)))
            if oid not in self.objects:
                raise ObjectReadFailed(3, oid, self.result, self.result.meaning)
            into[:] = self.objects[oid][offset : offset + len(into)]

    async def read_owner(self, inode: Inode, idx: int) -> int:
        return self.owner


def changed(*sectors: int) -> bytes:
    content = bytearray(OLD)
    for sector in sectors:
        content[sector * SECTOR] ^= 1
    return bytes(content)


def fetcher(cluster: Cluster, portion_size: int = OBJECT, working: Inode | None = None) -> Fetcher:
    return Fetcher(cluster, OBJECT, portion_size, BackupCounts(), lambda: SIZE, working)


def bytes_of(parts: Sequence[memoryview] | None) -> bytes | None:
    return None if parts is None else b"".join(parts)


async def fetch(to: bytes, base: bytes = OLD) -> tuple[Fragment | None, Fetcher, Objects]:
    cluster = Objects({data_oid(TO, 3): to, data_oid(BASE, 3): base})
    fetching = fetcher(cluster)
    fragment = await one(fetching, Pair(3, TO, (BASE,)))
    assert not isinstance(fragment, Unreadable)
    return fragment, fetching, cluster


async def test_what_does_not_differ_is_no_fragment() -> None:
    fragment, fetching, _ = await fetch(OLD)

    assert fragment is None
    assert (fetching.counts.objects_read, fetching.counts.bytes_read) == (2, 2 * OBJECT)


@pytest.mark.parametrize(("first", "last"), [(1, 2), (2, 5), (0, 7)])
async def test_a_record_that_was_compared_as_a_whole_comes_with_its_base(first: int, last: int) -> None:
    new, start, end = changed(first, last), first * SECTOR, (last + 1) * SECTOR

    fragment, _, _ = await fetch(new)

    assert fragment is not None
    assert fragment.header == RecordHeader(3, start, end - start)
    assert bytes_of(fragment.data) == new[start:end]
    assert bytes_of(fragment.base) == OLD[start:end]
    assert fragment.is_last


async def test_what_lies_between_the_ends_is_read_of_one_side_alone() -> None:
    new = changed(2, 14)

    fragment, fetching, cluster = await fetch(new)

    assert fragment is not None
    assert bytes_of(fragment.data) == new[2 * SECTOR : 15 * SECTOR]
    assert fragment.base is None
    assert cluster.reads[-1] == (data_oid(TO, 3), SIZE, 2 * SIZE)
    assert fetching.counts.bytes_read == 4 * SIZE + 2 * SIZE


@pytest.mark.parametrize(("to_owner", "base_owner"), [(TO, 0), (0, BASE)])
async def test_the_side_that_nobody_owns_is_zeros_and_is_not_read(to_owner: int, base_owner: int) -> None:
    cluster = Objects({data_oid(TO, 3): OLD, data_oid(BASE, 3): OLD})
    fetching = fetcher(cluster)

    fragment = await one(fetching, Pair(3, to_owner, (base_owner,)))

    assert isinstance(fragment, Fragment)
    assert bytes_of(fragment.data) == (OLD if to_owner else bytes(OBJECT))
    assert {oid for oid, _, _ in cluster.reads} == {data_oid(to_owner or base_owner, 3)}
    assert fetching.counts.objects_read == 1


async def test_a_large_object_s_extent_is_found_and_cut() -> None:
    cluster = Objects({data_oid(TO, 3): changed(3, 12), data_oid(BASE, 3): OLD})
    fetching, pair = fetcher(cluster, SIZE), Pair(3, TO, (BASE,))

    assert await fetching.find_extents(pair, Slot([SIZE] * 2)) == (pair, [Extent(3 * SECTOR, 10 * SECTOR)])

    differing = Found(pair, [Extent(3 * SECTOR, 10 * SECTOR)])

    async def found() -> AsyncIterator[Found]:
        yield differing

    assert [wanted async for wanted in fetching.cut_extents(found())] == [
        Wanted(differing, Portion(3 * SECTOR, SIZE, True, False)),
        Wanted(differing, Portion(7 * SECTOR, SIZE, False, False)),
        Wanted(differing, Portion(11 * SECTOR, 2 * SECTOR, False, True)),
    ]


async def test_a_portion_of_a_large_record_is_a_fragment_of_it() -> None:
    cluster = Objects({data_oid(TO, 3): OLD})
    wanted = Wanted(Found(Pair(3, TO, (BASE,)), [Extent(0, 2 * SIZE)]), Portion(SIZE, SIZE, False, True))

    (fragment,), is_last = await fetcher(cluster, SIZE).fetch_portion(wanted, Slot([SIZE]))

    assert is_last

    assert isinstance(fragment, Fragment)
    assert (fragment.header, bytes_of(fragment.data), fragment.is_last) == (None, OLD[SIZE : 2 * SIZE], True)


async def test_an_object_that_a_guest_discarded_is_zeros(cluster: Cluster) -> None:
    inode = await make_working(cluster)
    objects = Objects({data_oid(BASE, 3): OLD}, owner=0)
    fetching = fetcher(objects, working=inode)

    fragment = await one(fetching, Pair(3, inode.vdi_id, (BASE,)))

    assert isinstance(fragment, Fragment)
    assert bytes_of(fragment.data) == bytes(OBJECT)
    assert fetching.counts.objects_discarded == 1


async def test_an_object_that_is_missing_though_somebody_owns_it_is_lost(cluster: Cluster) -> None:
    inode = await make_working(cluster)
    fetching = fetcher(Objects({}, owner=inode.vdi_id), working=inode)

    assert isinstance(await one(fetching, Pair(3, inode.vdi_id, (0,))), Unreadable)


async def test_an_object_of_a_working_vdi_that_cannot_be_read_is_not_taken_for_discarded(cluster: Cluster) -> None:
    inode = await make_working(cluster)
    fetching = fetcher(Objects({}, result=Result.EIO), working=inode)

    assert isinstance(await one(fetching, Pair(3, inode.vdi_id, (0,))), Unreadable)


async def test_a_missing_object_of_a_snapshot_is_lost() -> None:
    assert isinstance(await one(fetcher(Objects({})), Pair(3, TO, (0,))), Unreadable)


async def make_working(cluster: Cluster) -> Inode:
    await make_disk(cluster)
    return await cluster.find_vdi("disk")


async def test_an_object_that_cannot_be_read_is_named_with_what_the_cluster_said() -> None:
    found = await one(fetcher(Objects({data_oid(BASE, 3): OLD}, result=Result.EIO)), Pair(3, TO, (BASE,)))

    assert isinstance(found, Unreadable)
    assert (found.idx, found.error.oid, found.error.result) == (3, data_oid(TO, 3), Result.EIO)


async def test_without_its_base_an_object_cannot_be_compared() -> None:
    found = await one(fetcher(Objects({data_oid(TO, 3): OLD})), Pair(3, TO, (BASE,)))

    assert isinstance(found, Unreadable)
    assert found.error.oid == data_oid(BASE, 3)


async def test_where_objects_may_be_left_out_one_without_its_base_is_taken_whole() -> None:
    fetching = skipping(Objects({data_oid(TO, 3): OLD}))

    fragment = await one(fetching, Pair(3, TO, (BASE,)))

    assert isinstance(fragment, Fragment)
    assert (fragment.header, bytes_of(fragment.data), fragment.base) == (RecordHeader(3, 0, OBJECT), OLD, None)
    assert fetching.counts.bases_unreadable == 1


async def test_a_large_object_without_its_base_is_taken_whole() -> None:
    fetching, pair = skipping(Objects({data_oid(TO, 3): OLD}), SIZE), Pair(3, TO, (BASE,))

    assert await fetching.find_extents(pair, Slot([SIZE] * 2)) == Found(pair, [Extent(0, OBJECT)])
    assert fetching.counts.bases_unreadable == 1


async def test_what_neither_side_has_is_left_out() -> None:
    fetching = skipping(Objects({}))

    assert isinstance(await one(fetching, Pair(3, TO, (BASE,))), Unreadable)
    assert fetching.counts.bases_unreadable == 0


async def test_all_of_a_large_record_is_read_before_it_begins_where_it_may_be_left_out() -> None:
    cluster = Objects({data_oid(TO, 3): changed(0, 15), data_oid(BASE, 3): OLD})
    pair = Pair(3, TO, (BASE,))

    await skipping(cluster, SIZE).find_extents(pair, Slot([SIZE] * 2))

    read = {offset for oid, offset, _ in cluster.reads if oid == data_oid(TO, 3)}
    assert read >= set(range(0, OBJECT, SIZE))


async def test_what_cannot_be_read_goes_past_the_cutting() -> None:
    lost = Unreadable(3, ObjectReadFailed(3, data_oid(TO, 3), Result.NO_OBJ, "no such object"))

    async def found() -> AsyncIterator[Found]:
        yield Found(Pair(3, TO, (BASE,)), [lost])

    fetching = fetcher(Objects({}), SIZE)
    (wanted,) = [wanted async for wanted in fetching.cut_extents(found())]
    assert await fetching.fetch_portion(wanted, Slot([SIZE])) == ([lost], True)


# Several bases


async def test_each_base_has_its_own_record_and_no_byte_of_the_object_is_read_twice() -> None:
    cluster = Objects(
        {
            data_oid(TO, 3): changed(2, 5, 14),
            data_oid(BASE, 3): changed(5),
            data_oid(BASE + 1, 3): changed(2, 14),
        }
    )

    parts, is_last = await fetcher(cluster).fetch_records(Pair(3, TO, (BASE, 0, BASE + 1)), Slot([OBJECT] * 4))

    assert is_last
    assert [part.header for part in parts if isinstance(part, Fragment)] == [
        RecordHeader(3, 2 * SECTOR, 13 * SECTOR),
        RecordHeader(3, 0, OBJECT),
        RecordHeader(3, 5 * SECTOR, SECTOR),
    ]
    assert [bytes_of(part.data) for part in parts if isinstance(part, Fragment)] == [
        changed(2, 5, 14)[2 * SECTOR : 15 * SECTOR],
        changed(2, 5, 14),
        changed(2, 5, 14)[5 * SECTOR : 6 * SECTOR],
    ]
    read = sorted((offset, offset + length) for oid, offset, length in cluster.reads if oid == data_oid(TO, 3))
    assert all(before[1] <= after[0] for before, after in pairwise(read))
    assert sum(end - start for start, end in read) == OBJECT


async def test_bases_that_share_an_object_share_its_record_and_one_that_has_it_itself_has_none() -> None:
    cluster = Objects({data_oid(TO, 3): changed(2), data_oid(BASE, 3): OLD})

    parts, _ = await fetcher(cluster).fetch_records(Pair(3, TO, (BASE, TO, BASE)), Slot([OBJECT] * 4))

    assert parts[0] is parts[2]
    assert isinstance(parts[0], Fragment)
    assert parts[1] is None


async def test_extents_of_a_large_object_that_overlap_are_read_once() -> None:
    cluster = Objects({data_oid(TO, 3): OLD})
    found = Found(Pair(3, TO, (BASE, 0)), [Extent(SECTOR, SIZE), Extent(3 * SECTOR, SIZE)])
    fetching = fetcher(cluster, SIZE)

    async def once() -> AsyncIterator[Found]:
        yield found

    parts: list[list[tuple[RecordHeader | None, bytes | None, bool]]] = [[], []]
    async for wanted in fetching.cut_extents(once()):
        for place, part in enumerate((await fetching.fetch_portion(wanted, Slot([SIZE]))).parts):
            if isinstance(part, Fragment):
                parts[place].append((part.header, bytes_of(part.data), part.is_last))

    assert [length for _, _, length in cluster.reads] == [SIZE, 2 * SECTOR]
    assert parts == [
        [(RecordHeader(3, SECTOR, SIZE), OLD[SECTOR : SECTOR + SIZE], True)],
        [
            (RecordHeader(3, 3 * SECTOR, SIZE), OLD[3 * SECTOR : 5 * SECTOR], False),
            (None, OLD[5 * SECTOR : 7 * SECTOR], True),
        ],
    ]


async def one(fetching: Fetcher, pair: Pair) -> Fragment | Unreadable | None:
    """Fetch what there is for the one base of a pair."""
    (part,), _ = await fetching.fetch_records(pair, Slot([OBJECT] * 2))
    return part


def skipping(cluster: Cluster, portion_size: int = OBJECT) -> Fetcher:
    fetching = fetcher(cluster, portion_size)
    fetching.skips_unreadable = True
    return fetching
