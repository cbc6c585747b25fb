"""How tests wait: for a state, never for a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

_BOUND_S: Final = 60
"""Seconds that a state may take on a machine that is busy."""


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop turn until ``condition`` holds."""
    async with asyncio.timeout(_BOUND_S):
        while not condition():  # noqa: ASYNC110 - what is waited for is a state of the code under test
            await asyncio.sleep(0)


async def turn(times: int = 20) -> None:
    """Let everything that is ready run, to see that a state stays as it is."""
    for _ in range(times):
        await asyncio.sleep(0)
