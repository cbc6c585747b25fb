"""Finds what differs between two contents: it trims equal sectors from both ends. Pure.

It uses libc's memcmp through ctypes. Few bytes are compared in less time than a thread takes to wake up, so the caller
compares them in its own thread. While more bytes are compared, other threads can run.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import Final, NamedTuple

import numpy as np

from asyncbackup.wire.constants import SECTOR_SIZE

MAX_LENGTH: Final = 4 << 20
"""The longest content in bytes. Larger objects are compared in portions."""

ZEROS: Final = memoryview(mmap.mmap(-1, MAX_LENGTH, prot=mmap.PROT_READ))
"""The content of an object that nobody owns. Nobody writes to it, so all of it is the kernel's one page of zeros."""

_BRIEF: Final = 1 << 20
"""Bytes that are compared in less time than it takes to hand work over to a thread: at most 0.1 ms."""

_STEP: Final = 2 << 20
"""Bytes to compare at a time after those. A near difference is found soon, and a far one with few calls."""

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
    """Compare two contents of one length, which is a multiple of 512 and at most MAX_LENGTH bytes.

    Everything outside of the extent is equal. The first and the last sector of the extent differ.
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
    """Halve the bytes until the first sector that differs is left. One does."""
    low, high = 0, size
    while high - low > SECTOR_SIZE:
        middle = low + (high - low) // SECTOR_SIZE // 2 * SECTOR_SIZE
        if _differ(a + low, b + low, middle - low):
            high = middle
        else:
            low = middle
    return low


def _equal_tail(a: int, b: int, size: int) -> int:
    """Count the bytes in whole sectors that are equal from the end. The first sector is known to differ."""
    end, step = size, _BRIEF
    while end > SECTOR_SIZE:
        length = min(step, end - SECTOR_SIZE)
        if _differ(a + end - length, b + end - length, length):
            return size - end + _last_equal(a + end - length, b + end - length, length)
        end -= length
        step = _STEP
    return size - SECTOR_SIZE


def _last_equal(a: int, b: int, size: int) -> int:
    """Halve the bytes until only equal sectors are left behind the last one that differs. Give their size in bytes."""
    low, high = 0, size
    while high - low > SECTOR_SIZE:
        middle = low + (high - low) // SECTOR_SIZE // 2 * SECTOR_SIZE
        if _differ(a + middle, b + middle, high - middle):
            low = middle
        else:
            high = middle
    return size - high
