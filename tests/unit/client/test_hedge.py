from __future__ import annotations

import pytest

from asyncbackup.client.hedge import Hedging
from asyncbackup.client.latency import Latencies


def seen(count: int, latency_s: float) -> Hedging:
    made = Hedging(Latencies())
    for _ in range(count):
        made.latencies.note(latency_s)
    return made


def test_nothing_is_late_before_enough_was_seen() -> None:
    assert seen(19, 0.1).delay_s() is None
    assert seen(20, 0.1).delay_s() is not None


def test_what_takes_much_longer_than_nearly_all_is_late() -> None:
    delay_s = seen(100, 0.1).delay_s()

    assert delay_s == pytest.approx(0.3, rel=0.06)


def test_where_all_is_quick_a_pause_is_not_late() -> None:
    assert seen(100, 0.0001).delay_s() == 0.05


@pytest.mark.parametrize(("latency_s", "hang_s"), [(0.001, 2.0), (1.0, 20.0)])
def test_a_node_hangs_after_many_times_what_is_usual(latency_s: float, hang_s: float) -> None:
    assert seen(100, latency_s).hang_s() == pytest.approx(hang_s, rel=0.06)


def test_before_enough_was_seen_a_node_hangs_after_a_constant_time() -> None:
    assert Hedging(Latencies()).hang_s() == 2.0


def test_a_twentieth_of_what_is_sent_may_be_hedged_and_a_few_at_the_start() -> None:
    hedging = Hedging(Latencies())
    assert [hedging.may_hedge() for _ in range(5)] == [True] * 4 + [False]

    hedging.sent = 100

    assert sum(hedging.may_hedge() for _ in range(50)) == 5
