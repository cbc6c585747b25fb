"""Compares results with older ones. Pure.

The same machine is not as fast each day. So beside the seconds stand ratios to the drain, and to reference clients:
they were taken within rounds, and what is different about the day is in both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from asyncbackup.bench import figures
from asyncbackup.bench.cases import Case, Results, Run
from asyncbackup.bench.charts import label
from asyncbackup.bench.programs import OURS
from asyncbackup.bench.statistics import Spread, spread

_OF_MACHINE: Final = ("processor", "memory", "system", "Python", "cluster")
"""What must be the same, so that seconds can be compared."""


_FIGURES: Final[Mapping[str, Callable[[Run], float]]] = {
    "seconds": lambda run: run.wall_s,
    "CPU seconds": lambda run: run.cpu_s,
    "peak MiB": lambda run: run.peak_bytes / (1 << 20),
}


@dataclass(frozen=True, slots=True)
class Change:
    """A figure of a case, then and now."""

    case: str
    figure: str
    then: Spread
    now: Spread

    @property
    def is_clear(self) -> bool:
        """Whether no round of now is like a round of then: else the change may be noise."""
        return not self.then.overlaps(self.now)

    @property
    def factor(self) -> float:
        """Now, as a multiple of then."""
        return self.now.median / self.then.median


def compare(old: Results, new: Results) -> list[Change]:
    """Give the changes of all figures of ours that both results have, for cases that were the same."""
    before = {_key(case): case for case in old.cases}
    return [
        change
        for case in new.cases
        if case.place is None and _key(case) in before
        for change in _changes(before[_key(case)], case)
    ]


def _key(case: Case) -> tuple[object, ...]:
    return case.name, case.situation, case.bytes_needed, case.place


def _changes(old: Case, new: Case) -> Iterator[Change]:
    if OURS not in old.runs or OURS not in new.runs:
        return
    for figure, measure in _FIGURES.items():
        then, now = (spread([measure(run) for run in case.runs[OURS]]) for case in (old, new))
        yield Change(label(new), figure, then, now)
    for name in new.runs:
        if name != OURS and name in old.runs:
            ratios = (figures.times_faster(old, name), figures.times_faster(new, name))
            yield Change(label(new), f"times as fast as {name}", *ratios)


def differences(old: Results, new: Results) -> list[str]:
    """Say what is different about the machines: where anything is, only ratios can be compared."""
    return [
        f"{name}: {old.machine.get(name, 'unknown')} then, {new.machine.get(name, 'unknown')} now"
        for name in _OF_MACHINE
        if old.machine.get(name) != new.machine.get(name)
    ]
