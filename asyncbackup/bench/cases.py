"""What was measured, as it was measured, and its form in JSON. Pure.

Numbers that are told are made of it later: so results that were kept can be compared with new ones.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

from asyncbackup.errors import ResultsDamaged

FORMAT: Final = 1
"""Counts forms of these results that a reader of another one would misread."""

MOST_BYTES: Final = 64 << 20
"""Of results in JSON. Some hundred cases are less than one MB."""


@dataclass(frozen=True, slots=True)
class Inside:
    """What a backup of ours tells of itself; as in ``engine.progress.Summary``."""

    bytes_read: int
    bytes_written: int
    requests: int
    retries: int
    most_in_flight: int
    elapsed_s: float
    plan_s: float
    read_s: float
    compare_s: float
    digest_s: float
    write_s: float
    sync_s: float
    latencies_s: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of a program took, as a process, from its start to its end."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    inside: Inside | None = None


@dataclass(frozen=True, slots=True)
class Situation:
    """What kind of cluster, and how far away."""

    nodes: int = 1
    copies: int = 1
    delay_ms: float = 0.0
    """A round trip takes so much longer."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a case stands in a plot: ``axis`` names the plot, ``at`` is the place on its axis."""

    axis: str
    at: float


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to back up in one situation, and what each contestant took, round by round."""

    name: str
    """Of the workload; of a running cluster the VDI and its snapshots."""
    title: str
    situation: Situation
    bytes_needed: int
    """Of data objects that can differ, with both sides of each: a client that compares has to look at these."""
    runs: Mapping[str, Sequence[Run]]
    place: Place | None = None
    """None: it stands in the table, and in no plot."""


@dataclass(frozen=True, slots=True)
class Results:
    """All cases of a run of the benchmark, and where it ran."""

    machine: Mapping[str, str]
    """What it is, what runs on it, which versions; words for people."""
    commands: Sequence[str]
    """What each contestant is, as it would be typed."""
    rounds: int
    cases: Sequence[Case] = field(default_factory=list)

    def encode(self) -> str:
        """Write them as JSON."""
        return json.dumps({"format": FORMAT} | asdict(self), allow_nan=False) + "\n"


def decode(text: str, source: str) -> Results:
    """Read what ``Results.encode`` wrote. Raises ResultsDamaged, which names ``source``."""
    try:
        told = json.loads(text)
        if told["format"] != FORMAT:
            raise ResultsDamaged(source, f"expected format {FORMAT}, got {told['format']}")
        return Results(
            {str(key): str(value) for key, value in told["machine"].items()},
            [str(command) for command in told["commands"]],
            _number(told["rounds"]),
            [_case(case) for case in told["cases"]],
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ResultsDamaged(source, f"expected results of a benchmark, got something else: {error!r}") from error


def _case(told: Any) -> Case:
    situation = Situation(**{each.name: _number(told["situation"][each.name]) for each in fields(Situation)})
    place = told["place"]
    return Case(
        str(told["name"]),
        str(told["title"]),
        situation,
        _number(told["bytes_needed"]),
        {str(name): [_run(run) for run in runs] for name, runs in told["runs"].items() if runs},
        None if place is None else Place(str(place["axis"]), _number(place["at"])),
    )


def _run(told: Any) -> Run:
    inside = told["inside"]
    return Run(
        _number(told["wall_s"]),
        _number(told["cpu_s"]),
        _number(told["peak_bytes"]),
        None if inside is None else _inside(inside),
    )


def _inside(told: Any) -> Inside:
    numbers = {each.name: _number(told[each.name]) for each in fields(Inside) if each.name != "latencies_s"}
    return Inside(**numbers, latencies_s={str(key): _number(value) for key, value in told["latencies_s"].items()})


def _number(value: Any) -> Any:
    """Give a number that is one, and not below zero. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"expected a number, got {value!r:.40}")
    return value
