from __future__ import annotations

import numpy as np
import pytest

from asyncbackup.engine.cut import Shard, cut_work, find_share, take_share
from asyncbackup.engine.plan import Plan, plan_difference


def plan_of(to: list[int], base: list[int]) -> Plan:
    return plan_difference(np.array(to, np.uint32), np.array(base, np.uint32))


FULL = plan_of([1, 0, 1, 1, 0, 1], [0] * 6)


def shares_of(plan: Plan, count: int) -> list[list[int]]:
    """Give the objects of each share."""
    return [take_share(plan, Shard(number, count), 6)[0].idx.tolist() for number in range(1, count + 1)]


def test_work_is_cut_where_the_part_of_each_share_is_done() -> None:
    assert cut_work(np.array([1, 1, 1, 1]), 2).tolist() == [0, 2, 4]
    assert cut_work(np.array([3, 1, 1, 1]), 2).tolist() == [0, 1, 4]
    assert cut_work(np.array([1, 5, 1]), 2).tolist() == [0, 2, 3]
    assert cut_work(np.array([1]), 3).tolist() == [0, 1, 1, 1]
    assert cut_work(np.array([], np.int64), 2).tolist() == [0, 0, 0]


def test_work_beyond_32_bits_is_cut_as_any() -> None:
    assert cut_work(np.array([1 << 40] * 4), 4).tolist() == [0, 1, 2, 3, 4]


def test_the_range_of_a_share_ends_where_the_next_one_begins() -> None:
    idx, work = np.array([2, 5, 7], np.uint32), np.array([1, 1, 1])

    shares = [find_share(idx, work, Shard(number, 3), 9) for number in (1, 2, 3)]

    assert [(share.first, share.end) for share in shares] == [(0, 5), (5, 7), (7, 9)]
    assert [idx[share.places].tolist() for share in shares] == [[2], [5], [7]]


def test_objects_of_which_one_side_is_read_are_shared_out_alike() -> None:
    assert shares_of(FULL, 2) == [[0, 2], [3, 5]]


def test_an_object_of_which_both_sides_are_read_counts_twice() -> None:
    assert shares_of(plan_of([2, 2, 2, 2, 2], [1, 0, 0, 0, 0]), 3) == [[0], [1, 2], [3, 4]]


def test_an_object_that_only_the_base_has_counts_once() -> None:
    assert shares_of(plan_of([0, 0], [1, 1]), 2) == [[0], [1]]


def test_a_side_that_has_the_owner_of_another_counts_no_more() -> None:
    to, base = np.array([2, 2, 2], np.uint32), np.array([1, 0, 0], np.uint32)

    assert shares_of(plan_difference(to, base, base), 2) == [[0], [1, 2]]


def test_more_shares_than_objects_leave_some_empty() -> None:
    assert shares_of(plan_of([1], [0]), 3) == [[0], [], []]
    assert shares_of(FULL[:0], 2) == [[], []]


def test_a_share_says_its_range_and_the_plan_that_it_is_of() -> None:
    share, piece = take_share(FULL, Shard(2, 2), 6)

    assert share.idx.tolist() == [3, 5]
    assert (piece.number, piece.count, piece.first, piece.end, piece.planned) == (2, 2, 3, 6, 4)
    assert piece.plan == FULL.encode()[-16:].hex()


@pytest.mark.parametrize("plan", [FULL, FULL[:1], FULL[:0]])
@pytest.mark.parametrize("count", [1, 3, 9])
def test_ranges_follow_one_another_from_the_first_object_to_the_last(plan: Plan, count: int) -> None:
    pieces = [take_share(plan, Shard(number, count), 6)[1] for number in range(1, count + 1)]

    assert [piece.first for piece in pieces] == [0, *(piece.end for piece in pieces[:-1])]
    assert pieces[-1].end == 6


def test_a_shard_is_written_as_it_is_named() -> None:
    assert str(Shard(3, 8)) == "3/8"
