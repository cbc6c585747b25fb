from __future__ import annotations

import struct

import pytest

from asyncbackup.format import Dialect, RecordHeader
from asyncbackup.format.decoder import LOOK_AHEAD, Damage, Decoder, candidates

OBJECT = 1 << 22
MAGIC = 0x11921192


def collie(*records: RecordHeader, count: int | None = None) -> bytes:
    opening = struct.pack("<IIII", 1, MAGIC, len(records) if count is None else count, 0)
    return opening + b"".join(record.encode() + bytes(record.length) for record in records)


def dog(*records: RecordHeader) -> bytes:
    body = b"".join(record.encode() + bytes(record.length) for record in records)
    return struct.pack("<II", 1, MAGIC) + body + struct.pack("<IIII", 0xFFFFFFFF, 0, 0, 0)


def read(data: bytes, dialect: Dialect, object_size: int | None = OBJECT) -> list[RecordHeader]:
    decoder = Decoder(dialect, object_size)
    records = []
    while decoder.next_size:
        record = decoder.feed(data[decoder.offset : decoder.offset + decoder.next_size])
        if record is not None:
            records.append(record)
    assert decoder.records == len(records)
    assert decoder.offset == len(data)
    return records


RECORDS = (RecordHeader(0, 0, 512), RecordHeader(3, 1024, 1536), RecordHeader(9, OBJECT - 512, 512))


@pytest.mark.parametrize("records", [(), RECORDS], ids=["none", "some"])
def test_a_backup_is_read_to_its_end(records: tuple[RecordHeader, ...]) -> None:
    assert read(collie(*records), Dialect.COLLIE) == list(records)
    assert read(dog(*records), Dialect.DOG) == list(records)


def test_without_an_object_size_records_may_be_of_the_largest() -> None:
    record = RecordHeader(0, (1 << 31) - 512, 512)

    assert read(dog(record), Dialect.DOG, None) == [record]


@pytest.mark.parametrize(
    ("data", "dialect", "message"),
    [
        (b"", Dialect.DOG, "at offset 0: the file ends here; expected 8 more bytes"),
        (b"", Dialect.COLLIE, "at offset 0: the file ends here; expected 16 more bytes"),
        (bytes(16), Dialect.COLLIE, "at offset 0: the header is zeros: this backup was never finished"),
        (struct.pack("<II", 1, 5), Dialect.DOG, "at offset 4: expected magic 11921192, got 00000005"),
        (struct.pack("<II", 2, MAGIC), Dialect.DOG, "at offset 0: expected version 1, got 2"),
        (struct.pack("<IIII", 1, MAGIC, 0, 7), Dialect.COLLIE, "at offset 12: expected 0, got 7"),
        (dog()[:-1], Dialect.DOG, "at offset 23: the file ends here; expected 1 more bytes"),
        (collie(count=1), Dialect.COLLIE, "at offset 16: the file ends here; expected 16 more bytes"),
        (dog()[:12] + b"\1" + dog()[13:], Dialect.DOG, "at offset 12: expected zeros in the end marker"),
        (dog()[:20] + b"\1" + dog()[21:], Dialect.DOG, "at offset 20: expected 0, got 1"),
        (dog(RECORDS[1], RECORDS[1]), Dialect.DOG, "at offset 1560: expected an object index above 3, got 3"),
        (dog(RecordHeader(0, 100, 512)), Dialect.DOG, "at offset 12: expected an offset in sectors below 4194304, got"),
        (dog(RecordHeader(0, OBJECT, 512)), Dialect.DOG, "expected an offset in sectors below 4194304, got 4194304"),
        (
            dog(RecordHeader(0, 0, 0)),
            Dialect.DOG,
            "at offset 16: expected a length in sectors from 1 to 4194304, got 0",
        ),
        (dog(RecordHeader(0, 0, 100)), Dialect.DOG, "expected a length in sectors from 1 to 4194304, got 100"),
        (dog(RecordHeader(0, 512, OBJECT)), Dialect.DOG, "expected a length in sectors from 1 to 4193792, got 4194304"),
    ],
)
def test_what_no_writer_writes_is_told_with_its_place(data: bytes, dialect: Dialect, message: str) -> None:
    with pytest.raises(Damage) as caught:
        read(data, dialect)

    assert message in str(caught.value)


@pytest.mark.parametrize("records", [(), RECORDS, RECORDS[1:]], ids=["none", "from object 0", "from object 3"])
def test_the_beginning_tells_the_dialect(records: tuple[RecordHeader, ...]) -> None:
    assert candidates(collie(*records)[:LOOK_AHEAD], OBJECT) == [Dialect.COLLIE]
    assert candidates(dog(*records)[:LOOK_AHEAD], OBJECT) == [Dialect.DOG]


def test_a_backup_of_neither_dialect_is_damaged_where_it_made_sense_the_longest() -> None:
    with pytest.raises(Damage, match="at offset 4: expected magic"):
        candidates(b"#!/bin/sh\n".ljust(LOOK_AHEAD), OBJECT)


def test_an_empty_file_is_no_backup() -> None:
    with pytest.raises(Damage, match="at offset 0"):
        candidates(b"")
