"""Cuts a plan into shares of equal work. Every machine that has the same plan cuts it in the same places. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asyncbackup.engine.plan import Plan
from asyncbackup.format.piece import PieceRange

_DIGEST_SIZE: Final = 16
"""Bytes at the end of a plan that is written down."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One of ``count`` equal shares of some work: ``number`` is from 1 on."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


class Share(NamedTuple):
    """A share of a sequence of objects: its places there, and the range of idx from ``first`` on, before ``end``."""

    places: slice
    first: int
    end: int


def cut_work(work: NDArray[np.integer], count: int) -> NDArray[np.int64]:
    """Find where each of ``count`` shares of a sequence begins, and where the last one ends. Each has some work to do.

    A share begins with the first item before which its part of all work is done. So the work of a share differs from
    an exact share by less than that of one item.
    """
    done = np.cumsum(work, dtype=np.int64)
    total = int(done[-1]) if len(done) else 0
    before = np.concatenate([np.zeros(min(1, len(done)), np.int64), done[:-1]])
    exact = [-(-number * total // count) for number in range(count + 1)]
    return np.searchsorted(before, np.array(exact, np.int64))


def find_share(idx: NDArray[np.uint32], work: NDArray[np.integer], shard: Shard, object_count: int) -> Share:
    """Find one share of the objects ``idx``, ascending, of the ``object_count`` that a VDI has.

    The ranges of all shares follow one another, and are all objects of the VDI together.
    """
    starts = cut_work(work, shard.count)
    start, stop = int(starts[shard.number - 1]), int(starts[shard.number])

    def bound(place: int) -> int:
        return int(idx[place]) if place < len(idx) else object_count

    return Share(slice(start, stop), 0 if shard.number == 1 else bound(start), bound(stop))


def take_share(plan: Plan, shard: Shard, object_count: int) -> tuple[Plan, PieceRange]:
    """Cut out one share of ``plan``, and say which range of the ``object_count`` objects of the VDI it is.

    The work is the objects to read, those of each side counted.
    """
    share = find_share(plan.idx, _count_reads(plan), shard, object_count)
    piece = PieceRange(
        number=shard.number,
        count=shard.count,
        first=share.first,
        end=share.end,
        planned=len(plan),
        plan=plan.encode()[-_DIGEST_SIZE:].hex(),
    )
    return plan[share.places], piece


def _count_reads(plan: Plan) -> NDArray[np.uint8]:
    """Count the sides of each object that are read: those that somebody owns, each owner once."""
    sides = [plan.to_owners, *plan.base_owners]
    reads = np.zeros(len(plan), np.uint8)
    for place, owners in enumerate(sides):
        is_other = [owners != earlier for earlier in sides[:place]]
        reads += np.logical_and.reduce([owners != 0, *is_other])
    return reads
