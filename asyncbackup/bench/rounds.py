"""Rounds: each contestant runs once in each of them, in an order that rotates. What disturbs one, disturbs all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from asyncbackup.bench.cases import Run


async def run_rounds(
    contestants: Mapping[str, Callable[[], Awaitable[Run]]],
    rounds: int,
    on_run: Callable[[int, str, Run], None] = lambda *_: None,
) -> dict[str, list[Run]]:
    """Run each of ``contestants`` in each of so many rounds; give what each took, round by round.

    ``on_run`` is told the round, from 0 on, and the contestant, after each run.
    """
    names = list(contestants)
    runs: dict[str, list[Run]] = {name: [] for name in names}
    for round_ in range(rounds):
        first = round_ % len(names)
        for name in names[first:] + names[:first]:
            run = await contestants[name]()
            runs[name].append(run)
            on_run(round_, name, run)
    return runs
