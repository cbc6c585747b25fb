"""What there is to back up on a cluster for the occasion: which objects exist, and which of them differ. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

OBJECT_SIZE: Final = 4 << 20
"""Bytes. Amounts of data are counted in objects of this size, whatever size those of a workload have."""
SECTOR: Final = 512


@dataclass(frozen=True, slots=True)
class Workload:
    """A VDI with snapshots ``empty``, ``old`` and ``new``, or without ``old``. Sizes are in bytes."""

    name: str
    title: str
    changed_bytes: int = 0
    """How many bytes of an object differ between the snapshots. 0: there is no old one, and the backup is full."""
    changed_every: int = 1
    """One existing object in so many is changed."""
    exists_every: int = 1
    """One object in so many exists."""
    object_shift: int = 22
    """The size of an object is so many times 2 multiplied."""

    @property
    def object_size(self) -> int:
        return 1 << self.object_shift

    @property
    def is_increment(self) -> bool:
        return self.changed_bytes > 0

    def existing(self, amount: int) -> range:
        """Give the objects that exist, of as much data as ``amount`` objects of 4 MiB: at least one."""
        count = max(1, amount * OBJECT_SIZE // self.object_size)
        return range(0, count * self.exists_every, self.exists_every)

    def changed(self, amount: int) -> range:
        """Give those that differ."""
        existing = self.existing(amount)
        return existing[:: self.changed_every] if self.is_increment else existing[:0]

    def vdi_size(self, amount: int) -> int:
        """Give the size of the VDI."""
        return len(self.existing(amount)) * self.exists_every * self.object_size

    def stored(self, amount: int) -> int:
        """Give how many bytes a cluster keeps of it, once."""
        return (len(self.existing(amount)) + len(self.changed(amount))) * self.object_size


WORKLOADS: Final = {
    workload.name: workload
    for workload in (
        Workload("sector", "an increment: one sector changed in every object", SECTOR),
        Workload("rewritten", "an increment: every object rewritten", OBJECT_SIZE),
        Workload("hundredth", "an increment: one object in a hundred rewritten", OBJECT_SIZE, changed_every=100),
        Workload(
            "sparse", "an increment: one object in 64 exists, each with a sector changed", SECTOR, exists_every=64
        ),
        Workload("full", "a full backup: every object exists"),
        Workload("large-objects", "an increment: 1 MiB changed in every object of 64 MiB", 1 << 20, object_shift=26),
        Workload("short-records", "an increment: one sector changed in every object of 1 MiB", SECTOR, object_shift=20),
    )
}
