"""Finds what differs between two sides of an object, and reads no more of them than it must.

An object is compared portion by portion, from both ends inwards, until something differs. A portion that is equal makes
room for the next one. So a comparison needs few bytes, and they stay in the processor's cache. The caller says how a
portion is read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from asyncbackup.client.objects import READ_SIZE
from asyncbackup.engine.compact import trim
from asyncbackup.engine.portion import cut

COMPARED_SIZE: Final = 2 * READ_SIZE
"""Bytes of an object to compare at a time, a fifth of 4 MiB.

A processor's cache holds this much of both sides of a few objects. With fewer bytes there is more work.
"""


def share_of(limit: int, sides: int) -> int:
    """Give how many bytes of an object to compare at a time, if ``sides`` sides of objects are read at a time.

    If the cluster is far away, more bytes are under way (``limit``). Then each side asks for more at a time, and an
    object takes fewer round trips. The result is a multiple of COMPARED_SIZE.
    """
    return max(1, limit // sides // COMPARED_SIZE) * COMPARED_SIZE


def is_always_compared(start: int, end: int) -> bool:
    """Tell whether all of an extent is compared, whatever multiple of COMPARED_SIZE is compared at a time.

    So what a manifest says of the base does not depend on how fast a cluster answers.
    """
    return (end - 1) // COMPARED_SIZE - start // COMPARED_SIZE <= 1


ReadBoth = Callable[[int, memoryview, memoryview], Awaitable[tuple[memoryview, memoryview]]]
"""Reads both sides from an offset in the object into two buffers of one length. Gives where their bytes are."""


class Both(NamedTuple):
    """Bytes of an object from ``offset``: what it has there, and what its base has there."""

    offset: int
    to: memoryview
    base: memoryview

    @property
    def end(self) -> int:
        return self.offset + len(self.to)

    def cut(self, start: int, end: int) -> Both:
        """Give what lies between two offsets in the object."""
        inside = slice(start - self.offset, end - self.offset)
        return Both(start, self.to[inside], self.base[inside])


class Ends(NamedTuple):
    """The first and the last portion of an object that differ; they may be one. The object's extent, in bytes."""

    first: Both
    last: Both
    start: int
    end: int


async def find_ends(object_size: int, size: int, to: memoryview, base: memoryview, read: ReadBoth) -> Ends | None:
    """Compare an object in portions of at most ``size`` bytes, from both ends inwards; None if nothing differs.

    The portions that are found lie at the two ends of the buffers ``to`` and ``base``, which have at least
    ``min(size, object_size)`` bytes. If they have less than the object, the last one may overlap the first.
    """
    portions = list(cut(0, object_size, size))
    for portion in portions:
        first = Both(portion.offset, *await read(portion.offset, to[: portion.length], base[: portion.length]))
        extent = trim(first.to, first.base)
        if extent.length:
            break
    else:
        return None
    start, end = first.offset + extent.offset, first.offset + extent.offset + extent.length
    for portion in reversed(portions):
        if portion.offset < first.end:
            break
        last = Both(portion.offset, *await read(portion.offset, to[-portion.length :], base[-portion.length :]))
        extent = trim(last.to, last.base)
        if extent.length:
            return Ends(first, last, start, last.offset + extent.offset + extent.length)
    return Ends(first, first, start, end)
