from __future__ import annotations

import pytest

from asyncbackup.bench import sweeps
from asyncbackup.bench.cases import Case, Place, Results
from asyncbackup.bench.charts import Chart, charts, rows
from tests.unit.bench.made import case, other, ours

DOG = {"asyncbackup": [ours(2.0), ours(2.2)], "drain": [other(1.9), other(2.0)], "dog": [other(4.0), other(5.0)]}
OURS = {"asyncbackup": [ours(2.0), ours(2.2)]}


def every_case() -> list[Case]:
    """One case at least for each chart."""
    return [
        case(DOG),
        case(DOG, delay_ms=2.0),
        *(case(OURS, place=Place(sweeps.IN_FLIGHT, at)) for at in (sweeps.DEFAULT, 4)),
        *(case(DOG, place=Place(sweeps.SHARE, at)) for at in (0.0, 1.0)),
        *(case(DOG, delay_ms=at, place=Place(sweeps.DELAY, at)) for at in (20.0, 0.0)),
        *(case(DOG, nodes=at, place=Place(sweeps.NODES, at)) for at in (1, 3)),
        *(case(DOG, place=Place(sweeps.SIZE, at)) for at in (1 << 30, 1 << 40)),
    ]


def results(cases: list[Case]) -> Results:
    return Results({"time": "now"}, ["asyncbackup bench"], 2, cases)


def charted(cases: list[Case]) -> dict[str, Chart]:
    return {chart.name: chart for chart in charts(results(cases))}


def test_each_chart_has_its_cases_and_no_others() -> None:
    made = charted(every_case())

    points = {name: sum(len(series.points) for series in chart.series) for name, chart in made.items()}
    assert points == {
        "speed": 6,
        "stages": 8,
        "in-flight": 2,
        "share": 6,
        "delay": 6,
        "nodes": 6,
        "memory": 6,
        "latency": 8,
    }


def test_a_chart_without_points_is_left_out() -> None:
    assert list(charted([case(DOG)])) == ["speed", "stages", "latency"]


def test_a_course_goes_from_left_to_right() -> None:
    for series in charted(every_case())["delay"].series:
        assert [point.x for point in series.points] == [0.0, 20.0]


def test_the_own_choice_is_marked_and_no_part_of_the_course() -> None:
    course, choice = charted(every_case())["in-flight"].series

    assert (course.is_marked, choice.is_marked) == (False, True)
    assert len(choice.points) == 1


def test_a_point_lies_between_its_slowest_and_its_fastest_round() -> None:
    (point, _), *_ = (series.points for series in charted(every_case())["share"].series)

    assert (point.least, point.y, point.most) == pytest.approx((2.0, 2.1, 2.2))


def test_all_points_are_told_as_text_as_well() -> None:
    told = list(rows(charted(every_case())["speed"]))

    assert ("dog", "sector, 2 ms", "0.225 (0.2-0.25)") in told
    assert len(told) == 6
