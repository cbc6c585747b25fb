from __future__ import annotations

import numpy as np
import pytest

from asyncbackup.engine.plan import Pair, Plan, count_owned, plan_difference, plan_full
from asyncbackup.wire.inode import Owners


def owners(*vdi_ids: int) -> Owners:
    return np.array(vdi_ids, dtype=np.uint32)


def test_only_what_is_owned_differently_is_compared() -> None:
    plan = plan_difference(owners(5, 5, 6, 0, 6), owners(5, 4, 0, 0, 4))

    assert list(plan) == [Pair(1, 5, (4,)), Pair(2, 6, (0,)), Pair(4, 6, (4,))]


def test_what_differs_from_one_of_several_bases_is_compared_with_all_of_them() -> None:
    plan = plan_difference(owners(5, 5, 6, 0), owners(5, 4, 6, 0), owners(5, 5, 6, 3))

    assert list(plan) == [Pair(1, 5, (4, 5)), Pair(3, 0, (0, 3))]


def test_owned_objects_are_counted_once() -> None:
    assert count_owned(owners(5, 5, 0, 0)) == 2
    assert count_owned(owners(5, 5, 6, 0, 0), owners(5, 4, 0, 7, 0)) == 4


def test_an_object_that_was_dropped_is_compared() -> None:
    assert list(plan_difference(owners(0), owners(5))) == [Pair(0, 0, (5,))]


def test_two_equal_tables_leave_nothing_to_do() -> None:
    assert len(plan_difference(owners(1, 2, 3), owners(1, 2, 3))) == 0


def test_a_full_backup_of_a_tree_takes_what_is_owned() -> None:
    plan = plan_full(np.array([0, 3, 7], dtype=np.uint32), owners(5, 0, 6))

    assert list(plan) == [Pair(0, 5, (0,)), Pair(7, 6, (0,))]


def test_a_plan_of_many_slices_stays_in_order() -> None:
    count = 3 * 4096 + 1
    idx = np.arange(count, dtype=np.uint32)
    plan = Plan(idx, idx + np.uint32(1), (np.zeros(count, np.uint32),))

    assert list(plan) == [Pair(number, number + 1, (0,)) for number in range(count)]


PLAN = plan_difference(owners(1, 2, 3, 4), owners(9, 9, 9, 9))


def test_a_range_of_a_plan_is_a_plan() -> None:
    assert list(PLAN[1:3]) == [Pair(1, 2, (9,)), Pair(2, 3, (9,))]
    assert len(PLAN[4:]) == 0


def test_every_other_pair_is_no_range() -> None:
    with pytest.raises(ValueError, match="expected a range without a step, got a step of 2"):
        PLAN[::2]


@pytest.mark.parametrize("plans", [[PLAN, PLAN], [PLAN[2:], PLAN[:2]], [PLAN[:3], PLAN[2:]]])
def test_plans_that_do_not_ascend_are_not_joined(plans: list[Plan]) -> None:
    with pytest.raises(ValueError, match="expected plans whose indices ascend"):
        Plan.join(plans)


def test_plans_with_different_bases_are_not_joined() -> None:
    other = plan_difference(owners(0, 0, 0, 0, 1), owners(0, 0, 0, 0, 2), owners(0, 0, 0, 0, 3))

    with pytest.raises(ValueError, match=r"expected plans with one number of bases, got \[1, 2\]"):
        Plan.join([PLAN, other])


def test_nothing_is_not_joined() -> None:
    with pytest.raises(ValueError, match=r"got \[\]"):
        Plan.join([])
