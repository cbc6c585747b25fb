"""VDI ids: how servers choose them, and the bitmap that tells which are in use.

The id of a new VDI is the hash of its name or, if that is in use, the next id that is free. So a higher id is not a
later one; but a VDI and its snapshots fill a run of ids that begins at the hash of their name, older ones first and the
working VDI last. Runs of other names may touch it, and a cluster formatted to use ids again (1.0, ``-R``) has gaps.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Final

import numpy as np
from numpy.typing import NDArray

from asyncbackup.wire.constants import VDI_BITMAP_SIZE
from asyncbackup.wire.messages import Bytes

ID_COUNT: Final = VDI_BITMAP_SIZE * 8

_FNV_INIT: Final = 0xCBF29CE484222325
_FNV_PRIME: Final = 0x100000001B3
_FNV_MASK: Final = (1 << 64) - 1


def is_vdi_id(number: int) -> bool:
    """Tell whether a VDI can have the id ``number``."""
    return 0 < number < ID_COUNT


def fnv1a(data: bytes) -> int:
    """Give the 64-bit FNV-1a of ``data``."""
    value = _FNV_INIT
    for byte in data:
        value = (value ^ byte) * _FNV_PRIME & _FNV_MASK
    return value


def first_id(name: str) -> int:
    """Give the id that a VDI's search starts at: 64-bit FNV-1a of its name, the low 24 bits, but never 0."""
    return fnv1a(name.encode(errors="surrogateescape")) % ID_COUNT or 1


class VdiIds:
    """The ids of a cluster's VDIs, from two bitmaps of VDI_BITMAP_SIZE bytes, least significant bit first.

    An id whose VDI was deleted may stay in use.
    """

    def __init__(self, in_use: Bytes, deleted: Bytes) -> None:
        # A bool for each id, 16 MiB: the ids themselves would be eight times that if a server claims all of them.
        self._in_use = _unpack(in_use)
        self._alive = self._in_use & ~_unpack(deleted)

    def __len__(self) -> int:
        """Count the VDIs that were not deleted."""
        return int(np.count_nonzero(self._alive))

    def ascending(self) -> NDArray[np.intp]:
        """Give the ids of all VDIs that were not deleted."""
        return np.flatnonzero(self._alive)

    def ends_of_runs(self) -> NDArray[np.intp]:
        """Give the last id of each run of ids. It is usually a working VDI."""
        last = self._alive.copy()
        last[:-1] &= ~self._alive[1:]
        return np.flatnonzero(last)

    def newest_of(self, name: str) -> Iterator[int]:
        """Give the ids that VDI ``name`` and its snapshots may have, usually the newest first."""
        start = first_id(name)
        run = range(start, start + _leading(self._in_use[start:]))
        # A run that reaches the last id goes on at the first.
        rest = range(1, 1 + _leading(self._in_use[1:start])) if run.stop == ID_COUNT else range(0)
        return (vdi_id for vdi_id in chain(reversed(rest), reversed(run)) if self._alive[vdi_id])


def _unpack(bitmap: Bytes) -> NDArray[np.bool_]:
    bits = np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little").view(np.bool_)
    bits[0] = False
    return bits


def _leading(bits: NDArray[np.bool_]) -> int:
    """Count how many are true before the first false one."""
    return len(bits) if bits.all() else int(bits.argmin())
