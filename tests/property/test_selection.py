"""Random folders: the chain that is chosen is the one that trying all of them finds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from asyncbackup.engine.catalog import Backup
from asyncbackup.engine.selection import Beginning, Cost, choose_chain, place_all
from asyncbackup.errors import ChainGap, NotStored
from tests.catalogs import catalog, identity, stored

DAYS = st.integers(1, 5)
Shape = tuple[int, int | None, int, bool, bool]
SHAPES: st.SearchStrategy[list[Shape]] = st.lists(
    st.tuples(DAYS, st.none() | DAYS, st.integers(0, 9), st.booleans(), st.booleans()), max_size=8
)


def make(shapes: Sequence[Shape]) -> list[Backup]:
    return [
        replace(stored(str(number), to, base, size=size, may_lack=may_lack), is_damaged=is_damaged)
        for number, (to, base, size, may_lack, is_damaged) in enumerate(shapes)
    ]


def all_chains(backups: Sequence[Backup], to: int, base: int | None) -> Iterator[list[Backup]]:
    """Try all ways that use no backup twice."""
    begun = [each for each in backups if each.subject.base_identity == (identity(base) if base else None)]
    left = [[each] for each in begun]
    while left:
        chain = left.pop()
        if chain[-1].identity == identity(to):
            yield chain
        left += [
            [*chain, each] for each in backups if each not in chain and each.subject.base_identity == chain[-1].identity
        ]


def cost(chain: Sequence[Backup]) -> Cost:
    return Cost(
        sum(each.subject.may_lack for each in chain),
        sum(each.is_damaged for each in chain),
        sum(each.size for each in chain),
        len(chain),
    )


@given(SHAPES, DAYS, st.none() | DAYS)
def test_the_chain_that_costs_least_is_chosen(shapes: Sequence[Shape], to: int, base: int | None) -> None:
    assume(base != to)
    backups = make(shapes)
    costs = [cost(chain) for chain in all_chains(backups, to, base)]
    try:
        chain = choose_chain(catalog(*backups), str(to), None if base is None else identity(base))
    except (ChainGap, NotStored):
        assert not costs
        return
    assert chain in list(all_chains(backups, to, base))
    assert cost(chain) == min(costs)


@given(SHAPES)
def test_each_backup_has_one_place(shapes: Sequence[Shape]) -> None:
    backups = make(shapes)

    placed = place_all(backups)

    assert sorted(each.backup.name for each in placed) == sorted(each.name for each in backups)
    for place, each in enumerate(placed):
        if each.before is not None:
            assert each.backup.subject.base_identity == each.before.backup.identity
            assert each.before in placed[:place]
        elif each.beginning is Beginning.FULL:
            assert each.backup.subject.is_full
        else:
            assert each.backup.subject.base_identity is not None


@given(
    st.permutations(
        [
            stored("0", 1, size=5),
            stored("1", 2, 1, size=3),
            stored("2", 2, 1, size=3),
            stored("3", 3, 2, size=1),
            stored("4", 3, size=9),
        ]
    )
)
def test_the_order_of_files_changes_nothing(backups: list[Backup]) -> None:
    assert [each.name for each in choose_chain(catalog(*backups), "3")] == ["4"]
    assert {each.backup.name: each.cost for each in place_all(backups)}["3"] == Cost(size=9, backups=3)


@pytest.mark.parametrize("days", [2, 7])
def test_a_full_circle_ends(days: int) -> None:
    circle = [stored(str(day), day % days + 1, day) for day in range(1, days + 1)]

    with pytest.raises(ChainGap) as caught:
        choose_chain(catalog(*circle), "1")

    assert sorted(caught.value.circle) == [str(day) for day in range(1, days + 1)]
