"""Slow and obvious: what the fast code has to agree with. Shares no code with it."""

from __future__ import annotations

import struct
from dataclasses import dataclass

SECTOR = 512


@dataclass(frozen=True)
class Record:
    idx: int
    offset: int
    data: bytes


def parse(data: bytes, dialect: str, object_size: int) -> list[Record]:
    """Read a whole backup file; an AssertionError says what is wrong with it."""
    assert struct.unpack_from("<II", data) == (1, 0x11921192), "version and magic"
    records = []
    if dialect == "collie":
        count, reserved = struct.unpack_from("<II", data, 8)
        assert reserved == 0
        position = 16
        for _ in range(count):
            record, position = _record(data, position, object_size)
            records.append(record)
    else:
        position = 8
        while data[position : position + 16] != b"\xff\xff\xff\xff" + bytes(12):
            record, position = _record(data, position, object_size)
            records.append(record)
        position += 16
    assert position == len(data), "nothing follows"
    indices = [record.idx for record in records]
    assert indices == sorted(set(indices)), "strictly ascending"
    return records


def _record(data: bytes, position: int, object_size: int) -> tuple[Record, int]:
    idx, offset, length, reserved = struct.unpack_from("<IIII", data, position)
    assert reserved == 0
    assert length > 0
    assert offset % SECTOR == length % SECTOR == 0
    assert offset + length <= object_size
    start = position + 16
    assert len(data) >= start + length, "nothing is missing"
    return Record(idx, offset, data[start : start + length]), start + length


def apply(content: dict[int, bytes], records: list[Record], object_size: int) -> dict[int, bytes]:
    """Restore ``records`` over the content of a disk: object index to bytes, missing ones are zeros."""
    restored = dict(content)
    for record in records:
        before = restored.get(record.idx, bytes(object_size))
        end = record.offset + len(record.data)
        restored[record.idx] = before[: record.offset] + record.data + before[end:]
    return restored


def trim(to: bytes, base: bytes) -> tuple[int, int]:
    """Give offset and length of what differs, sector by sector."""
    differing = [at for at in range(0, len(to), SECTOR) if to[at : at + SECTOR] != base[at : at + SECTOR]]
    return (differing[0], differing[-1] + SECTOR - differing[0]) if differing else (0, 0)


def difference(to: dict[int, bytes], base: dict[int, bytes], object_size: int) -> list[Record]:
    """Give the records that turn ``base`` into ``to``."""
    zeros = bytes(object_size)
    records = []
    for idx in sorted(to.keys() | base.keys()):
        offset, length = trim(to.get(idx, zeros), base.get(idx, zeros))
        if length:
            records.append(Record(idx, offset, to.get(idx, zeros)[offset : offset + length]))
    return records


def without_zeros(content: dict[int, bytes]) -> dict[int, bytes]:
    """Leave out objects that cannot be told from missing ones."""
    return {idx: data for idx, data in content.items() if any(data)}
