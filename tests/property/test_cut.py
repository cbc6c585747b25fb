"""Shares of any plan are the plan, in order, and nearly the same work."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asyncbackup.engine.cut import Shard, take_share
from asyncbackup.engine.plan import Plan
from tests.property.test_plan import plans

COUNTS = st.integers(1, 50)


def work_of(plan: Plan) -> int:
    return sum(len({pair.to_owner, *pair.base_owners} - {0}) for pair in plan)


@given(plans(), COUNTS)
def test_shares_are_a_partition_of_the_plan_in_its_order(plan: Plan, count: int) -> None:
    shares = [take_share(plan, Shard(number, count), 40)[0] for number in range(1, count + 1)]

    assert [pair for share in shares for pair in share] == list(plan)


@given(plans(), COUNTS)
def test_the_work_of_a_share_differs_from_an_exact_one_by_less_than_an_object(plan: Plan, count: int) -> None:
    exact = work_of(plan) / count
    most = max((work_of(plan[place : place + 1]) for place in range(len(plan))), default=1)

    for number in range(1, count + 1):
        assert abs(work_of(take_share(plan, Shard(number, count), 40)[0]) - exact) < most


@given(plans(), COUNTS)
def test_each_object_of_a_share_lies_in_its_range(plan: Plan, count: int) -> None:
    for number in range(1, count + 1):
        share, piece = take_share(plan, Shard(number, count), 40)

        assert all(piece.first <= idx < piece.end for idx in share.idx.tolist())
