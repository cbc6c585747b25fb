"""Decides what has to be read: only objects that two sides own differently can differ. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from asyncbackup.format.plan import PlanTable, decode_plan, encode_plan
from asyncbackup.wire.inode import Owners

_SLICE: Final = 4096
"""Pairs to make at a time: a million of them at once would cost more memory than the tables that they come from."""


class Pair(NamedTuple):
    """One data object to compare with each base; an owner (vdi id) of 0 stands for zeros."""

    idx: int
    to_owner: int
    base_owners: tuple[int, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Plan:
    """The pairs to compare, in ascending order of idx: of one VDI or snapshot, and of each of its bases."""

    idx: NDArray[np.uint32]
    to_owners: Owners
    base_owners: tuple[Owners, ...]
    """A table for each base. One that has the same owner as the object shares it: nothing differs from this base."""

    def __len__(self) -> int:
        return len(self.idx)

    def __iter__(self) -> Iterator[Pair]:
        for start in range(0, len(self), _SLICE):
            part = slice(start, start + _SLICE)
            bases = zip(*(owners[part].tolist() for owners in self.base_owners), strict=True)
            rows = zip(self.idx[part].tolist(), self.to_owners[part].tolist(), bases, strict=True)
            yield from map(Pair._make, rows)

    def __getitem__(self, pairs: slice) -> Plan:
        """Cut out a range of pairs, without a copy. Raises ValueError for a step."""
        if pairs.step not in (None, 1):
            raise ValueError(f"expected a range without a step, got a step of {pairs.step}")
        return Plan(self.idx[pairs], self.to_owners[pairs], tuple(owners[pairs] for owners in self.base_owners))

    @classmethod
    def join(cls, plans: Sequence[Plan]) -> Self:
        """Put ``plans``, at least one, one behind the other.

        Raises ValueError unless they have as many bases each, and their indices ascend.
        """
        bases = {len(plan.base_owners) for plan in plans}
        if len(bases) != 1:
            raise ValueError(f"expected plans with one number of bases, got {sorted(bases)}")
        idx = np.concatenate([plan.idx for plan in plans])
        if np.any(idx[1:] <= idx[:-1]):
            raise ValueError("expected plans whose indices ascend from one to the next")
        return cls(
            idx,
            np.concatenate([plan.to_owners for plan in plans]),
            tuple(np.concatenate([plan.base_owners[base] for plan in plans]) for base in range(bases.pop())),
        )

    def differing_from(self, base: int) -> NDArray[np.uint32]:
        """Give the indices of objects that differ from one of the bases."""
        differs = np.flatnonzero(self.base_owners[base] != self.to_owners)
        return self.idx[differs]

    def behind(self, done: Sequence[int]) -> Plan:
        """Leave out what is done: for each base the objects up to an index, -1 for none."""
        bases = []
        for owners, last in zip(self.base_owners, done, strict=True):
            count = int(np.searchsorted(self.idx, last, side="right")) if last >= 0 else 0
            bases.append(np.concatenate([self.to_owners[:count], owners[count:]]))
        wanted = np.any([owners != self.to_owners for owners in bases], axis=0)
        return Plan(self.idx[wanted], self.to_owners[wanted], tuple(owners[wanted] for owners in bases))

    def encode(self) -> bytes:
        """Write it down, as ``docs/formats.md`` says."""
        return encode_plan(PlanTable(self.idx, self.to_owners, self.base_owners))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read what ``encode`` wrote, without a copy. Raises Damage."""
        return cls(*decode_plan(data))


def plan_difference(to_owners: Owners, *base_owners: Owners) -> Plan:
    """Plan the difference of owner tables of one length, u32 a data object, to one base or several."""
    differs = to_owners != base_owners[0]
    for owners in base_owners[1:]:
        differs |= to_owners != owners
    idx = np.flatnonzero(differs)
    return Plan(idx.astype(np.uint32), to_owners[idx], tuple(owners[idx] for owners in base_owners))


def plan_full(idx: NDArray[np.uint32], owners: Owners) -> Plan:
    """Plan a full backup of the objects ``idx`` (ascending) that have one of ``owners``: their base is zeros."""
    wanted = owners != 0
    zeros = np.zeros(int(np.count_nonzero(wanted)), dtype=np.uint32)
    return Plan(idx[wanted], owners[wanted], (zeros,))


def count_owned(*tables: Owners) -> int:
    """Count the objects that one of the owner tables, of one length, has. What no plan has of them needs no look."""
    owned = tables[0]
    for owners in tables[1:]:
        owned = owned | owners
    return int(np.count_nonzero(owned))
