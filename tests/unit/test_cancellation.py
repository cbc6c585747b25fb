"""What a cancellation waits for."""

from __future__ import annotations

import asyncio
import math

import anyio
import pytest

from asyncbackup.cancellation import finished_within, undisturbed


@pytest.mark.parametrize(("grace_s", "is_finished"), [(60, True), (0, False)])
async def test_a_cancellation_waits_for_a_block_only_for_a_while(grace_s: float, *, is_finished: bool) -> None:
    went_on, finished = anyio.Event(), False
    with anyio.CancelScope() as scope:
        async with finished_within(grace_s):
            scope.cancel()
            if not is_finished:
                await anyio.sleep_forever()
            await anyio.lowlevel.checkpoint()
            finished = True
        went_on.set()

    assert finished is is_finished
    assert scope.cancelled_caught
    assert not went_on.is_set(), "what follows the block is cancelled"


async def test_a_block_that_is_not_cancelled_may_take_any_time() -> None:
    async with finished_within(0):
        await anyio.lowlevel.checkpoint()


async def test_an_error_of_a_block_comes_alone() -> None:
    with pytest.raises(ValueError, match="it"):
        async with finished_within(60):
            raise ValueError("it")


async def test_a_function_goes_on_when_plain_asyncio_cancels() -> None:
    begun, released, finished = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        await released.wait()
        finished.set()

    task = asyncio.create_task(undisturbed(work))
    await begun.wait()
    task.cancel()
    released.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert finished.is_set()


@pytest.mark.parametrize(("timeout_s", "is_finished"), [(math.inf, True), (0, False)])
async def test_whether_a_function_ended_in_time_is_told(timeout_s: float, *, is_finished: bool) -> None:
    async def work() -> None:
        await (anyio.lowlevel.checkpoint() if is_finished else anyio.sleep_forever())

    assert await undisturbed(work, timeout_s) is is_finished
