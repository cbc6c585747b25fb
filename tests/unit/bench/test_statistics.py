from __future__ import annotations

import pytest

from asyncbackup.bench.statistics import Spread, ratios, spread


def test_a_spread_is_the_median_between_the_least_and_the_most() -> None:
    assert spread([3.0, 1.0, 8.0]) == Spread(3.0, 1.0, 8.0)


def test_a_ratio_is_that_of_the_same_round() -> None:
    assert ratios([10.0, 40.0], [5.0, 20.0]) == [2.0, 2.0]


def test_rounds_that_lack_a_contestant_have_no_ratios() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratios([1.0], [1.0, 2.0])


@pytest.mark.parametrize(("value", "clear"), [(0.9, True), (1.0, False), (1.2, False), (1.3, True)])
def test_a_value_within_the_spread_may_be_noise(value: float, *, clear: bool) -> None:
    assert Spread(1.1, 1.0, 1.2).is_clear_of(value) == clear


def test_spreads_with_values_in_common_overlap() -> None:
    assert Spread(1.1, 1.0, 1.2).overlaps(Spread(1.3, 1.2, 1.4))
    assert not Spread(1.1, 1.0, 1.2).overlaps(Spread(1.4, 1.3, 1.5))
