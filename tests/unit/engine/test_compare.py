"""How the two ends at which an object differs are found, with as few reads as that takes."""

from __future__ import annotations

import pytest

from asyncbackup.engine.compare import COMPARED_SIZE, Both, find_ends, is_always_compared, share_of

SECTOR = 512
SIZE = 4 * SECTOR
"""Bytes compared at a time."""
OBJECT = 4 * SIZE


class Reads:
    """An object and its base, and the offsets that were read."""

    def __init__(self, *differing: int) -> None:
        self.base = bytes(OBJECT)
        to = bytearray(OBJECT)
        for sector in differing:
            to[sector * SECTOR + 7] = 1
        self.to = bytes(to)
        self.offsets: list[int] = []

    async def __call__(self, offset: int, to: memoryview, base: memoryview) -> tuple[memoryview, memoryview]:
        self.offsets.append(offset)
        to[:] = self.to[offset : offset + len(to)]
        base[:] = self.base[offset : offset + len(base)]
        return to, base


def buffers(size: int = OBJECT) -> tuple[memoryview, memoryview]:
    return memoryview(bytearray(size)), memoryview(bytearray(size))


async def test_equal_objects_are_read_once_from_the_beginning() -> None:
    assert await find_ends(OBJECT, SIZE, *buffers(), reads := Reads()) is None
    assert reads.offsets == [0, SIZE, 2 * SIZE, 3 * SIZE]


@pytest.mark.parametrize(
    ("differing", "offsets", "extent"),
    [
        ([0, 15], [0, 3], (0, 16)),
        ([5, 10], [0, 1, 3, 2], (5, 11)),
        ([9], [0, 1, 2, 3], (9, 10)),
        ([0], [0, 3, 2, 1], (0, 1)),
        ([1, 2, 3, 4], [0, 3, 2, 1], (1, 5)),
        ([15], [0, 1, 2, 3], (15, 16)),
    ],
)
async def test_ends_are_found_from_both_sides_inwards(
    differing: list[int], offsets: list[int], extent: tuple[int, int]
) -> None:
    ends = await find_ends(OBJECT, SIZE, *buffers(), reads := Reads(*differing))

    assert ends is not None
    assert reads.offsets == [number * SIZE for number in offsets]
    assert (ends.start, ends.end) == tuple(sector * SECTOR for sector in extent)


async def test_what_was_read_at_the_ends_is_given() -> None:
    reads = Reads(5, 10)

    ends = await find_ends(OBJECT, SIZE, *buffers(), reads)

    assert ends is not None
    assert ends.first == Both(SIZE, memoryview(reads.to[SIZE : 2 * SIZE]), memoryview(bytes(SIZE)))
    assert ends.last == Both(2 * SIZE, memoryview(reads.to[2 * SIZE : 3 * SIZE]), memoryview(bytes(SIZE)))


async def test_where_one_portion_has_both_ends_it_is_given_twice() -> None:
    ends = await find_ends(OBJECT, SIZE, *buffers(), Reads(5, 6))

    assert ends is not None
    assert ends.first is ends.last
    assert (ends.start, ends.end) == (5 * SECTOR, 7 * SECTOR)


async def test_an_object_that_is_larger_than_the_buffers_has_the_same_extent() -> None:
    ends = await find_ends(OBJECT, SIZE, *buffers(SIZE), Reads(3, 12))

    assert ends is not None
    assert (ends.start, ends.end) == (3 * SECTOR, 13 * SECTOR)


def test_a_cut_keeps_both_sides_at_their_offset() -> None:
    both = Both(SIZE, memoryview(b"abcd"), memoryview(b"efgh"))

    assert both.cut(SIZE + 1, SIZE + 3) == Both(SIZE + 1, memoryview(b"bc"), memoryview(b"fg"))


@pytest.mark.parametrize("times", [1, 2, 3, 5])
def test_what_is_always_compared_lies_in_two_neighbouring_portions_of_any_multiple(times: int) -> None:
    size = times * COMPARED_SIZE
    edges = [n * COMPARED_SIZE + by for n in range(6) for by in (0, 1, COMPARED_SIZE - 1)]
    extents = [(start, end) for start in edges for end in edges if start < end]

    always = [(start, end) for start, end in extents if is_always_compared(start, end)]

    assert all((end - 1) // size - start // size <= 1 for start, end in always)
    assert len(always) < len(extents)


def test_more_is_compared_at_a_time_where_more_is_under_way() -> None:
    sizes = [share_of(limit * COMPARED_SIZE, 4) for limit in (1, 4, 7, 8, 13)]

    assert sizes == [n * COMPARED_SIZE for n in (1, 1, 1, 2, 3)]
