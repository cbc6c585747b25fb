r"""Plans, written down, sans-IO: which objects to compare, and who owns them.

All numbers are little-endian.

| field | type | value |
| --- | --- | --- |
| magic | 8 bytes | ``abplan\r\n`` |
| version | u32 | 1 |
| bases | u32 | how many, 1 to 16 |
| count | u32 | how many objects |
| idx | u32, count times | strictly ascending, below 2^32 - 1 |
| to | u32, count times | the object's owner, a vdi id of at most 24 bits; 0: nobody, so it is zeros |
| base | u32, count times, for each base | its owner there, in the same way; one of them differs from that in to |
| digest | 16 bytes | xxh3_128 of all before it, the most significant byte first |

A plan does not name the VDI and the snapshots: the program that hands it out does. Nothing in it is trusted: each
number is bounded, and any other length than the one that follows from the header is damage.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from asyncbackup.format.decoder import Damage
from asyncbackup.format.record import END_IDX

MAGIC: Final = b"abplan\r\n"
"""A copy that changes ends of lines changes this."""

VERSION: Final = 1
MAX_BASES: Final = 16
"""More than anybody needs. It bounds the memory that a header can ask for."""

_HEADER: Final = struct.Struct("<8sIII")
_DIGEST_SIZE: Final = 16
_MAX_OWNER: Final = (1 << 24) - 1
_U32: Final = np.dtype("<u4")


class PlanTable(NamedTuple):
    """Objects to compare, u32 arrays of one length: indices, owners, and their owners in each base."""

    idx: NDArray[np.uint32]
    to_owners: NDArray[np.uint32]
    base_owners: tuple[NDArray[np.uint32], ...]


def encode_plan(plan: PlanTable) -> bytes:
    """Encode ``plan``. Raises ValueError if no reader would accept it."""
    columns = [plan.idx, plan.to_owners, *plan.base_owners]
    if not 1 <= len(plan.base_owners) <= MAX_BASES:
        raise ValueError(f"expected 1 to {MAX_BASES} bases, got {len(plan.base_owners)}")
    if any(len(column) != len(plan.idx) for column in columns):
        raise ValueError("expected columns of one length")
    if fault := _find_fault(plan):
        raise ValueError(fault.problem)
    header = _HEADER.pack(MAGIC, VERSION, len(plan.base_owners), len(plan.idx))
    body = b"".join([header, *(column.astype(_U32, copy=False).tobytes() for column in columns)])
    return body + xxhash.xxh3_128_digest(body)


def decode_plan(data: bytes) -> PlanTable:
    """Read what ``encode_plan`` wrote; the arrays are views of ``data``. Raises Damage if it wrote something else."""
    if len(data) < _HEADER.size:
        raise Damage(len(data), f"the plan ends here; expected a header of {_HEADER.size} bytes")
    magic, version, bases, count = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise Damage(0, "expected the beginning of a plan, got other bytes")
    if version != VERSION:
        raise Damage(8, f"expected version {VERSION}, got {version}")
    if not 1 <= bases <= MAX_BASES:
        raise Damage(12, f"expected 1 to {MAX_BASES} bases, got {bases}")
    end = _HEADER.size + _U32.itemsize * count * (2 + bases)
    if len(data) != end + _DIGEST_SIZE:
        raise Damage(min(len(data), end + _DIGEST_SIZE), f"expected {end + _DIGEST_SIZE} bytes, got {len(data)}")
    if xxhash.xxh3_128_digest(memoryview(data)[:end]) != data[end:]:
        raise Damage(end, "the digest is wrong: the plan was changed")
    idx, to_owners, *base_owners = np.frombuffer(data, _U32, count * (2 + bases), _HEADER.size).reshape(
        2 + bases, count
    )
    plan = PlanTable(idx, to_owners, tuple(base_owners))
    if fault := _find_fault(plan):
        raise fault
    return plan


def _find_fault(plan: PlanTable) -> Damage | None:
    """Find a value that no plan can have, and its offset in the file."""
    idx, to_owners, base_owners = plan

    def fault(column: int, rows: NDArray[np.bool_], problem: str) -> Damage | None:
        if not rows.any():
            return None
        row = int(np.argmax(rows))
        return Damage(_HEADER.size + _U32.itemsize * (column * len(idx) + row), f"object {row} of the plan: {problem}")

    last = fault(0, idx >= END_IDX, f"expected an index below {END_IDX}")
    order = fault(0, np.concatenate([[False], idx[1:] <= idx[:-1]]), "expected an index above the one before")
    owners: Sequence[NDArray[np.uint32]] = (to_owners, *base_owners)
    ids = (
        fault(column, each > _MAX_OWNER, f"expected a vdi id of at most {_MAX_OWNER}")
        for column, each in enumerate(owners, 1)
    )
    same = fault(1, np.logical_and.reduce([to_owners == each for each in base_owners]), "expected owners that differ")
    return next(filter(None, (last, order, *ids, same)), None)
