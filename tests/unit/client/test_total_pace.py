"""Many nodes, and what bounds the bytes in flight to all of them: their own paces, or the pace of all as well."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from asyncbackup.client import ClientOptions
from asyncbackup.client.pace import Pace
from asyncbackup.client.total_pace import TotalPace
from tests.simulated import CLUSTERS, GIGABIT, MS, READ, Cluster, Link, Run, Server, Simulation, set_our_rate


def simulate(cluster: Cluster, *, is_bounded: bool = True, until_s: float = 4.0) -> Run:
    servers = cluster.make()
    over_all = TotalPace() if is_bounded else None
    return Simulation(servers, [Pace() for _ in servers], over_all, Link(cluster.our_rate)).run(until_s)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLUSTERS)
def test_a_limit_to_the_sum_costs_no_throughput(name: str) -> None:
    run = simulate(CLUSTERS[name], until_s=6)

    assert run.rate(0, 1) > 0.9 * CLUSTERS[name].rate
    assert run.rate(1, 6) > 0.95 * CLUSTERS[name].rate


def test_thirty_nodes_behind_a_slow_link_make_no_queue_there() -> None:
    cluster = CLUSTERS["30 nodes, our link of 1 Gbit/s, 2 ms"]
    alone, bounded = simulate(cluster, is_bounded=False), simulate(cluster)

    assert alone.latency_s(2, 4) > 0.3
    assert bounded.latency_s(2, 4) < 10 * (2 * MS + READ / GIGABIT)


def test_behind_a_very_slow_link_no_request_takes_longer_than_it_may() -> None:
    cluster = Cluster(lambda: [Server(Link(GIGABIT), 2 * MS) for _ in range(30)], our_rate=2.5e6)
    alone, bounded = (simulate(cluster, is_bounded=is_bounded, until_s=60) for is_bounded in (False, True))

    assert max(answer[2] for answer in alone.answers) > ClientOptions().request_timeout_s
    assert max(answer[2] for answer in bounded.answers) < ClientOptions().request_timeout_s / 1.5


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_a_link_of_ours_that_changes_is_followed(factor: float) -> None:
    servers: Callable[[], list[Server]] = lambda: [Server(Link(10 * GIGABIT), 2 * MS) for _ in range(30)]  # noqa: E731
    made = servers()
    later = {3.0: set_our_rate(factor * GIGABIT)}
    run = Simulation(made, [Pace() for _ in made], TotalPace(), Link(GIGABIT), later=later).run(12)

    assert run.rate(5, 12) > 0.95 * factor * GIGABIT
    assert run.latency_s(10, 12) < 10 * (2 * MS + READ / (factor * GIGABIT))
