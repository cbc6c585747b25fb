"""Decides what has to be read: only objects that the two sides own differently can differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asyncbackup.wire.inode import Owners


class Pair(NamedTuple):
    """One data object to compare; an owner (vdi id) of 0 stands for zeros."""

    idx: int
    to_owner: int
    base_owner: int


@dataclass(frozen=True)
class Plan:
    """The pairs to compare, in ascending order of idx, and how many objects need no look."""

    idx: NDArray[np.uint32]
    to_owners: Owners
    base_owners: Owners
    shared: int
    """Objects that both sides own together, so that they are equal unread."""

    def __len__(self) -> int:
        return len(self.idx)

    def __iter__(self) -> Iterator[Pair]:
        # In slices: a million tuples at once would cost more memory than the tables themselves.
        for start in range(0, len(self), _SLICE):
            part = slice(start, start + _SLICE)
            rows = zip(
                self.idx[part].tolist(), self.to_owners[part].tolist(), self.base_owners[part].tolist(), strict=True
            )
            yield from map(Pair._make, rows)


_SLICE = 4096


def plan_difference(to_owners: Owners, base_owners: Owners) -> Plan:
    """Plan the difference of two owner tables of one length, u32 a data object."""
    idx = np.flatnonzero(to_owners != base_owners)
    owned = int(np.count_nonzero(to_owners | base_owners))
    return Plan(idx.astype(np.uint32), to_owners[idx], base_owners[idx], owned - len(idx))


def plan_full(idx: NDArray[np.uint32], owners: Owners) -> Plan:
    """Plan a full backup of the objects ``idx`` (ascending) that have one of ``owners``."""
    wanted = owners != 0
    return Plan(idx[wanted], owners[wanted], np.zeros(int(np.count_nonzero(wanted)), dtype=np.uint32), 0)
