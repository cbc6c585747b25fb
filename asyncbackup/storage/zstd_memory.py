"""Decides how many threads compress, and which memory they are counted for. Pure."""

from __future__ import annotations

from typing import Final

from asyncbackup.storage.zstd import LEVELS

_THREAD: Final = ((4, 6 << 20), (6, 8 << 20), (12, 14 << 20), (LEVELS[-1], 20 << 20))
"""Up to a level, the bytes that a thread holds: what zstd works with, and the frames before and behind it. Measured."""

_FREE: Final = 8 << 20
"""Bytes that are not counted: a process that compresses has room for so many in what it may take besides the memory
that it is given."""


def plan_threads(level: int, threads: int, memory: int, *, may_be_fewer: bool) -> tuple[int, int]:
    """Give how many threads compress, ``threads`` at most, and the bytes of ``memory`` that they are counted for.

    If they ``may_be_fewer``, they are as many as half of the memory is enough for, but at least one.
    """
    each = next(size for last, size in _THREAD if level <= last)
    if may_be_fewer:
        threads = max(1, min(threads, (memory // 2 + _FREE) // each))
    return threads, max(0, threads * each - _FREE)
