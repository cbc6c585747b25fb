"""Fuzzes for a while: ``python -m tests.fuzz [SECONDS [SEED]]``. The same seed finds the same again."""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import count
from typing import Any, Final

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz import client, commands, reading

TARGETS: Final[
    dict[str, tuple[st.SearchStrategy[Any], Callable[[], AbstractContextManager[Callable[[Any], None]]]]]
] = {
    "reading": (reading.cases, lambda: nullcontext(reading.check)),
    "client": (client.cases, client.open_check),
    "commands": (commands.cases, commands.open_check),
}
_PHASES: Final = (Phase.generate, Phase.shrink)
_BATCH: Final = 50
"""Cases between two looks at the clock."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="./dev fuzz", description="Feeds the program hostile input, at random.")
    parser.add_argument("seconds", nargs="?", type=float, default=60, help="how long, in all; 60 if not given")
    parser.add_argument("seed", nargs="?", type=int, default=random.randrange(1 << 32), help="of an earlier run")
    parser.add_argument("--only", choices=TARGETS, help="one of the fuzzers")
    arguments = parser.parse_args()
    names = [arguments.only] if arguments.only else list(TARGETS)
    print(f"seed {arguments.seed}")
    for name in names:
        strategy, open_check = TARGETS[name]
        with open_check() as check:
            cases = fuzz(strategy, check, arguments.seconds / len(names), arguments.seed)
        print(f"{name}: {cases:,} cases, all as they should be")


def fuzz(strategy: st.SearchStrategy[Any], check: Callable[[Any], None], seconds: float, first_seed: int) -> int:
    """Check cases for so many seconds, and give how many; what fails is made small, and raised."""
    cases = 0
    until = time.monotonic() + seconds
    for batch in count():
        if time.monotonic() >= until:
            return cases

        @seed(first_seed + batch)
        @settings(
            max_examples=_BATCH, deadline=None, database=None, phases=_PHASES, suppress_health_check=list(HealthCheck)
        )
        @given(strategy)
        def run(case: Any) -> None:
            nonlocal cases
            cases += 1
            check(case)

        run()
    raise AssertionError("count() ends never")


if __name__ == "__main__":
    main()
