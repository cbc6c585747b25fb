"""Reads rbd-diff streams, the obvious way: what Ceph's own documentation of version 1 says."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field


@dataclass
class RbdDiff:
    base: str | None = None
    snapshot: str | None = None
    size: int = -1
    ranges: list[tuple[str, int, int]] = field(default_factory=list)
    """Tag, offset, length."""
    data: dict[int, bytes] = field(default_factory=dict)
    """By offset."""

    def apply(self, image: bytes) -> bytes:
        """Do to ``image`` what an import does."""
        made = bytearray(image[: self.size].ljust(self.size, b"\0"))
        for _tag, offset, length in self.ranges:
            assert offset + length <= self.size
            made[offset : offset + length] = self.data.get(offset, bytes(length))
        return bytes(made)


def parse(stream: bytes) -> RbdDiff:
    banner = b"rbd diff v1\n"
    assert stream.startswith(banner)
    diff, position = RbdDiff(), len(banner)
    while (tag := chr(stream[position])) != "e":
        position += 1
        if tag in "ft":
            (length,) = struct.unpack_from("<I", stream, position)
            name = stream[position + 4 : position + 4 + length].decode()
            diff.base, diff.snapshot = (name, diff.snapshot) if tag == "f" else (diff.base, name)
            position += 4 + length
        elif tag == "s":
            (diff.size,) = struct.unpack_from("<Q", stream, position)
            position += 8
        else:
            assert tag in "wz", f"no record begins with {tag!r}"
            offset, length = struct.unpack_from("<QQ", stream, position)
            position += 16
            diff.ranges.append((tag, offset, length))
            if tag == "w":
                diff.data[offset] = stream[position : position + length]
                position += length
    assert position == len(stream) - 1, "nothing follows the end"
    return diff
