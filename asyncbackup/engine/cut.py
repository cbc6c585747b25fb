"""Cuts a plan into shares of equal work. Every machine that has the same plan cuts it in the same places. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

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


def cut_plan(plan: Plan, count: int) -> NDArray[np.int64]:
    """Find where each of ``count`` shares of ``plan`` begins, and where the last one ends: places in the plan.

    The work is the objects to read, those of each side counted. A share begins with the first object before which its
    part of all work is done. So a share differs from an exact one by less than the work of one object.
    """
    done = np.cumsum(_count_reads(plan), dtype=np.int64)
    total = int(done[-1]) if len(done) else 0
    before = np.concatenate([np.zeros(min(1, len(done)), np.int64), done[:-1]])
    exact = -(-np.arange(count + 1, dtype=np.int64) * total // count)
    return np.searchsorted(before, exact)


def take_share(plan: Plan, shard: Shard, object_count: int) -> tuple[Plan, PieceRange]:
    """Cut out one share of ``plan``, and say which range of the ``object_count`` objects of the VDI it is.

    The ranges of all shares follow one another, and are all objects together.
    """
    starts = cut_plan(plan, shard.count)
    start, stop = int(starts[shard.number - 1]), int(starts[shard.number])

    def bound(number: int, place: int) -> int:
        if number == 0:
            return 0
        return int(plan.idx[place]) if place < len(plan) else object_count

    piece = PieceRange(
        number=shard.number,
        count=shard.count,
        first=bound(shard.number - 1, start),
        end=bound(shard.number, stop),
        planned=len(plan),
        plan=plan.encode()[-_DIGEST_SIZE:].hex(),
    )
    return plan[start:stop], piece


def _count_reads(plan: Plan) -> NDArray[np.uint8]:
    """Count the sides of each object that are read: those that somebody owns, each owner once."""
    sides = [plan.to_owners, *plan.base_owners]
    reads = np.zeros(len(plan), np.uint8)
    for place, owners in enumerate(sides):
        is_other = [owners != earlier for earlier in sides[:place]]
        reads += np.logical_and.reduce([owners != 0, *is_other])
    return reads
