from __future__ import annotations

import random

import pytest

from asyncbackup.client.pace import LEAST_CHARGE, Change, Pace, PaceOptions, Sent
from tests.simulated import (
    GB,
    GIGABIT,
    KIB,
    MIB,
    MS,
    PATHS,
    READ,
    UNBOUNDED,
    Link,
    Path,
    Run,
    Server,
    Simulation,
    set_demand,
    set_rate,
    set_round_trip,
)


def changes(run: Run, start_s: float = 0.0) -> list[Change]:
    return [change for at_s, change in run.told if change is not None and at_s >= start_s]


@pytest.fixture(params=PATHS, scope="module")
def settled(request: pytest.FixtureRequest) -> tuple[Path, Run]:
    """A path, and three seconds on it."""
    path = PATHS[request.param]
    return path, Simulation([path.make()], [Pace()]).run(3)


def test_a_path_is_used_completely(settled: tuple[Path, Run]) -> None:
    path, run = settled

    assert run.rate(1.5, 3) > 0.95 * path.rate


def test_the_queue_is_bounded(settled: tuple[Path, Run]) -> None:
    path, run = settled

    # Where half of the answers take no time, all that is measured sways.
    sway = 1.5 if path.make().cached else 1.0
    assert run.limit(1.5, 3) < sway * 3 * (path.held + READ)


def test_start_up_is_done_in_a_few_round_trips(settled: tuple[Path, Run]) -> None:
    path, run = settled

    assert run.time_to(0.9 * path.rate, span_s=max(0.03, 2 * path.latency_s)) < 0.05 + 5 * path.latency_s


def test_a_run_of_a_second_is_fast_on_a_long_path() -> None:
    run = Simulation([Server(Link(0.7 * GB), 20 * MS)], [Pace()]).run(1)

    assert run.rate(0, 1) > 0.9 * 0.7 * GB


def test_a_path_without_latency_needs_few_requests() -> None:
    run = Simulation([Server(Link(1.5 * GB), 0.2 * MS)], [Pace()]).run(1)

    assert 4 * READ <= run.limit(0.2, 1) <= 8 * READ


def test_the_limit_never_falls_below_two_requests() -> None:
    run = Simulation([Server(Link(GIGABIT), 0.1 * MS)], [Pace()]).run(2)

    assert min(limit for _, limit in run.limits) >= 2 * READ


def test_answers_from_a_cache_do_not_hide_how_slow_a_disk_is() -> None:
    disks = Server(Link(1.5 * GB), 0.2 * MS, 4, 8 * MS, cached=0.5)

    assert Simulation([disks], [Pace()]).run(4).rate(1, 4) > 0.9 * 2 * 4 * READ / 8e-3


def test_latency_falls_with_a_path_that_slows_down() -> None:
    run = Simulation([Server(Link(1.5 * GB), 2 * MS)], [Pace()], later={2: set_rate(0.15 * GB)}).run(4)

    assert run.rate(3, 4) > 0.97 * 0.15 * GB
    assert run.latency_s(3, 4) < 4 * (2 * MS + READ / (0.15 * GB))
    assert changes(run, 2)[0].reason == "the rate fell by half: measures again"


def test_a_path_that_gets_faster_is_used_at_once() -> None:
    later = {1.0: set_rate(0.15 * GB), 2.0: set_rate(1.5 * GB)}
    run = Simulation([Server(Link(1.5 * GB), 2 * MS)], [Pace()], later=later).run(3)

    assert run.time_to(0.9 * 1.5 * GB, after_s=2, span_s=0.05) < 0.1
    assert run.limit(2.5, 3) < 3 * PATHS["2 ms"].held


def test_a_path_that_gets_longer_is_filled_again() -> None:
    run = Simulation([Server(Link(1 * GB), 2 * MS)], [Pace()], later={1: set_round_trip(20 * MS)}).run(2)

    assert run.time_to(0.9 * GB, after_s=1, span_s=0.05) < 0.3


def test_a_path_that_gets_shorter_is_drained_in_the_end() -> None:
    run = Simulation([Server(Link(0.7 * GB), 20 * MS)], [Pace()], later={1: set_round_trip(0.5 * MS)}).run(8)

    assert run.rate(1, 8) > 0.97 * 0.7 * GB
    assert run.limit(7, 8) < 10 * READ


def test_looking_for_the_latency_without_load_costs_little() -> None:
    run = Simulation([Server(Link(0.7 * GB), 20 * MS)], [Pace()]).run(12)

    assert run.rate(1, 12) > 0.99 * 0.7 * GB
    assert [change.reason for change in changes(run, 1)].count("looks for the latency without load") == 2


def test_an_application_that_asks_for_little_does_not_lower_the_limit() -> None:
    later = {1.0: set_demand(2), 3.0: set_demand(UNBOUNDED)}
    run = Simulation([Server(Link(0.7 * GB), 20 * MS)], [Pace()], later=later).run(4)

    assert run.limit(2, 3) == pytest.approx(run.limit(0.9, 1), rel=0.1)
    assert run.time_to(0.9 * 0.7 * GB, after_s=3, span_s=0.05) < 0.05


def test_an_application_that_asks_for_little_at_first_starts_up_later() -> None:
    run = Simulation([Server(Link(0.7 * GB), 20 * MS)], [Pace()], demand=4, later={1: set_demand(UNBOUNDED)}).run(2)

    assert run.limit(0.5, 1) == PaceOptions().start_bytes
    assert run.time_to(0.9 * 0.7 * GB, after_s=1, span_s=0.05) < 0.15


def test_a_slow_node_does_not_hold_up_the_others() -> None:
    servers = [Server(Link(GIGABIT), 0.2 * MS) for _ in range(4)]
    servers.append(Server(Link(GIGABIT / 10), 0.2 * MS))
    run = Simulation(servers, [Pace() for _ in servers]).run(3)

    assert [run.rate(1, 3, node) > 0.95 * GIGABIT for node in range(4)] == [True] * 4
    assert run.rate(1, 3, 4) > 0.9 * GIGABIT / 10


def test_small_requests_are_bounded_as_well() -> None:
    server = Server(Link(0.7 * GB), 2 * MS, 2, 0.1 * MS)
    run = Simulation([server], [Pace()], sizes=lambda _: 512).run(1)

    assert run.rate(0.5, 1) / 512 > 0.95 * 2 / 0.1e-3
    assert run.limit(0.5, 1) / LEAST_CHARGE < 3 * 20_000 * 2.1e-3 + 4


def test_small_requests_among_others_do_not_lower_the_limit() -> None:
    def sizes(random_: random.Random) -> int:
        return random_.choice([512, READ, READ])

    run = Simulation([Server(Link(0.7 * GB), 20 * MS)], [Pace()], sizes=sizes).run(2)

    assert run.rate(0.5, 2) > 0.97 * 0.7 * GB


def test_what_small_requests_taught_does_not_hold_for_larger_ones() -> None:
    left = iter(range(1000))
    disks = Server(Link(1.5 * GB), 0.2 * MS, 4, 8 * MS)
    run = Simulation([disks], [Pace()], sizes=lambda _: 512 if next(left, None) is not None else READ).run(5)

    assert run.rate(3.5, 5) > 0.95 * 4 * READ / 8e-3
    assert "requests are larger: measures again" in [change.reason for change in changes(run)]


def test_whole_objects_are_paced_like_parts_of_them() -> None:
    run = Simulation([Server(Link(0.7 * GB), 20 * MS)], [Pace()], sizes=lambda _: 4 * MIB).run(3)

    assert run.rate(1, 3) > 0.97 * 0.7 * GB
    assert run.limit(1, 3) < 3 * 0.7 * GB * 26e-3 + 2 * 4 * MIB


def test_a_change_says_the_limit_before_and_after_and_why() -> None:
    run = Simulation([Server(Link(0.7 * GB), 20 * MS)], [Pace()]).run(0.5)

    first, *_, last = changes(run)

    assert first == Change(16 * READ, first.limit, "the rate still grows")
    assert first.limit > 24 * READ
    assert last.reason == "follows rate x latency"
    assert last.limit == pytest.approx(run.limits[-1][1], rel=0.01)


def test_few_changes_are_told() -> None:
    run = Simulation([Server(Link(1.5 * GB), 0.2 * MS)], [Pace()]).run(4)

    assert len(changes(run)) < 10


def test_a_request_of_any_size_is_sent_when_nothing_is_in_flight() -> None:
    pace = Pace(PaceOptions(start_bytes=READ, least_bytes=READ))

    assert pace.has_room(1 << 30)

    pace.note_sent(0, 1 << 30)

    assert not pace.has_room(512)


def test_a_small_request_is_charged_as_what_it_costs() -> None:
    pace = Pace()
    pace.note_sent(0, 0)
    pace.note_sent(0, READ)

    assert pace.in_flight == LEAST_CHARGE + READ


def test_what_is_given_up_makes_room_and_teaches_nothing() -> None:
    pace = Pace()
    limit = pace.limit
    for _ in range(100):
        pace.note_given_up(30.0, pace.note_sent(0.0, READ))

    assert (pace.in_flight, pace.limit, pace.rate) == (0, limit, 0.0)


def test_a_pause_is_not_taken_for_slowness() -> None:
    pace = Pace()
    for step in range(20):
        pace.note_answered(step + 1.0 * MS, pace.note_sent(step, READ))

    assert pace.rate == pytest.approx(READ / MS, rel=0.01)


def test_an_application_that_follows_the_limit_from_below_starts_up_too() -> None:
    def follow(simulation: Simulation) -> None:
        simulation.demand = simulation.limits[0].limit * 2 // (3 * READ)

    later = {step * 5 * MS: follow for step in range(200)}
    run = Simulation([Server(Link(0.7 * GB), 20 * MS)], [Pace()], later=later).run(1)

    assert run.rate(0.5, 1) > 0.9 * 0.7 * GB


def test_answers_in_no_time_by_a_coarse_clock_are_no_problem() -> None:
    pace = Pace()
    for step in range(1000):
        while pace.has_room(READ):
            pace.note_sent(step // 100 * MS, READ)
        pace.note_answered(step // 100 * MS, Sent(step // 100 * MS, READ, pace._round))

    assert pace.limit >= 2 * READ


def test_a_pinned_limit_stays() -> None:
    pinned = PaceOptions(start_bytes=8 * READ, least_bytes=8 * READ, most_bytes=8 * READ)
    run = Simulation([Server(Link(0.7 * GB), 20 * MS)], [Pace(pinned)]).run(1)

    assert {limit for _, limit in run.limits} == {8 * READ}
    assert changes(run) == []


def test_the_limit_never_rises_above_the_most() -> None:
    options = PaceOptions(most_bytes=20 * READ)
    run = Simulation([Server(Link(0.7 * GB), 100 * MS)], [Pace(options)]).run(2)

    assert max(limit for _, limit in run.limits) == 20 * READ


@pytest.mark.parametrize(
    "wrong", [{"least_bytes": 0}, {"most_bytes": 512 * KIB}, {"round_answers": 0}, {"fallen_rounds": 0}, {"round_s": 0}]
)
def test_options_that_cannot_be_meant_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        PaceOptions(**wrong)
