"""The seek table at the end of a zstd file, sans-IO: where each of its frames is, so that a range can be read.

It is a skippable frame, which programs that don't know it pass over. The zstd project describes it as its seekable
format (contrib/seekable_format), and docs/formats.md does as well. Nothing that a table says is trusted.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from asyncbackup.format.decoder import Damage

_HEADER: Final = struct.Struct("<II")
"""The magic of a skippable frame, and the bytes that follow."""
_SKIPPABLE: Final = 0x184D2A5E
_FOOTER: Final = struct.Struct("<IBI")
"""The count of frames, flags, and the magic of a seek table. The file ends with it."""
_MAGIC: Final = 0x8F92EAB1
_HAS_CHECKSUMS: Final = 0x80
_RESERVED: Final = 0x7C
"""Flags that a later version may use for something that we would have to know."""
_ENTRY_SIZE: Final = 8
"""A frame takes four bytes for its length in the file, and four for its content."""
_CHECKSUM_SIZE: Final = 4

FOOTER_SIZE: Final = _FOOTER.size
LEAST_SIZE: Final = _HEADER.size + _FOOTER.size
"""Bytes of a table without any frame."""
_MAX_FRAMES: Final = ((1 << 32) - 1 - _FOOTER.size) // _ENTRY_SIZE
"""The length of a skippable frame has 32 bits. With frames of 1 MiB, this many hold 512 TiB."""

_BLOCK: Final = 256
"""Frames whose places are computed when one of them is looked for. A sum for each block is kept."""


class Frame(NamedTuple):
    """A frame: ``length`` bytes from ``offset`` of the file on hold ``size`` bytes from ``start`` of the content on."""

    number: int
    offset: int
    length: int
    start: int
    size: int


class SeekTableEncoder:
    """Collects the frames of a file in order: 8 bytes of memory for each."""

    def __init__(self) -> None:
        self._entries = bytearray()

    def add(self, length: int, size: int) -> None:
        """Add a frame of ``length`` bytes in the file, which holds ``size`` bytes of content."""
        self._entries += _HEADER.pack(length, size)

    def encode(self) -> bytes:
        """Give the table as a skippable frame; nothing if there are more frames than a table can have."""
        count = len(self._entries) // _ENTRY_SIZE
        if count > _MAX_FRAMES:
            return b""
        header = _HEADER.pack(_SKIPPABLE, len(self._entries) + _FOOTER.size)
        return b"".join([header, self._entries, _FOOTER.pack(count, 0, _MAGIC)])


class Footer(NamedTuple):
    """What the last bytes of a file say of its table: ``frames``, and the table's ``size`` in bytes."""

    frames: int
    size: int


def decode_footer(end: bytes | memoryview, file_size: int) -> Footer | None:
    """Read the last FOOTER_SIZE bytes of a file; None if they end no table. Raises Damage if it can't be a table."""
    count, flags, magic = _FOOTER.unpack(end)
    if magic != _MAGIC:
        return None
    at = file_size - _FOOTER.size
    if flags & _RESERVED:
        raise Damage(at, f"expected a seek table without other flags than that of checksums, got 0x{flags:02x}")
    size = LEAST_SIZE + count * _entry_size(flags)
    if size > file_size:
        raise Damage(at, f"expected a seek table within the file's {file_size} bytes, got {size} bytes of one")
    return Footer(count, size)


def _entry_size(flags: int) -> int:
    return _ENTRY_SIZE + (_CHECKSUM_SIZE if flags & _HAS_CHECKSUMS else 0)


class SeekTable:
    """Says where the frames are. It keeps 8 bytes of memory for each frame, and a little for each block of frames."""

    def __init__(self, entries: npt.NDArray[np.uint32]) -> None:
        self._entries = entries
        blocks = np.add.reduceat(entries, np.arange(0, len(entries), _BLOCK), axis=0, dtype=np.uint64)
        self._before = np.zeros((len(blocks) + 1, 2), np.uint64)
        np.cumsum(blocks, axis=0, out=self._before[1:])
        self.frames = len(entries)
        self.length, self.size = map(int, self._before[-1])
        """Bytes of all frames in the file, and of all content."""
        self.longest, self.largest = map(int, entries.max(axis=0))
        """Bytes of the longest frame in the file, and of the largest content of a frame."""

    @classmethod
    def decode(cls, table: bytes | memoryview, file_size: int) -> SeekTable:
        """Read a table, which has at least one frame and ends a file of ``file_size`` bytes.

        Raises Damage unless the frames fill all of the file before the table.
        """
        at = file_size - len(table)
        magic, length = _HEADER.unpack_from(table)
        count, flags, _ = _FOOTER.unpack_from(table, len(table) - _FOOTER.size)
        if magic != _SKIPPABLE or length != len(table) - _HEADER.size:
            raise Damage(at, f"expected a seek table of {count} frames, got something else")
        words = np.frombuffer(table, "<u4", count * _entry_size(flags) // 4, _HEADER.size).reshape(count, -1)
        found = cls(np.ascontiguousarray(words[:, :2], np.uint32))
        if found.length != at:
            raise Damage(at, f"expected a seek table of the {at} bytes before it, got one of {found.length} bytes")
        return found

    def find(self, position: int) -> Frame:
        """Give the frame that holds the byte at ``position`` of the content, which must have that byte."""
        assert 0 <= position < self.size
        block = int(np.searchsorted(self._before[:, 1], np.uint64(position), "right")) - 1
        first = block * _BLOCK
        ends = self._before[block] + np.cumsum(self._entries[first : first + _BLOCK], axis=0, dtype=np.uint64)
        place = int(np.searchsorted(ends[:, 1], np.uint64(position), "right"))
        length, size = map(int, self._entries[first + place])
        end, content_end = map(int, ends[place])
        return Frame(first + place, end - length, length, content_end - size, size)
