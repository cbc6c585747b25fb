from __future__ import annotations

from collections.abc import Awaitable, Callable

from asyncbackup.bench.cases import Run
from asyncbackup.bench.rounds import run_rounds
from tests.unit.bench.made import other


async def test_each_runs_once_a_round_in_an_order_that_rotates() -> None:
    order: list[str] = []

    def contestant(name: str) -> Callable[[], Awaitable[Run]]:
        async def run() -> Run:
            order.append(name)
            return other(len(order))

        return run

    runs = await run_rounds({name: contestant(name) for name in "abc"}, 3)

    assert "".join(order) == "abcbcacab"
    assert [run.wall_s for run in runs["a"]] == [1, 6, 8]
