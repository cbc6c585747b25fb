from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from asyncbackup.engine.plan import Plan, count_owned, plan_difference, plan_full

TABLES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=60)


def u32(values: list[int]) -> NDArray[np.uint32]:
    return np.array(values, dtype=np.uint32)


@given(TABLES)
def test_the_plan_agrees_with_the_obvious_one(table: list[tuple[int, int]]) -> None:
    to, base = u32([owners[0] for owners in table]), u32([owners[1] for owners in table])

    plan = plan_difference(to, base)

    assert [tuple(pair) for pair in plan] == [(idx, a, (b,)) for idx, (a, b) in enumerate(table) if a != b]
    assert count_owned(to, base) - len(plan) == sum(1 for a, b in table if a == b != 0)


@given(st.dictionaries(st.integers(0, 100), st.integers(0, 2)))
def test_the_plan_of_a_tree_agrees_with_the_obvious_one(owners: dict[int, int]) -> None:
    ordered = sorted(owners.items())

    plan = plan_full(u32([idx for idx, _ in ordered]), u32([owner for _, owner in ordered]))

    assert [tuple(pair) for pair in plan] == [(idx, owner, (0,)) for idx, owner in ordered if owner]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """A plan with one base or several."""
    bases = draw(st.integers(1, 3))
    table = draw(st.lists(st.tuples(*[st.integers(0, 3)] * (1 + bases)), max_size=40))
    to, *others = ([owners[side] for owners in table] for side in range(1 + bases))
    return plan_difference(u32(to), *map(u32, others))


@given(plans(), st.data())
def test_ranges_of_a_plan_cover_each_pair_once_and_join_to_the_plan(plan: Plan, data: st.DataObject) -> None:
    inner = sorted(data.draw(st.lists(st.integers(0, len(plan)), max_size=5), label="cuts"))
    cuts = [0, *inner, len(plan)]

    ranges = [plan[start:end] for start, end in pairwise(cuts)]

    assert [pair for each in ranges for pair in each] == list(plan)
    assert list(Plan.join(ranges)) == list(plan)


@given(plans(), st.data())
def test_what_is_decoded_is_what_was_encoded(plan: Plan, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(plan)))

    again = Plan.decode(plan[start:].encode())

    assert list(again) == list(plan)[start:]
    assert len(again.base_owners) == len(plan.base_owners)
    assert again.encode() == plan[start:].encode()
