"""Lets a cancellation wait for what must not end in the middle."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio

from asyncbackup.errors import single_error


async def undisturbed(function: Callable[[], Awaitable[None]], timeout_s: float = math.inf) -> bool:
    """Run ``function`` even if this task is cancelled meanwhile. Give False if it did not end within ``timeout_s``."""
    scope = anyio.CancelScope(shield=True, deadline=anyio.current_time() + timeout_s)

    async def run() -> None:
        with scope:
            await function()

    # It needs a task of its own: a shield does not stop a cancellation by plain asyncio.
    async with anyio.create_task_group() as group:
        group.start_soon(run)
    return not scope.cancelled_caught


@asynccontextmanager
async def finished_within(grace_s: float) -> AsyncIterator[None]:
    """Let a cancellation wait for the block, for ``grace_s`` seconds. After that it ends the block."""
    block = anyio.CancelScope(shield=True)

    async def limit() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            block.deadline = anyio.current_time() + grace_s

    with single_error():
        async with anyio.create_task_group() as group:
            with block:
                group.start_soon(limit)
                yield
            if block.cancelled_caught:
                await anyio.sleep_forever()  # What follows must not take the block for finished.
            group.cancel_scope.cancel()
