from __future__ import annotations

import pytest

from asyncbackup.bench.cases import Case, Place, Results
from asyncbackup.bench.comparison import compare, differences
from tests.unit.bench.made import case, other, ours


def results(*cases: Case, processor: str = "fast") -> Results:
    return Results({"processor": processor}, [], 2, cases)


def ran(*walls_s: float, drain_s: float = 2.0) -> Case:
    return case({"asyncbackup": [ours(wall_s) for wall_s in walls_s], "drain": [other(drain_s) for _ in walls_s]})


def test_a_change_is_clear_only_where_no_round_is_like_one_before() -> None:
    slower, *_ = compare(results(ran(2.0, 2.2)), results(ran(3.0, 3.3)))
    similar, *_ = compare(results(ran(2.0, 2.2)), results(ran(2.1, 2.4)))

    assert (slower.figure, slower.is_clear) == ("seconds", True)
    assert slower.factor == pytest.approx(1.5)
    assert not similar.is_clear


def test_ratios_to_others_are_compared_as_well() -> None:
    *_, share = compare(results(ran(2.0)), results(ran(4.0, drain_s=4.0)))

    assert share.figure == "times as fast as drain"
    assert share.factor == pytest.approx(1.0), "the whole machine was slower"


def test_only_cases_that_were_the_same_are_compared() -> None:
    old = results(case(name="full"), case(nodes=2), case(place=Place("nodes", 1)))

    assert compare(old, results(case())) == []


def test_another_machine_is_told() -> None:
    assert differences(results(), results(processor="slow")) == ["processor: fast then, slow now"]
    assert differences(results(), results()) == []
