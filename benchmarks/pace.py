"""Compares ways to find out how much may be in flight, on clusters that are made up: ``python -m benchmarks.pace``.

Prints the tables of docs/performance.md, in Markdown. Nothing is measured: time is simulated, so it is always the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from asyncbackup.client.pace import Pace
from asyncbackup.client.total_pace import TotalPace
from benchmarks.limits import Fixed, Gradient, Vegas
from tests.simulated import (
    CLUSTERS,
    GB,
    MS,
    PATHS,
    READ,
    Cluster,
    Limit,
    Link,
    Path,
    Run,
    Server,
    Simulation,
    set_rate,
    set_round_trip,
)

Turn = Callable[[Simulation], None]

CONTESTANTS: Final[Mapping[str, Callable[[], Limit]]] = {
    "Pace": Pace,
    "Gradient": Gradient,
    "Vegas": Vegas,
    "16 requests": Fixed,
}
_AT_S: Final = 2.0
"""When a path changes."""
_END_S: Final = 8.0

_TURNS: Final = {
    "2 ms, from 1.5 to 0.15 GB/s": (PATHS["2 ms"], set_rate(0.15 * GB)),
    "2 ms, from 0.15 to 1.5 GB/s": (Path(lambda: Server(Link(0.15 * GB), 2 * MS)), set_rate(1.5 * GB)),
    "from 2 to 20 ms, 0.7 GB/s": (Path(lambda: Server(Link(0.7 * GB), 2 * MS)), set_round_trip(20 * MS)),
    "from 20 to 2 ms, 0.7 GB/s": (PATHS["20 ms, 0.7 GB/s"], set_round_trip(2 * MS)),
}
"""Paths, and what happens to each."""


def rows() -> Iterator[tuple[str, ...]]:
    """Give the rows of the table, that with the titles first."""
    yield ("path", "holds", *CONTESTANTS)
    for name, path in PATHS.items():
        yield _row(name, path, path, {}, 0)
    for name, (path, turn) in _TURNS.items():
        yield _row(name, path, _turned(path, turn), {_AT_S: turn}, _AT_S)


def _row(name: str, before: Path, path: Path, later: dict[float, Turn], start_s: float) -> tuple[str, ...]:
    runs = [Simulation([before.make()], [make()], later=later).run(_END_S) for make in CONTESTANTS.values()]
    return (name, f"{path.held / READ:.0f}", *(_describe(run, path, start_s) for run in runs))


def _turned(path: Path, turn: Turn) -> Path:
    """Give the path as it is after ``turn``."""

    def make() -> Server:
        server = path.make()
        turn(Simulation([server], []))
        return server

    return Path(make)


def _describe(run: Run, path: Path, start_s: float) -> str:
    """Write the share of the most that is reached in the first second, and later; and the limit later, in requests."""
    first, later = run.rate(start_s, start_s + 1), run.rate(start_s + 1, _END_S)
    limit = run.limit(start_s + 1, _END_S) / READ
    return f"{first / path.rate:.0%}, {later / path.rate:.0%}, {limit:.0f}"


def rows_of_many() -> Iterator[tuple[str, ...]]:
    """Give the rows of the table about clusters of several nodes, that with the titles first."""
    yield ("cluster", "no limit to the sum", "a Pace", "TotalPace")
    for name, cluster in CLUSTERS.items():
        yield (name, *(_describe_many(cluster, make) for make in (lambda: None, Pace, TotalPace)))


def _describe_many(cluster: Cluster, make: Callable[[], Limit | None]) -> str:
    """Write the share of the most that is reached in the first second, and later; and the latency later."""
    servers = cluster.make()
    run = Simulation(servers, [Pace() for _ in servers], make(), Link(cluster.our_rate)).run(_END_S)
    first, later = run.rate(0, 1) / cluster.rate, run.rate(1, _END_S) / cluster.rate
    return f"{first:.0%}, {later:.0%}, {run.latency_s(1, _END_S) / MS:.0f} ms"


def draw(lines: Iterator[tuple[str, ...]]) -> str:
    """Write a table in Markdown."""
    titles, *others = lines
    return "\n".join("| " + " | ".join(line) + " |" for line in (titles, ("---",) * len(titles), *others))


if __name__ == "__main__":
    print(draw(rows()))
    print()
    print(draw(rows_of_many()))
