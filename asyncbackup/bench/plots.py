"""Draws charts as SVG, with matplotlib, which is there only with the extra ``report``."""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from asyncbackup.bench.charts import Chart, Kind, Scale, Series
from asyncbackup.bench.programs import DRAIN, OURS, REFERENCES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Rectangle

_WIDTH: Final = 4.7
_HEIGHT: Final = 3.1
"""Inches of 72 points: about as many pixels as a telephone has in a row, so that letters can be read there."""
_FRAME: Final = 1.0
_ROW: Final = 0.21
_GAP: Final = 0.12
"""Inches around all bars, for a bar, and between groups of bars."""
_COLOURS: Final = ("#1f6feb", "#8b949e", "#d9730d", "#2da44e", "#a371f7", "#bf3989", "#57606a")
"""Of the contestants, ours first. They differ in brightness as well, for who does not see all colours."""
_OF_CONTESTANTS: Final = dict(zip((OURS, DRAIN, *REFERENCES), _COLOURS, strict=False))
_LONG: Final = 12
"""Letters of a name of which no more than two fit into a row."""
_STYLE: Final = {
    "svg.fonttype": "none",  # Letters stay letters: they are found, read aloud, and small.
    "svg.hashsalt": "asyncbackup",
    "font.family": "sans-serif",
    "font.size": 10.5,
    "legend.fontsize": 9.5,
    "legend.columnspacing": 1.2,
    "legend.handlelength": 1.4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#d8dee4",
    "axes.axisbelow": True,
    "legend.frameon": False,
}
_COUNTED_ID: Final = re.compile(r' id="[A-Za-z0-9.]+_[0-9]+"')
"""Names that matplotlib gives to parts of each figure: the same in all of them, which a page must not have."""


def is_available() -> bool:
    """Tell whether charts can be drawn."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(chart: Chart) -> str:
    """Draw a chart. In it, the group of each series has the id ``NAME.series.NUMBER``."""
    import matplotlib as mpl  # noqa: PLC0415 - only reports need it, and not everybody has it
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415 - as above
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]
        figure = Figure((_WIDTH, _height(chart)), layout="constrained")
        axes = figure.add_subplot()
        _DRAWN[chart.kind](axes, chart)
        axes.set_xlabel(chart.x_label)
        axes.set_ylabel(chart.y_label)
        figure.legend(loc="outside upper left", ncols=_columns(chart))
        written = io.StringIO()
        FigureCanvasSVG(figure).print_svg(written, metadata={"Date": None})  # type: ignore[no-untyped-call]
    return _embed(written.getvalue(), chart)


def _height(chart: Chart) -> float:
    if chart.kind is Kind.LINES:
        return _HEIGHT
    bars = len(chart.series) if chart.kind is Kind.BARS else 1
    return _FRAME + len(chart.groups) * (bars * _ROW + _GAP)


def _columns(chart: Chart) -> int:
    """Say how many names stand in a row of the legend, so that they fit."""
    return 2 if max(len(series.name) for series in chart.series) > _LONG else 4


def _embed(svg: str, chart: Chart) -> str:
    """Make an SVG document a part of a page: as wide as its place, and named for who does not see it."""
    svg = _COUNTED_ID.sub("", svg[svg.index("<svg") :])
    size = re.compile(r'width="[0-9.]+pt" height="[0-9.]+pt"|height="[0-9.]+pt"|width="[0-9.]+pt"')
    head, body = svg.split(">", 1)
    head = size.sub("", head)
    return f'{head} id="{chart.name}" role="img" aria-label="{chart.title}">{body}'


def _draw_lines(axes: Axes, chart: Chart) -> None:
    for number, series in enumerate(chart.series):
        xs, ys = [point.x for point in series.points], [point.y for point in series.points]
        colour = _colour(chart, number)
        # Lines of error bars have no name: what has the name of the series are its points.
        axes.errorbar(xs, ys, _extents(series), fmt="none", ecolor=colour, alpha=0.45, elinewidth=1.2, capsize=2)
        style = {"linestyle": "none", "marker": "D", "markersize": 9} if series.is_marked else {"marker": "o"}
        (line,) = axes.plot(xs, ys, color=colour, label=series.name, markeredgecolor="white", **style)
        line.set_gid(f"{chart.name}.series.{number}")
    _scale(axes, chart)
    axes.set_ylim(bottom=0)


def _scale(axes: Axes, chart: Chart) -> None:
    places = sorted({point.x for series in chart.series for point in series.points})
    if chart.scale in {Scale.LOG, Scale.DOUBLING}:
        axes.set_xscale("log", base=2 if chart.scale is Scale.DOUBLING else 10)
    elif chart.scale is Scale.LOG_FROM_ZERO:
        axes.set_xscale("symlog", linthresh=min((place for place in places if place), default=1.0))
    if chart.scale in {Scale.LOG_FROM_ZERO, Scale.STEPS}:
        axes.set_xticks(places)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda _, __: "")


def _extents(series: Series) -> list[list[float]]:
    """Give how far each line of a point goes down and up."""
    return [
        [point.y - point.least for point in series.points],
        [point.most - point.y for point in series.points],
    ]


def _colour(chart: Chart, number: int) -> str:
    """Give a contestant its colour, and what is marked that of the course before it."""
    series = chart.series[number]
    if series.name in _OF_CONTESTANTS:
        return _OF_CONTESTANTS[series.name]
    courses = sum(not each.is_marked for each in chart.series[: number + 1])
    return _COLOURS[(courses - 1) % len(_COLOURS)]


def _draw_bars(axes: Axes, chart: Chart) -> None:
    width = 0.8 / len(chart.series)
    for number, series in enumerate(chart.series):
        places = [point.x + (number - (len(chart.series) - 1) / 2) * width for point in series.points]
        lengths = [point.y for point in series.points]
        bars = axes.barh(places, lengths, width * 0.9, color=_colour(chart, number), label=series.name)
        _name(list(bars), chart, number)
        axes.errorbar(lengths, places, xerr=_extents(series), fmt="none", ecolor="#24292f", elinewidth=1, capsize=1.5)
    _name_groups(axes, chart)


def _draw_stacked(axes: Axes, chart: Chart) -> None:
    begins = [0.0] * len(chart.groups)
    for number, series in enumerate(chart.series):
        lengths = [point.y for point in series.points]
        places = range(len(chart.groups))
        bars = axes.barh(places, lengths, 0.65, begins, color=_colour(chart, number), label=series.name)
        _name(list(bars), chart, number)
        begins = [begin + length for begin, length in zip(begins, lengths, strict=True)]
    _name_groups(axes, chart)


def _name(bars: Sequence[Rectangle], chart: Chart, number: int) -> None:
    for at, bar in enumerate(bars):
        bar.set_gid(f"{chart.name}.series.{number}.{at}")


def _name_groups(axes: Axes, chart: Chart) -> None:
    axes.set_yticks(range(len(chart.groups)), chart.groups)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")


_DRAWN: Final = {Kind.LINES: _draw_lines, Kind.BARS: _draw_bars, Kind.STACKED: _draw_stacked}
