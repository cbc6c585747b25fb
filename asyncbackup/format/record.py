"""The header of a record: which bytes of which object follow."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

END_IDX: Final = 0xFFFFFFFF
"""Stands in place of a data object index in the end marker of the dog dialect."""

RECORD_HEADER_SIZE: Final = 16

_HEADER: Final = struct.Struct("<IIII")


class RecordHeader(NamedTuple):
    """``length`` bytes at ``offset`` of data object ``idx`` follow; offset and length in multiples of 512 bytes."""

    idx: int
    offset: int
    length: int

    def encode(self) -> bytes:
        """Build the 16 bytes. Raises ValueError if ``idx`` is the one that the end marker uses."""
        if self.idx == END_IDX:
            raise ValueError(f"data object index {END_IDX} would look like the end of the backup")
        return _HEADER.pack(self.idx, self.offset, self.length, 0)

    @classmethod
    def decode(cls, header: bytes | memoryview) -> RecordHeader:
        idx, offset, length, _reserved = _HEADER.unpack(header)
        return cls(idx, offset, length)
