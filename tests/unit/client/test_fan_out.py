from __future__ import annotations

import asyncio

import pytest

from asyncbackup.client.fan_out import for_each
from tests.waiting import turn, until


async def test_each_item_is_worked_on_once() -> None:
    done: list[int] = []

    async def do(item: int) -> None:
        await asyncio.sleep(0)
        done.append(item)

    await for_each(range(100), do)

    assert sorted(done) == list(range(100))


async def test_nothing_to_do_is_done() -> None:
    async def do(item: int) -> None:
        pytest.fail("called")

    await for_each([], do)


async def test_only_a_few_are_worked_on_at_a_time() -> None:
    begun: list[int] = []
    go_on = asyncio.Event()

    async def do(item: int) -> None:
        begun.append(item)
        await go_on.wait()

    task = asyncio.create_task(for_each(range(100), do))
    await until(lambda: bool(begun))
    await turn()
    assert begun == list(range(16))
    go_on.set()
    await task

    assert begun == list(range(100))


async def test_the_first_error_ends_the_rest_and_comes_alone() -> None:
    begun: list[int] = []
    cancelled: list[int] = []

    async def do(item: int) -> None:
        begun.append(item)
        if item == 3:
            raise ValueError("third")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(item)
            raise

    with pytest.raises(ValueError, match="third"):
        await for_each(range(100), do)

    assert len(begun) <= 16
    assert sorted([*cancelled, 3]) == sorted(begun)
