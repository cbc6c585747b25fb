from __future__ import annotations

import pytest

from asyncbackup.bench import figures
from asyncbackup.bench.figures import Bound
from tests.unit.bench.made import NEEDED, case, inside, other, ours


def test_throughput_counts_what_is_needed_whoever_reads_more() -> None:
    told = {each.name: each for each in figures.figures(case({"asyncbackup": [ours(2.0)], "dog": [other(4.0)]}))}

    assert told["asyncbackup"].gb_per_s == pytest.approx(0.5)
    assert told["dog"].gb_per_s == pytest.approx(0.25)


def test_how_much_faster_is_told_of_all_but_ours() -> None:
    runs = {"asyncbackup": [ours(2.0), ours(4.0)], "dog": [other(4.0), other(12.0)]}

    ratios = {each.name: each.times_faster for each in figures.figures(case(runs))}

    assert ratios["asyncbackup"] is None
    assert ratios["dog"] is not None
    assert ratios["dog"].least == 2.0
    assert ratios["dog"].most == 3.0


def test_the_stages_are_all_of_the_time() -> None:
    assert sum(figures.stages(case({"asyncbackup": [ours(2.0)]})).values()) == pytest.approx(2.0)


BOUNDS = {
    "nothing slower than the drain, one node": ({}, 1, Bound.ONE_NODE),
    "nothing slower than the drain, more nodes": ({}, 3, Bound.NODES),
    "little to read": ({"wall_s": 2.0, "told": inside(elapsed_s=1.0)}, 1, Bound.START),
    "a slow target": ({"wall_s": 4.0, "told": inside(elapsed_s=3.8, write_s=2.0)}, 1, Bound.TARGET),
    "a long end": ({"wall_s": 4.0, "told": inside(elapsed_s=3.8, sync_s=2.0)}, 1, Bound.TARGET),
    "a busy processor": ({"wall_s": 4.0, "cpu_s": 3.9}, 1, Bound.PROCESSOR),
    "much to compare": ({"wall_s": 4.0, "told": inside(elapsed_s=3.8, compare_s=2.0)}, 1, Bound.PROCESSOR),
    "none of these": ({"wall_s": 4.0}, 1, Bound.NOTHING),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_what_bounds_a_backup_follows_from_what_takes_its_time(name: str) -> None:
    run, nodes, expected = BOUNDS[name]
    made = case({"asyncbackup": [ours(**run)], "drain": [other(1.9)]}, nodes=nodes)  # type: ignore[arg-type]

    assert figures.find_bound(made) is expected


def test_a_rate_that_is_reached_bounds_a_backup() -> None:
    per_s = NEEDED / inside().read_s

    assert figures.find_bound(case(), rate=int(per_s)) is Bound.RATE
    assert figures.find_bound(case(), rate=int(2 * per_s)) is Bound.ONE_NODE


def test_a_network_that_is_full_bounds_a_backup() -> None:
    assert figures.find_bound(case(), link=NEEDED / inside().read_s) is Bound.NETWORK


def test_latencies_are_medians_of_the_runs() -> None:
    assert figures.latencies(case())["99"] == pytest.approx(0.003)
