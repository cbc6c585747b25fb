"""Stops a program at its n-th step, whichever of its tasks takes it, and cancels work there."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Self

import anyio

from tests.waiting import until


@types.coroutine
def _stepping(coroutine: Coroutine[Any, Any, Any], on_step: Callable[[], None]) -> Generator[Any, Any, Any]:
    value: Any = None
    error: BaseException | None = None
    while True:
        on_step()
        try:
            awaited = coroutine.send(value) if error is None else coroutine.throw(error)
        except StopIteration as stop:
            return stop.value
        try:
            value, error = (yield awaited), None
        except BaseException as thrown:  # noqa: BLE001 - whatever it is, it is the coroutine's
            value, error = None, thrown


class Steps:
    """Counts the steps of all tasks made while it is entered, and calls ``action`` before the one numbered ``at``."""

    def __init__(self, at: int, action: Callable[[], object]) -> None:
        self.count = 0
        self._at = at
        self.action = action

    def __enter__(self) -> Self:
        asyncio.get_running_loop().set_task_factory(self._make_task)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().set_task_factory(None)

    def _make_task(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        async def run() -> Any:
            return await _stepping(coroutine, self._step)

        return asyncio.Task(run(), loop=loop, **options)

    def _step(self) -> None:
        if self.count == self._at:
            self.action()
        self.count += 1


def cancel_natively(work: Callable[[], Awaitable[object]], at: int) -> tuple[asyncio.Task[bool], Steps]:
    """Run ``work`` as a task that is cancelled at step ``at``; its result: whether it was."""

    async def run() -> bool:
        try:
            await work()
        except asyncio.CancelledError:
            return True
        return False

    steps = Steps(at, lambda: task.cancel())  # noqa: PLW0108 - there is no task yet
    with steps:
        task = asyncio.create_task(run())
    return task, steps


def cancel_by_scope(work: Callable[[], Awaitable[object]], at: int) -> tuple[asyncio.Task[bool], Steps]:
    """Run ``work`` in a cancel scope that is cancelled at step ``at``; result: whether that ended it."""
    scope = anyio.CancelScope()

    async def run() -> bool:
        with scope:
            await work()
        return scope.cancelled_caught

    steps = Steps(at, scope.cancel)
    with steps:
        task = asyncio.create_task(run())
    return task, steps


Cancel = Callable[[Callable[[], Awaitable[object]], int], tuple[asyncio.Task[bool], Steps]]
WAYS: list[Cancel] = [cancel_natively, cancel_by_scope]


async def run_cancelled(cancel: Cancel, work: Callable[[], Awaitable[object]], at: int) -> bool:
    """Give whether ``work`` was cut short at step ``at``; False: it was complete before."""
    tasks_before = asyncio.all_tasks()
    task, steps = cancel(work, at)
    with steps:
        async with asyncio.timeout(10):
            await asyncio.wait([task])
    await until(lambda: asyncio.all_tasks() <= tasks_before)
    # A task that is cancelled in its very last step ends as cancelled, with its work done.
    return steps.count > at or task.cancelled() or task.result()
