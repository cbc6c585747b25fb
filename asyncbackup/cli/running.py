"""Runs the coroutine of a verb: event loop and signals."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from typing import Final, TypeVar

import anyio

from asyncbackup.cli.process import signals_handled
from asyncbackup.errors import single_error

_Result = TypeVar("_Result")

_LOOP_DESCRIPTORS: Final = 11
"""Descriptors that the event loop of uvloop uses. Without a free one it aborts the process."""


class Interrupted(Exception):
    """A signal ended the work in good order. Everything was undone, unless ``left`` says something else."""

    def __init__(self, number: int, left: str = "nothing unfinished was left behind") -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; {left}")
        self.number = number
        self.exit_code = 128 + number


def run_async(function: Callable[[], Awaitable[_Result]], *, only_reads: bool = False) -> _Result:
    """Run ``function`` to its end in a new event loop, that of uvloop if it is installed. A signal cancels it.

    With ``only_reads`` there is nothing to undo, so a signal ends the process at once, even while a printed line waits
    for its reader. Raises what ``function`` raises, or Interrupted.
    """
    uvloop = importlib.util.find_spec("uvloop") is not None
    # Imported modules stay. Without this the garbage collector would visit them again and again.
    gc.freeze()
    _spare_descriptors()
    with single_error():
        return anyio.run(
            function if only_reads else partial(_until_signal, function), backend_options={"use_uvloop": uvloop}
        )


def _spare_descriptors() -> None:
    """Raise OSError if too few descriptors are left for an event loop, which could abort the process."""
    with ExitStack() as stack:
        for _ in range(_LOOP_DESCRIPTORS):
            stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))


async def _until_signal(function: Callable[[], Awaitable[_Result]]) -> _Result:
    loop = asyncio.get_running_loop()
    received: list[int] = []
    notes: list[str] = []

    # The handler also stays while a first signal is being handled: a second one must not interrupt the undoing.
    def stop(number: int) -> None:
        received.append(number)
        loop.call_soon_threadsafe(scope.cancel)

    with anyio.CancelScope() as scope, signals_handled(stop):
        try:
            result = await function()
        except asyncio.CancelledError as cancelled:
            notes += getattr(cancelled, "__notes__", ())
            raise
    if received:
        raise Interrupted(received[0], *(["it was done already"] if not scope.cancelled_caught else notes[:1]))
    return result
