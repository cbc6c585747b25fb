from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asyncbackup.client.rate import BURST_S, Bucket

RATE = 1000.0


def test_a_quarter_of_a_second_is_there_at_once() -> None:
    bucket = Bucket(RATE, 0.0)

    assert [bucket.take(0.0, 125) for _ in range(3)] == [0.0, 0.0, 0.125]


def test_no_more_than_that_is_saved_up() -> None:
    bucket = Bucket(RATE, 0.0)

    assert bucket.take(100.0, 251) == 0.001


def test_more_than_the_burst_at_once_waits_for_all_of_it() -> None:
    assert Bucket(RATE, 0.0).take(0.0, 1250) == 1.0


def test_half_of_the_rate_takes_twice_the_time() -> None:
    bucket = Bucket(RATE, 0.0)
    bucket.take(0.0, 250)

    assert bucket.take(0.0, 100, share=0.5) == 0.2


@given(st.lists(st.tuples(st.integers(0, 5000), st.floats(0, 2)), max_size=50))
def test_no_span_of_time_gets_more_than_the_rate_and_a_burst(takes: list[tuple[int, float]]) -> None:
    bucket, now_s, used = Bucket(RATE, 0.0), 0.0, []
    for size, pause_s in takes:
        now_s += bucket.take(now_s, size)
        used.append((now_s, size))
        now_s += pause_s

    for first, (start_s, _) in enumerate(used):
        for last in range(first, len(used)):
            span_s = used[last][0] - start_s
            later = sum(size for _, size in used[first + 1 : last + 1])
            assert later <= RATE * (span_s + BURST_S) + 1e-6
