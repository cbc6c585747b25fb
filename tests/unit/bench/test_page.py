from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from asyncbackup.bench.cases import Results
from asyncbackup.bench.charts import Chart, Kind, charts
from asyncbackup.bench.page import write
from asyncbackup.bench.plots import draw
from tests.unit.bench.made import case, other, ours
from tests.unit.bench.test_charts import every_case, results

RESULTS = results(every_case())
CHROMIUM = shutil.which("chromium")

MEASURE = """<script>
const box = ({x, y, width, height}) => ({x, y, width, height});
const drawn = [...document.querySelectorAll('[id*=".series."]')].map(each =>
  [each.id, {...box(each.getBoundingClientRect()), marks: each.querySelectorAll("use").length}]);
const told = {
  drawn: Object.fromEntries(drawn),
  charts: Object.fromEntries([...document.querySelectorAll("svg")].map(each =>
    [each.id, box(each.getBoundingClientRect())])),
  width: document.documentElement.scrollWidth,
  window: window.innerWidth,
};
document.body.dataset.told = btoa(JSON.stringify(told));
</script>"""
"""Says what a browser made of the page."""


def no_plot(_chart: Chart) -> str:
    return ""


def test_a_page_needs_nothing_from_elsewhere() -> None:
    page = write(RESULTS, [], draw)

    assert "<script" not in page
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert not re.search(r"url\((?!#)|@import", page)


def test_a_page_tells_what_was_measured_and_what_is_noise() -> None:
    page = write(RESULTS, ["sector: the target bounds it"], no_plot)

    for told in ("drain", "dog", "Which figures are noise?", "sector: the target bounds it", "asyncbackup bench"):
        assert told in page
    assert page.count("<figure>") == len(charts(RESULTS))


def test_a_ratio_that_may_be_noise_is_told_as_that() -> None:
    page = write(RESULTS, [], no_plot)

    assert "0.93 (0.91-0.95) of its speed<" in page
    assert "2.14 (2.00-2.27) times as fast<" in page
    unclear = case({"asyncbackup": [ours(2.0), ours(2.0)], "drain": [other(1.9), other(2.1)]})
    assert "1.00 (0.95-1.05) of its speed, perhaps noise<" in write(results([unclear]), [], no_plot)


def test_names_from_a_cluster_are_text_and_nothing_else() -> None:
    hostile = case(name="<script>alert(1)</script>")

    page = write(Results({"<b>": "<i>"}, ["<u>"], 1, [hostile]), ["<s>"], draw)

    assert not re.search("<(?:script|b|i|u|s)>", page)


def rendered(folder: Path, width: int) -> tuple[dict[str, Any], str]:
    """Let a browser lay the page out; give what it made of it, and what it complained about."""
    assert CHROMIUM is not None
    page = folder / "page.html"
    page.write_text(write(RESULTS, ["sector: the target bounds it"], draw).replace("</body>", f"{MEASURE}</body>"))
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        f"--user-data-dir={folder}/home",
    ]
    command = [CHROMIUM, *options, f"--window-size={width},900", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    (told,) = re.findall('data-told="([^"]+)"', done.stdout)
    return json.loads(base64.b64decode(told)), "\n".join(re.findall(".*CONSOLE.*", done.stderr))


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")
@pytest.mark.parametrize("width", [1200, 500])
def test_a_browser_shows_every_point_of_every_plot_and_complains_about_nothing(tmp_path: Path, width: int) -> None:
    told, complaints = rendered(tmp_path, width)

    assert complaints == ""
    assert told["width"] <= told["window"], "nothing is wider than the window"
    for chart in charts(RESULTS):
        frame = told["charts"][chart.name]
        assert frame["width"] > 300
        for number, series in enumerate(chart.series):
            name = f"{chart.name}.series.{number}"
            names = [name] if chart.kind is Kind.LINES else [f"{name}.{at}" for at in range(len(series.points))]
            drawn = [told["drawn"][each] for each in names]
            assert all(within(each, frame) for each in drawn)
            if chart.kind is Kind.LINES:
                assert drawn[0]["marks"] == len(series.points)


def within(box: dict[str, float], frame: dict[str, float]) -> bool:
    """Tell whether something can be seen, and lies in its frame."""
    return (
        box["width"] > 0
        and box["height"] > 0
        and frame["x"] <= box["x"]
        and box["x"] + box["width"] <= frame["x"] + frame["width"] + 1
        and frame["y"] <= box["y"]
        and box["y"] + box["height"] <= frame["y"] + frame["height"] + 1
    )
