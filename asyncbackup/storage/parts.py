"""Decides how an object is cut into parts, and how many of them are in memory. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from asyncbackup.errors import MemoryTooSmall

MOST_PARTS: Final = 10_000
"""Parts that an object can have in S3."""

_LEAST_PART: Final = 5 << 20
"""Bytes that a part, except the last one, must have in S3."""

_MOST_PART: Final = 64 << 20
"""Bytes of a part where memory is plenty. Larger ones bring nothing; they are only for larger objects."""

_STEP: Final = 1 << 20
"""Parts are of so many bytes, or of a multiple."""

_HELD: Final = 5
"""Parts that memory is for: three under way, one that waits for that, and one that is being filled."""

_LEAST_HELD: Final = 3
"""The same where they are so large that memory is short: one of each."""

_SHARE: Final = 16
"""A part gets one byte in so many of the memory, and all of them together get five."""


@dataclass(frozen=True, slots=True)
class Parts:
    """How an object is cut, and how much of it is in memory."""

    size: int
    held: int

    @property
    def under_way(self) -> int:
        """Count the parts that are sent at a time."""
        return self.held - 2

    @property
    def memory(self) -> int:
        """Give the bytes of all parts in memory."""
        return self.held * self.size

    @property
    def most(self) -> int:
        """Give the bytes that an object has at most."""
        return MOST_PARTS * self.size


def plan_parts(size: int | None, memory: int, *, may_be_less: bool = False) -> Parts:
    """Choose the parts for an object of ``size`` bytes; None: nobody knows. They take at most half of ``memory``.

    Raises MemoryTooSmall if that is too little, unless the object ``may_be_less``, so that it perhaps is not.
    """
    wanted = min(max(memory // _SHARE, _LEAST_PART), _MOST_PART)
    most = memory // (2 * _LEAST_HELD) // _STEP * _STEP
    part = max(wanted, -(-(size or 0) // MOST_PARTS))
    part = -(-part // _STEP) * _STEP
    if may_be_less:
        part = max(_LEAST_PART, min(part, most))
    if part > most and (size is None or 2 * size > memory):
        raise MemoryTooSmall(2 * _LEAST_HELD * part, memory)
    return Parts(part, min(_HELD, max(_LEAST_HELD, memory // 2 // part)))
