"""Ranges of an object that are worked on at once. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Portion(NamedTuple):
    """``length`` bytes from ``offset`` of an object: no more than fit into a buffer of a slot."""

    offset: int
    length: int
    is_first: bool
    """Whether it is the first of what is worked on of the object."""
    is_last: bool

    @property
    def end(self) -> int:
        return self.offset + self.length


def cut(start: int, end: int, size: int) -> Iterator[Portion]:
    """Cut what lies between two offsets in an object into portions of at most ``size`` bytes, ascending."""
    for offset in range(start, end, size):
        length = min(size, end - offset)
        yield Portion(offset, length, offset == start, offset + length == end)
