"""Reads backups, sans-IO: judges headers one after the other, and says where the next one stands.

The law of this module:

- ``next_size`` bytes from ``offset`` on are what ``feed`` wants next; 0 means that the backup is complete.
- ``feed`` gives the header of a record, whose data the caller reads, skips, or leaves alone; or None at the end.
- Bytes that no writer writes raise ``Damage`` with the offset of the first byte that is wrong.
"""

from __future__ import annotations

import struct
from typing import Final

from asyncbackup.format.dialect import MAGIC, VERSION, Dialect
from asyncbackup.format.record import END_IDX, RECORD_HEADER_SIZE, RecordHeader

MAX_OBJECT_SIZE: Final = 1 << 31
"""The limit of offset + length where the object size is not known."""

OPENING_SIZE: Final = {Dialect.COLLIE: 16, Dialect.DOG: 8}
LOOK_AHEAD: Final = 32
"""Bytes at the beginning of a file that ``candidates`` needs, if the file has so many."""

_SECTOR_SIZE: Final = 512
_FIELDS: Final = struct.Struct("<IIII")
_OPENING: Final = struct.Struct("<II")


class Damage(ValueError):
    """At ``offset`` the bytes are not those of a backup."""

    def __init__(self, offset: int, problem: str) -> None:
        super().__init__(f"at offset {offset}: {problem}")
        self.offset = offset
        self.problem = problem


class Decoder:
    """Follows the chain of records of one backup in ``dialect``.

    ``object_size`` in bytes bounds the records if it is known. ``range_length`` is for a piece: so many bytes of
    records, without what begins and ends a backup.
    """

    def __init__(self, dialect: Dialect, object_size: int | None = None, range_length: int | None = None) -> None:
        self.dialect = dialect
        self.records = 0
        """Records so far."""
        self.offset = 0
        """Where the next header stands, in bytes from the start."""
        self._limit = object_size or MAX_OBJECT_SIZE
        self._expected_records: int | None = None
        self._last_idx = -1
        self._range_length = range_length
        self._complete = range_length == 0

    @property
    def next_size(self) -> int:
        """Bytes that ``feed`` wants next."""
        if self._complete:
            return 0
        return OPENING_SIZE[self.dialect] if self._awaits_opening else RECORD_HEADER_SIZE

    @property
    def _awaits_opening(self) -> bool:
        return self.offset == 0 and self._range_length is None

    def feed(self, header: bytes | memoryview) -> RecordHeader | None:
        """Judge the next ``next_size`` bytes, or fewer if the file ends before. Raises Damage."""
        if len(header) < self.next_size:
            raise Damage(
                self.offset + len(header), f"the file ends here; expected {self.next_size - len(header)} more bytes"
            )
        if self._awaits_opening:
            self._open(header)
            return None
        record = RecordHeader(*self._fields(header))
        if self.dialect is Dialect.DOG and record.idx == END_IDX and self._range_length is None:
            self._end(record)
            return None
        self._judge(record)
        self._last_idx = record.idx
        self.records += 1
        self.offset += RECORD_HEADER_SIZE + record.length
        self._complete = self.records == self._expected_records or self.offset == self._range_length
        return record

    def _open(self, header: bytes | memoryview) -> None:
        if not any(header):
            raise Damage(0, "the header is zeros: this backup was never finished")
        version, magic = _OPENING.unpack_from(header)
        if magic != MAGIC:
            raise Damage(4, f"expected magic {MAGIC:08x}, got {magic:08x}: this is no backup")
        if version != VERSION:
            raise Damage(0, f"expected version {VERSION}, got {version}")
        if self.dialect is Dialect.COLLIE:
            _, _, self._expected_records, reserved = _FIELDS.unpack(header)
            if reserved:
                raise Damage(12, f"expected 0, got {reserved}")
            self._complete = self._expected_records == 0
        self.offset = OPENING_SIZE[self.dialect]

    def _fields(self, header: bytes | memoryview) -> tuple[int, int, int]:
        idx, offset, length, reserved = _FIELDS.unpack(header)
        if reserved:
            raise Damage(self.offset + 12, f"expected 0, got {reserved}")
        return idx, offset, length

    def _end(self, marker: RecordHeader) -> None:
        if marker.offset or marker.length:
            raise Damage(self.offset + 4, "expected zeros in the end marker")
        self.offset += RECORD_HEADER_SIZE
        self._complete = True

    def _judge(self, record: RecordHeader) -> None:
        idx, offset, length = record.idx, record.offset, record.length
        if idx <= self._last_idx:
            raise Damage(self.offset, f"expected an object index above {self._last_idx}, got {idx}")
        if offset % _SECTOR_SIZE or offset >= self._limit:
            raise Damage(self.offset + 4, f"expected an offset in sectors below {self._limit}, got {offset}")
        if length % _SECTOR_SIZE or not 0 < length <= self._limit - offset:
            raise Damage(
                self.offset + 8, f"expected a length in sectors from 1 to {self._limit - offset}, got {length}"
            )
        if self._range_length is not None and self.offset + RECORD_HEADER_SIZE + length > self._range_length:
            raise Damage(self.offset + 8, f"expected records that end at {self._range_length}, got {length} bytes more")


def candidates(beginning: bytes, object_size: int | None = None) -> list[Dialect]:
    """Tell which dialects a file can have by its first LOOK_AHEAD bytes, or by all of them if it is shorter.

    A dog backup that starts with object 0 begins like a collie backup without records. So a dialect is left out if the
    backup would end in it before bytes that another dialect can read. Raises Damage if no dialect is possible.
    """
    possible: list[Decoder] = []
    damage = Damage(0, "the file is empty")
    for dialect in Dialect:
        decoder = Decoder(dialect, object_size)
        try:
            while decoder.next_size and decoder.offset + decoder.next_size <= max(len(beginning), LOOK_AHEAD):
                decoder.feed(beginning[decoder.offset : decoder.offset + decoder.next_size])
        except Damage as found:
            damage = max(damage, found, key=lambda each: each.offset)
        else:
            possible.append(decoder)
    if not possible:
        raise damage
    furthest = [decoder for decoder in possible if decoder.next_size or decoder.offset >= len(beginning)]
    return [decoder.dialect for decoder in furthest or possible]
