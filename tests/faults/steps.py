"""Stops a program at its n-th step, whichever of its tasks takes it."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Self


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
