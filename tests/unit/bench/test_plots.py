from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from asyncbackup.bench.charts import Chart, Kind, charts
from asyncbackup.bench.plots import draw
from tests.unit.bench.test_charts import every_case, results

CHARTS = {chart.name: chart for chart in charts(results(every_case()))}

each = pytest.mark.parametrize("name", CHARTS)


def ids(chart: Chart) -> list[str]:
    return [element.get("id", "") for element in ET.fromstring(draw(chart)).iter()]


@each
def test_each_series_of_a_chart_is_drawn_under_its_own_id(name: str) -> None:
    chart = CHARTS[name]
    found = ids(chart)

    for number, series in enumerate(chart.series):
        drawn = f"{name}.series.{number}"
        wanted = [drawn] if chart.kind is Kind.LINES else [f"{drawn}.{at}" for at in range(len(series.points))]
        assert all(found.count(each) == 1 for each in wanted)


def test_charts_on_one_page_share_no_ids_but_those_of_equal_marks() -> None:
    named = [
        each for chart in CHARTS.values() for each in ids(chart) if each and not re.fullmatch("[mp][0-9a-f]{10}", each)
    ]

    assert len(named) == len(set(named))


@each
def test_a_chart_has_a_name_for_who_does_not_see_it_and_letters_that_are_text(name: str) -> None:
    svg = draw(CHARTS[name])

    assert f'role="img" aria-label="{CHARTS[name].title}"' in svg
    assert all(series.name in svg for series in CHARTS[name].series)


@each
def test_a_chart_is_the_same_each_time(name: str) -> None:
    assert draw(CHARTS[name]) == draw(CHARTS[name])
