"""Runs a verb's coroutine: event loop, signals."""

from __future__ import annotations

import gc
import importlib.util
import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from asyncbackup.errors import single_error

_Result = TypeVar("_Result")


class Interrupted(Exception):
    """SIGINT or SIGTERM ended the work, in order: everything was taken back, unless ``left`` says otherwise."""

    def __init__(self, number: int, left: str = "nothing unfinished was left behind") -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; {left}")
        self.number = number
        self.exit_code = 128 + number


def run_async(function: Callable[[], Awaitable[_Result]]) -> _Result:
    """Run ``function`` to its end in a new event loop, uvloop's where there is one; a signal cancels it.

    Raises what it raises, or Interrupted.
    """
    uvloop = importlib.util.find_spec("uvloop") is not None
    # What was imported stays: without this the garbage collector goes through all of it again and again.
    gc.freeze()
    with single_error():
        return anyio.run(_until_signal, function, backend_options={"use_uvloop": uvloop})


async def _until_signal(function: Callable[[], Awaitable[_Result]]) -> _Result:
    received: list[int] = []

    async def watch(scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                received.append(number)
                scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(watch, group.cancel_scope)
        result = await function()
        group.cancel_scope.cancel()
        return result
    raise Interrupted(received[0])
