from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbackup.client.latency import Latencies


def noted(*latencies_s: float, memory: int | None = None) -> Latencies:
    made = Latencies(memory)
    for latency_s in latencies_s:
        made.note(latency_s)
    return made


def test_without_any_there_is_no_quantile() -> None:
    assert Latencies().quantile_s(0.5) is None


@given(st.lists(st.floats(2e-5, 100), min_size=1, max_size=50), st.floats(0.01, 1))
def test_a_quantile_is_right_within_five_per_cent(latencies_s: list[float], share: float) -> None:
    found = noted(*latencies_s).quantile_s(share)

    assert found is not None
    within = sum(latency_s <= found for latency_s in latencies_s)
    below = sum(latency_s < found / 1.06 for latency_s in latencies_s)
    assert within >= share * len(latencies_s) - 1e-9
    assert below < share * len(latencies_s) + 1e-9


@pytest.mark.parametrize("latency_s", [0.0, 1e-9, 1e-5, 1e4])
def test_what_is_out_of_range_counts_at_its_end(latency_s: float) -> None:
    made = noted(latency_s)

    assert made.count == 1
    assert made.quantile_s(1) is not None


def test_older_ones_fade() -> None:
    made = noted(*[1.0] * 100, *[0.001] * 300, memory=100)

    assert made.count == 400
    median = made.quantile_s(0.5)
    assert median is not None
    assert median < 0.002


def test_without_fading_all_count_the_same() -> None:
    median = noted(*[1.0] * 300, *[0.001] * 100).quantile_s(0.5)

    assert median is not None
    assert median > 0.9


def test_percentiles_are_named_by_their_per_cent() -> None:
    latencies = Latencies()
    for thousandth in range(1, 1001):
        latencies.note(thousandth / 1000)

    told = latencies.percentiles_s()

    assert told["50"] == pytest.approx(0.5, rel=0.06)
    assert told["100"] == pytest.approx(1.0, rel=0.06)
    assert list(told.values()) == sorted(told.values())


def test_there_are_no_percentiles_of_nothing() -> None:
    assert Latencies().percentiles_s() == {}


def test_latencies_of_two_are_added() -> None:
    ours, theirs = Latencies(), Latencies()
    ours.note(0.001)
    theirs.note(1.0)

    ours.add(theirs)

    assert ours.count == 2
    assert ours.quantile_s(0.5) == pytest.approx(0.001, rel=0.06)
    assert ours.quantile_s(1.0) == pytest.approx(1.0, rel=0.06)
