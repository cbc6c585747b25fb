"""Handles what the process got from its parent: standard descriptors and signals.

This module is imported before all others, so it imports little.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final, NoReturn

STOPPING: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
"""The signals that ask the process to end."""

_M_ARENA_MAX: Final = -8
"""What glibc's mallopt calls the most arenas."""


def fill_closed_descriptors() -> None:
    """Open /dev/null where a standard descriptor is closed, so that no later file gets its number.

    Each is opened in the wrong direction, so that reading from closed standard input, or writing to closed standard
    output, is still an error.
    """
    for descriptor, mode in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_RDONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            # The kernel gives the lowest number that is free.
            os.open(os.devnull, mode)


def import_nothing_from_folder() -> None:
    """Let new Python processes import nothing from the current folder, where others may have put something."""
    os.environ["PYTHONSAFEPATH"] = "1"


def use_one_arena() -> None:
    """Let all threads of the process allocate from one arena, where the C library is glibc.

    Each thread keeps what it freed in an arena of its own otherwise: 16 MiB more in a restore of what zstd compressed.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def exit_at_signals() -> None:
    """End the process at once when one of ``STOPPING`` arrives, unless it is ignored, as with ``nohup``.

    That is right before anything is begun, and after everything is done. In between, use ``signals_handled``.
    """
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _exit)
    # It asks for progress. Where there is none, it must not end the process, as it does by default.
    signal.signal(signal.SIGUSR1, lambda _number, _frame: None)


def _exit(number: int, _frame: FrameType | None) -> NoReturn:
    # An exception could be raised where it is printed and forgotten, such as in a destructor.
    with suppress(OSError):
        name = signal.Signals(number).name
        os.write(2, f"asyncbackup: stopped by {name}; nothing unfinished was left behind\n".encode())
    os._exit(128 + number)


def end(code: int) -> NoReturn:
    """End the process with ``code``.

    Threads of obstore hand the result of what was cancelled over to Python. If Python is at its end, they write a
    traceback of their own, so the process ends before that: what others registered for the end is
    done here. What was printed is written already.
    """
    if "obstore" not in sys.modules:
        sys.exit(code)
    atexit._run_exitfuncs()  # noqa: SLF001 - there is no other way to it
    os._exit(code)


@contextmanager
def signals_handled(handle: Callable[[int], object]) -> Iterator[None]:
    """Call ``handle`` with the number of each of ``STOPPING`` that arrives and is not ignored."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    caught = [number for number in STOPPING if before[number] is not signal.SIG_IGN]
    try:
        for number in caught:
            signal.signal(number, lambda number, _frame: handle(number))
        yield
    finally:
        for number in caught:
            signal.signal(number, before[number])
