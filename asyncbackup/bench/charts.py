"""The charts of a report, as data: which points, and what they show. Pure; ``bench/plots`` draws them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import median
from typing import Final, NamedTuple

from asyncbackup.bench import figures, sweeps
from asyncbackup.bench.cases import Case, Results, Run
from asyncbackup.bench.statistics import spread

_MIB: Final = 1 << 20
_GIB: Final = 1 << 30


class Point(NamedTuple):
    """A value, and between which values all rounds are."""

    x: float
    y: float
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Series:
    """Points that belong together, by ascending x."""

    name: str
    points: Sequence[Point]
    is_marked: bool = False
    """Whether it is not a course, but something to point at."""


class Scale(Enum):
    """How the x axis runs."""

    LINEAR = "linear"
    LOG = "log"
    DOUBLING = "doubling"
    """Logarithmic, with marks at powers of two."""
    LOG_FROM_ZERO = "symlog"
    """Logarithmic, and with a zero."""
    STEPS = "steps"
    """A mark at each point."""


class Kind(Enum):
    """How a chart is drawn."""

    LINES = "lines"
    BARS = "bars"
    """Side by side, a group for each of ``groups``; x is the index of the group."""
    STACKED = "stacked"
    """One behind the other, a bar for each of ``groups``."""


@dataclass(frozen=True, slots=True)
class Chart:
    """What a chart shows. ``name`` is for machines, the other texts are for people."""

    name: str
    title: str
    explanation: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    kind: Kind = Kind.LINES
    groups: Sequence[str] = ()
    scale: Scale = Scale.LINEAR


def charts(results: Results) -> list[Chart]:
    """Give all charts for which there are points."""
    made = [make(results.cases) for make in _CHARTS]
    return [chart for chart in made if chart.series]


def _plain(cases: Iterable[Case]) -> list[Case]:
    return [case for case in cases if case.place is None]


def _on(cases: Iterable[Case], axis: str) -> list[Case]:
    return [case for case in cases if case.place is not None and case.place.axis == axis]


def label(case: Case) -> str:
    """Name a case in few words."""
    return f"{case.name}, {case.situation.delay_ms:g} ms" if case.situation.delay_ms else case.name


def _names(cases: Iterable[Case]) -> list[str]:
    return list(dict.fromkeys(name for case in cases for name in case.runs))


def _point(x: float, values: Sequence[float]) -> Point:
    return Point(x, *spread(values))


def _walls(runs: Sequence[Run]) -> list[float]:
    return [run.wall_s for run in runs]


def _speeds(case: Case, runs: Sequence[Run]) -> list[float]:
    return [case.bytes_needed / figures.GB / run.wall_s for run in runs]


def _speed(cases: Sequence[Case]) -> Chart:
    shown = _plain(cases)
    series = [
        Series(name, [_point(at, _speeds(case, case.runs[name])) for at, case in enumerate(shown) if name in case.runs])
        for name in _names(shown)
    ]
    return Chart(
        "speed",
        "How fast",
        "Each bar is the median of all rounds, and its line goes from the slowest round to the fastest. The drain is "
        "what the cluster gives at most to a reader that asks as asyncbackup does, and drops what comes. Where the "
        "lines of two bars overlap, the difference may be noise.",
        "GB/s of what can differ",
        "",
        series,
        Kind.BARS,
        [label(case) for case in shown],
    )


def _in_flight(cases: Sequence[Case]) -> Chart:
    shown = _on(cases, sweeps.IN_FLIGHT)
    series = []
    for delay_ms in sorted({case.situation.delay_ms for case in shown}):
        there = [case for case in shown if case.situation.delay_ms == delay_ms]
        for is_default in (False, True):
            points = [
                _point(_flown(case), _rates(case))
                for case in there
                if (case.place is not None and case.place.at == sweeps.DEFAULT) == is_default
            ]
            name = f"{delay_ms:g} ms away" if delay_ms else "near"
            series.append(Series(f"{name}{', own choice' if is_default else ''}", sorted(points), is_default))
    return Chart(
        "in-flight",
        "How much is in flight",
        "The lines show the speed when somebody says how much is under way at a time. The large marks show what "
        "asyncbackup chooses by itself from how the cluster answers: it should stand where a line stops rising, and "
        "not much further to the right.",
        "MiB under way at a time, at most",
        "GB/s while it reads",
        [each for each in series if each.points],
        scale=Scale.DOUBLING,
    )


def _rates(case: Case) -> list[float]:
    return [inside.bytes_read / figures.GB / inside.read_s for inside in figures.insides(case)]


def _flown(case: Case) -> float:
    return median(inside.most_in_flight for inside in figures.insides(case)) / _MIB


def _course(
    cases: Sequence[Case], axis: str, value: Callable[[Sequence[Run]], list[float]], unit: float = 1.0
) -> list[Series]:
    """Make a line for each contestant along an axis."""
    shown = sorted(_on(cases, axis), key=_at)
    return [
        Series(name, [_point(_at(case) / unit, value(case.runs[name])) for case in shown if name in case.runs])
        for name in _names(shown)
    ]


def _at(case: Case) -> float:
    assert case.place is not None
    return case.place.at


def _share(cases: Sequence[Case]) -> Chart:
    return Chart(
        "share",
        "How much changed",
        "A sector changed in so many of the objects. What snapshots share is not read, so time should follow what "
        "changed. What remains at zero is the start of the program.",
        "% of the objects changed",
        "seconds",
        _course(cases, sweeps.SHARE, _walls, 0.01),
    )


def _delay(cases: Sequence[Case]) -> Chart:
    return Chart(
        "delay",
        "How far away",
        "The cluster is behind a way on which a round trip takes so much longer. Who waits for one answer after the "
        "other becomes slower with it; who has enough under way does not.",
        "ms more for a round trip",
        "seconds",
        _course(cases, sweeps.DELAY, _walls),
        scale=Scale.LOG_FROM_ZERO,
    )


def _nodes(cases: Sequence[Case]) -> Chart:
    return Chart(
        "nodes",
        "How many nodes",
        "All nodes are on one machine here, and share its processors and its disks. So this shows what it costs to "
        "talk to more of them, and not what more machines would bring.",
        "nodes",
        "seconds",
        _course(cases, sweeps.NODES, _walls),
        scale=Scale.STEPS,
    )


def _memory(cases: Sequence[Case]) -> Chart:
    return Chart(
        "memory",
        "How much memory",
        "As many objects changed in VDIs that are larger and larger. The peak of memory should not follow the size.",
        "GiB of VDI",
        "MiB resident at most",
        _course(cases, sweeps.SIZE, lambda runs: [run.peak_bytes / _MIB for run in runs], _GIB),
        scale=Scale.DOUBLING,
    )


def _latency(cases: Sequence[Case]) -> Chart:
    series = []
    for case in _plain(cases):
        told = figures.latencies(case)
        points = [Point(latency_s * 1000, float(percent), *[float(percent)] * 2) for percent, latency_s in told.items()]
        series.append(Series(label(case), points))
    return Chart(
        "latency",
        "How long answers take",
        "So many per cent of the requests of asyncbackup were answered within so many milliseconds. Answers wait for "
        "one another: with more under way each takes longer, and all of them together do not.",
        "ms",
        "% of the requests",
        [each for each in series if each.points],
        scale=Scale.LOG,
    )


def _stages(cases: Sequence[Case]) -> Chart:
    shown = [case for case in _plain(cases) if figures.insides(case)]
    told = [figures.stages(case) for case in shown]
    series = [
        Series(name, [Point(at, seconds[name], seconds[name], seconds[name]) for at, seconds in enumerate(told)])
        for name in figures.STAGES
    ]
    return Chart(
        "stages",
        "Where the time goes",
        "start: the program begins, connects, and ends. plan: it finds out what can differ. read: it reads, and "
        "meanwhile compares, takes digests, and writes. sync: what was written reaches the disk, and gets its name.",
        "seconds",
        "",
        series if shown else [],
        Kind.STACKED,
        [label(case) for case in shown],
    )


_CHARTS: Final = (_speed, _stages, _in_flight, _share, _delay, _nodes, _memory, _latency)


def rows(chart: Chart) -> Iterator[tuple[str, str, str]]:
    """Give all points as text: the series, the place, the value."""
    for series in chart.series:
        for point in series.points:
            place = chart.groups[int(point.x)] if chart.groups else f"{point.x:.3g}"
            extent = "" if point.least == point.most else f" ({point.least:.3g}-{point.most:.3g})"
            yield series.name, place, f"{point.y:.3g}{extent}"
