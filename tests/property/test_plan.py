from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from asyncbackup.engine.plan import plan_difference, plan_full

TABLES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=60)


@given(TABLES)
def test_the_plan_agrees_with_the_obvious_one(table: list[tuple[int, int]]) -> None:
    to = {idx: owners[0] for idx, owners in enumerate(table)}
    base = {idx: owners[1] for idx, owners in enumerate(table)}

    plan = plan_difference(np.array(list(to.values()), dtype=np.uint32), np.array(list(base.values()), dtype=np.uint32))

    assert [tuple(pair) for pair in plan] == [(idx, to[idx], base[idx]) for idx in to if to[idx] != base[idx]]
    assert plan.shared == sum(1 for idx in to if to[idx] == base[idx] != 0)


@given(st.dictionaries(st.integers(0, 100), st.integers(0, 2)))
def test_the_plan_of_a_tree_agrees_with_the_obvious_one(owners: dict[int, int]) -> None:
    ordered = sorted(owners.items())

    plan = plan_full(
        np.array([idx for idx, _ in ordered], dtype=np.uint32),
        np.array([owner for _, owner in ordered], dtype=np.uint32),
    )

    assert [tuple(pair) for pair in plan] == [(idx, owner, 0) for idx, owner in ordered if owner]
