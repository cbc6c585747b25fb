from __future__ import annotations

import pytest

from asyncbackup.engine.compact import MAX_LENGTH, ZEROS, Extent, is_zeros, trim

SECTOR = 512


def differing(length: int, *sectors: int) -> memoryview:
    """Zeros but for one byte in each of ``sectors``."""
    content = bytearray(length)
    for sector in sectors:
        content[sector * SECTOR + sector % SECTOR] = 1
    return memoryview(content)


@pytest.mark.parametrize("length", [SECTOR, 64 << 10, (64 << 10) + SECTOR, 1 << 20, MAX_LENGTH])
def test_equal_contents_have_no_extent(length: int) -> None:
    assert trim(differing(length), ZEROS[:length]) == Extent(0, 0)


@pytest.mark.parametrize("length", [SECTOR, 3 * SECTOR, 1 << 20, MAX_LENGTH])
@pytest.mark.parametrize("where", [0.0, 0.3, 0.5, 1.0])
def test_one_sector_is_found_wherever_it_is(length: int, where: float) -> None:
    sector = int((length // SECTOR - 1) * where)

    assert trim(differing(length, sector), ZEROS[:length]) == Extent(sector * SECTOR, SECTOR)


@pytest.mark.parametrize(
    ("first", "last"), [(0, 2047), (5, 9), (127, 128), (128, 129), (383, 1900), (0, 1), (2046, 2047)]
)
def test_the_extent_reaches_from_the_first_to_the_last_difference(first: int, last: int) -> None:
    content = differing(1 << 20, first, last)

    assert trim(content, ZEROS[: 1 << 20]) == Extent(first * SECTOR, (last - first + 1) * SECTOR)


@pytest.mark.parametrize("at", [0, 511, 512, 1023])
def test_a_single_byte_makes_its_sector_differ(at: int) -> None:
    content = bytearray(1024)
    content[at] = 0x80

    assert trim(memoryview(content), ZEROS[:1024]) == Extent(at // SECTOR * SECTOR, SECTOR)


def test_what_nobody_owns_reads_as_zeros() -> None:
    assert ZEROS.readonly
    assert len(ZEROS) == MAX_LENGTH


@pytest.mark.parametrize("length", [1, 511, SECTOR, 1 << 20, MAX_LENGTH])
def test_zeros_are_told_from_what_has_a_single_other_byte(length: int) -> None:
    content = bytearray(length)
    assert is_zeros(memoryview(content))
    for place in (0, length // 2, length - 1):
        content[place] = 1
        assert not is_zeros(memoryview(content))
        content[place] = 0
