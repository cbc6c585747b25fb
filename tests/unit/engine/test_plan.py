from __future__ import annotations

import numpy as np

from asyncbackup.engine.plan import Pair, Plan, plan_difference, plan_full
from asyncbackup.wire.inode import Owners


def owners(*vdi_ids: int) -> Owners:
    return np.array(vdi_ids, dtype=np.uint32)


def test_only_what_is_owned_differently_is_compared() -> None:
    plan = plan_difference(owners(5, 5, 6, 0, 6), owners(5, 4, 0, 0, 4))

    assert list(plan) == [Pair(1, 5, 4), Pair(2, 6, 0), Pair(4, 6, 4)]


def test_shared_objects_are_counted_and_unowned_ones_are_not() -> None:
    assert plan_difference(owners(5, 5, 6, 0), owners(5, 5, 0, 0)).shared == 2


def test_an_object_that_was_dropped_is_compared() -> None:
    assert list(plan_difference(owners(0), owners(5))) == [Pair(0, 0, 5)]


def test_two_equal_tables_leave_nothing_to_do() -> None:
    assert len(plan_difference(owners(1, 2, 3), owners(1, 2, 3))) == 0


def test_a_full_backup_of_a_tree_takes_what_is_owned() -> None:
    plan = plan_full(np.array([0, 3, 7], dtype=np.uint32), owners(5, 0, 6))

    assert list(plan) == [Pair(0, 5, 0), Pair(7, 6, 0)]
    assert plan.shared == 0


def test_a_plan_of_many_slices_stays_in_order() -> None:
    count = 3 * 4096 + 1
    idx = np.arange(count, dtype=np.uint32)
    plan = Plan(idx, idx + np.uint32(1), np.zeros(count, np.uint32), 0)

    assert list(plan) == [Pair(number, number + 1, 0) for number in range(count)]
