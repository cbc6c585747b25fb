"""Ceph's ``rbd export-diff`` stream, version 1, sans-IO.

As ceph's doc/dev/rbd-diff.rst has it, all integers little-endian: the line ``rbd diff v1``; then metadata records, of a
one-byte tag each: ``f`` and ``t``, the names of the snapshots at the beginning and at the end of the difference (u32
length, bytes), and ``s``, the size of the image at the end (u64); then data records, in ascending order: ``w`` (offset
u64, length u64, data) and ``z`` (the same of zeros, without data); at last ``e``.

Without ``f`` it is the difference to an empty image; without ``t`` no snapshot is made when it is imported.
"""

from __future__ import annotations

import struct
from typing import Final

_BANNER: Final = b"rbd diff v1\n"
_NAME: Final = struct.Struct("<cI")
_SIZE: Final = struct.Struct("<cQ")
_RANGE: Final = struct.Struct("<cQQ")

ENDING: Final = b"e"
"""What stands after the last range."""


def opening(size: int, snapshot: str | None, base: str | None) -> bytes:
    """Begin the difference from ``base`` to ``snapshot``, at which the image has ``size`` bytes."""
    return _BANNER + _named(b"f", base) + _named(b"t", snapshot) + _SIZE.pack(b"s", size)


def _named(tag: bytes, name: str | None) -> bytes:
    if name is None:
        return b""
    # Bytes of a tag that are not UTF-8 are lone surrogates here.
    encoded = name.encode(errors="surrogateescape")
    return _NAME.pack(tag, len(encoded)) + encoded


def data(offset: int, length: int) -> bytes:
    """Announce ``length`` bytes of data, which follow."""
    return _RANGE.pack(b"w", offset, length)


def zeros(offset: int, length: int) -> bytes:
    """Say that a range is zeros; nothing follows."""
    return _RANGE.pack(b"z", offset, length)
