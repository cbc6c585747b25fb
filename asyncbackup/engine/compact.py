"""Finds what differs between two contents: equal sectors are trimmed from both ends. Pure.

Uses libc's memcmp, through ctypes. Comparing few bytes takes less time than a thread does to wake up, so that is for
the caller's own thread; comparing more lets other threads run meanwhile.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import Final, NamedTuple

import numpy as np

from asyncbackup.wire.constants import SECTOR_SIZE

MAX_LENGTH: Final = 4 << 20
"""The longest content in bytes; larger objects are compared in pieces."""

ZEROS: Final = memoryview(mmap.mmap(-1, MAX_LENGTH, prot=mmap.PROT_READ))
"""The content of an object that nobody owns. Never written, so all of it is the kernel's one page of zeros."""

_BRIEF: Final = 1 << 20
"""Bytes up to which comparing takes less time than handing work over to a thread: at most 0.1 ms."""

_STEP: Final = 2 << 20
"""Bytes compared at a time after those: a difference near the end is found soon, one far from it with few calls."""

_memcmp: Final = ctypes.CDLL(None).memcmp
_brief_memcmp: Final = ctypes.PyDLL(None).memcmp
"""Keeps the interpreter's lock."""
for _function in (_memcmp, _brief_memcmp):
    _function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    _function.restype = ctypes.c_int


class Extent(NamedTuple):
    """``length`` bytes from ``offset`` differ; multiples of 512; 0, 0 if nothing does."""

    offset: int
    length: int


def trim(to: memoryview, base: memoryview) -> Extent:
    """Compare two contents of one length, a multiple of 512 and at most MAX_LENGTH bytes.

    Everything outside of the extent is equal; its first and its last sector differ.
    """
    size = len(to)
    assert size == len(base)
    to_address, base_address = _address(to), _address(base)
    start = _equal_head(to_address, base_address, size)
    if start == size:
        return Extent(0, 0)
    end = size - _equal_tail(to_address + start, base_address + start, size - start)
    return Extent(start, end - start)


def is_zeros(content: memoryview) -> bool:
    """Tell whether a content of at most MAX_LENGTH bytes is nothing but zeros."""
    return not _differ(_address(content), _address(ZEROS), len(content))


def _address(content: memoryview) -> int:
    if content.readonly:  # ctypes takes only what can be written; numpy takes all, six times as slowly.
        return int(np.frombuffer(content, dtype=np.uint8).ctypes.data)
    return ctypes.addressof(ctypes.c_char.from_buffer(content))


def _differ(a: int, b: int, size: int) -> bool:
    """Compare bytes at two addresses."""
    compare = _brief_memcmp if size <= _BRIEF else _memcmp
    difference: int = compare(a, b, size)
    return difference != 0


def _equal_head(a: int, b: int, size: int) -> int:
    """Count the bytes in whole sectors that are equal from the start."""
    position, step = 0, _BRIEF
    while position < size:
        length = min(step, size - position)
        if _differ(a + position, b + position, length):
            return position + _first_difference(a + position, b + position, length)
        position += length
        step = _STEP
    return size


def _first_difference(a: int, b: int, size: int) -> int:
    """Halve down to the first sector that differs; one does."""
    low, high = 0, size
    while high - low > SECTOR_SIZE:
        middle = low + (high - low) // SECTOR_SIZE // 2 * SECTOR_SIZE
        if _differ(a + low, b + low, middle - low):
            high = middle
        else:
            low = middle
    return low


def _equal_tail(a: int, b: int, size: int) -> int:
    """Count the bytes in whole sectors that are equal from the end; the first sector is known to differ."""
    end, step = size, _BRIEF
    while end > SECTOR_SIZE:
        length = min(step, end - SECTOR_SIZE)
        if _differ(a + end - length, b + end - length, length):
            return size - end + _last_equal(a + end - length, b + end - length, length)
        end -= length
        step = _STEP
    return size - SECTOR_SIZE


def _last_equal(a: int, b: int, size: int) -> int:
    """Halve down to the equal sectors behind the last one that differs; one does. Give their bytes."""
    low, high = 0, size
    while high - low > SECTOR_SIZE:
        middle = low + (high - low) // SECTOR_SIZE // 2 * SECTOR_SIZE
        if _differ(a + middle, b + middle, high - middle):
            low = middle
        else:
            high = middle
    return size - high
