"""Results that were not measured, to judge what is told of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from asyncbackup.bench.cases import Case, Inside, Place, Run, Situation

NEEDED = 10**9


def inside(
    *,
    elapsed_s: float = 1.8,
    plan_s: float = 0.1,
    sync_s: float = 0.1,
    compare_s: float = 0.0,
    write_s: float = 0.0,
    bytes_read: int = NEEDED,
) -> Inside:
    """Give what a run tells of itself; it reads in the time that is left."""
    return Inside(
        bytes_read=bytes_read,
        bytes_written=1000,
        requests=100,
        retries=0,
        most_in_flight=1 << 20,
        elapsed_s=elapsed_s,
        plan_s=plan_s,
        read_s=elapsed_s - plan_s - sync_s,
        compare_s=compare_s,
        digest_s=0.0,
        write_s=write_s,
        sync_s=sync_s,
        latencies_s={"50": 0.001, "90": 0.002, "99": 0.003, "99.9": 0.004},
    )


def ours(wall_s: float = 2.0, cpu_s: float = 0.5, told: Inside | None = None) -> Run:
    return Run(wall_s, cpu_s, 80 << 20, told or inside(elapsed_s=wall_s - 0.2))


def other(wall_s: float, cpu_s: float = 0.5) -> Run:
    return Run(wall_s, cpu_s, 40 << 20)


def case(
    runs: Mapping[str, Sequence[Run]] | None = None,
    *,
    name: str = "sector",
    nodes: int = 1,
    delay_ms: float = 0.0,
    place: Place | None = None,
) -> Case:
    made = runs or {"asyncbackup": [ours(), ours(2.2)], "drain": [other(1.9), other(2.1)]}
    return Case(name, f"an increment: {name}", Situation(nodes, 1, delay_ms), NEEDED, made, place)
