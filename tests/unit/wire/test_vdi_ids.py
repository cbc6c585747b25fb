from __future__ import annotations

import tracemalloc

import pytest

from asyncbackup.wire.constants import VDI_BITMAP_SIZE
from asyncbackup.wire.vdi_ids import ID_COUNT, VdiIds, first_id, is_vdi_id
from tests.faults.claims import ALL_IDS, bitmap_of

NONE = bytes(VDI_BITMAP_SIZE)
START = first_id("disk")
NAME_OF_ONE_OF_THE_LAST_IDS = "disk67948"


def ids(*in_use: int, deleted: tuple[int, ...] = ()) -> VdiIds:
    return VdiIds(bitmap_of(in_use), bitmap_of(deleted))


def test_the_first_id_is_that_of_a_real_sheep() -> None:
    assert (first_id("a"), first_id("disk"), first_id("copy")) == (0x1EC8C, 0x8F8A84, 0x84EEE4)


@pytest.mark.parametrize(("number", "can_be"), [(0, False), (1, True), (ID_COUNT - 1, True), (ID_COUNT, False)])
def test_an_id_has_24_bits_and_is_not_0(number: int, *, can_be: bool) -> None:
    assert is_vdi_id(number) is can_be


def test_deleted_ids_and_0_are_no_vdis() -> None:
    found = ids(0, 5, 6, 7, deleted=(6,))

    assert (found.ascending().tolist(), len(found)) == ([5, 7], 2)


def test_a_run_ends_where_no_vdi_follows() -> None:
    assert ids(5, 6, 7, 20, 22, ID_COUNT - 1, deleted=(7,)).ends_of_runs().tolist() == [6, 20, 22, ID_COUNT - 1]


def test_the_ids_of_a_name_are_given_newest_first_over_deleted_ones() -> None:
    found = ids(START - 1, START, START + 1, START + 2, START + 4, deleted=(START + 1,))

    assert list(found.newest_of("disk")) == [START + 2, START]


def test_a_name_without_a_run_has_no_ids() -> None:
    assert list(ids(START + 1).newest_of("disk")) == []


def test_a_run_goes_on_at_the_first_id() -> None:
    start = first_id(NAME_OF_ONE_OF_THE_LAST_IDS)
    found = VdiIds(bitmap_of([1, 2, 4, *range(start, ID_COUNT)]), bitmap_of(range(start + 1, ID_COUNT - 1)))

    assert list(found.newest_of(NAME_OF_ONE_OF_THE_LAST_IDS)) == [2, 1, ID_COUNT - 1, start]


def test_all_ids_at_once_cost_a_few_bytes_each_at_most() -> None:
    tracemalloc.start()
    try:
        found = VdiIds(ALL_IDS, NONE)
        newest = next(found.newest_of("disk"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert (len(found), newest, found.ends_of_runs().tolist()) == (ID_COUNT - 1, START - 1, [ID_COUNT - 1])
    assert peak < 6 * ID_COUNT
