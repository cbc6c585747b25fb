"""Runs a verb's coroutine: event loop, signals."""

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
"""What uvloop's event loop takes; it aborts the process where there are none for the first of them."""


class Interrupted(Exception):
    """A signal ended the work, in order: everything was taken back, unless ``left`` says otherwise."""

    def __init__(self, number: int, left: str = "nothing unfinished was left behind") -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; {left}")
        self.number = number
        self.exit_code = 128 + number


def run_async(function: Callable[[], Awaitable[_Result]], *, only_reads: bool = False) -> _Result:
    """Run ``function`` to its end in a new event loop, uvloop's where there is one; a signal cancels it.

    What ``only_reads`` and prints has nothing to take back: a signal ends the process at once, even while nobody reads
    what is printed. Raises what it raises, or Interrupted.
    """
    uvloop = importlib.util.find_spec("uvloop") is not None
    # What was imported stays: without this the garbage collector goes through all of it again and again.
    gc.freeze()
    _spare_descriptors()
    with single_error():
        return anyio.run(
            function if only_reads else partial(_until_signal, function), backend_options={"use_uvloop": uvloop}
        )


def _spare_descriptors() -> None:
    """Raise OSError if an event loop could not be made for lack of descriptors, which may abort the process."""
    with ExitStack() as stack:
        for _ in range(_LOOP_DESCRIPTORS):
            stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))


async def _until_signal(function: Callable[[], Awaitable[_Result]]) -> _Result:
    loop = asyncio.get_running_loop()
    received: list[int] = []
    notes: list[str] = []

    # Also while a first signal makes it take back what was begun: a second one must not interrupt that.
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
