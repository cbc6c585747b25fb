"""What there is to back up: VDI ``bench`` with snapshots ``old`` and ``new``, as ``benchmarks.fill`` writes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

VDI: Final = "bench"
OLD: Final = "old"
NEW: Final = "new"
OBJECT_SIZE: Final = 4 << 20
SECTOR: Final = 512


@dataclass(frozen=True)
class Workload:
    """Which objects differ between the snapshots, and in how many bytes each."""

    title: str
    every: int
    """One object in so many is changed."""
    changed_bytes: int

    def objects(self, count: int) -> int:
        """Count those that differ among ``count``."""
        return -(-count // self.every)


WORKLOADS: Final = {
    "sector": Workload("one sector changed in every object", 1, SECTOR),
    "rewrite": Workload("every object rewritten", 1, OBJECT_SIZE),
    "hundredth": Workload("one object in a hundred rewritten", 100, OBJECT_SIZE),
}
