from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import xxhash

from asyncbackup import Dialect
from asyncbackup.engine.proof import ManifestWriter, Written
from asyncbackup.format import RecordHeader
from asyncbackup.format.identity import Identity
from asyncbackup.format.manifest import ManifestDecoder, RecordDigests, Subject, Trailer
from tests.collecting import CollectingTarget
from tests.disks import OBJECT, noise
from tests.property.reference import SECTOR

SUBJECT = Subject(
    size=1 << 32,
    object_size=OBJECT,
    copies=1,
    copy_policy=0,
    dialect=Dialect.DOG,
    identity=Identity(vdi="disk", vdi_id="abcdef", created=None, cluster=None, id=1, tag="a"),
    base_identity=Identity("disk", "abcdee", "2026-11-22T20:00:00.000000001Z", None, 1, "a"),
    base_size=1 << 32,
)
ZEROS = memoryview(bytes(OBJECT))


def decode(manifest: bytes | bytearray) -> list[Subject | RecordDigests | Trailer]:
    decoder = ManifestDecoder()
    decoded = [decoder.feed(line) for line in bytes(manifest).splitlines(keepends=True)]
    decoder.finish()
    return decoded


async def test_lines_of_known_records_do_not_wait_for_the_end_either() -> None:
    writer = ManifestWriter(target := CollectingTarget())
    writer.start(SUBJECT)
    digest = "0" * 32

    for idx in range(1000):
        await writer.add_known(RecordDigests(RecordHeader(idx, 0, SECTOR), digest, digest))

    assert len(target.data) > 1000 * len(digest)


async def test_lines_do_not_wait_for_the_end() -> None:
    writer = ManifestWriter(target := CollectingTarget())
    writer.start(SUBJECT)
    sector = memoryview(noise(1, SECTOR))

    written = []
    for idx in range(2000):
        await writer.add([Written(RecordHeader(idx, 0, SECTOR), [sector], [ZEROS[:SECTOR]], is_last=True)])
        written.append(len(target.data))
    length = 8 + 2000 * (16 + SECTOR) + 16
    await writer.finish(length)

    assert written[0] == 0
    assert len(target.data) - written[-1] < 64 << 10
    assert len(target.data) > 128 << 10
    subject, *records, trailer = decode(target.data)
    assert (subject, trailer) == (SUBJECT, Trailer(2000, length))
    assert [record.header.idx for record in records if isinstance(record, RecordDigests)] == list(range(2000))


@pytest.mark.parametrize("length", [SECTOR, OBJECT], ids=["brief", "long"])
async def test_a_record_is_digested_over_all_its_parts(length: int) -> None:
    data, base = noise(1, length), noise(2, length)
    half = length // 2
    writer = ManifestWriter(target := CollectingTarget())
    writer.start(SUBJECT)
    first = Written(RecordHeader(3, 0, length), [memoryview(data)[:half]], [memoryview(base)[:half]], is_last=False)
    last = Written(None, [memoryview(data)[half:]], [memoryview(base)[half:]], is_last=True)

    await writer.add([first])
    await writer.add([last])
    await writer.finish(8 + 16 + length + 16)

    assert decode(target.data)[1] == RecordDigests(
        RecordHeader(3, 0, length), xxhash.xxh3_128(data).hexdigest(), xxhash.xxh3_128(base).hexdigest()
    )


@pytest.mark.parametrize("known", [(False, True), (True, False), (False, False)])
async def test_of_a_base_that_was_read_in_part_nothing_is_told(known: tuple[bool, bool]) -> None:
    writer = ManifestWriter(target := CollectingTarget())
    writer.start(SUBJECT)
    half = ZEROS[:SECTOR]
    bases = [[half] if each else None for each in known]

    await writer.add([Written(RecordHeader(3, 0, 2 * SECTOR), [half], bases[0], is_last=False)])
    await writer.add([Written(None, [half], bases[1], is_last=True)])
    await writer.add([Written(RecordHeader(4, 0, SECTOR), [half], [half], is_last=True)])
    await writer.finish(8 + 16 + 2 * SECTOR + 16 + SECTOR + 16)

    _, *records, _ = decode(target.data)
    zeros = xxhash.xxh3_128_hexdigest(bytes(SECTOR))
    assert [record.base for record in records if isinstance(record, RecordDigests)] == [None, zeros]


async def test_a_full_backup_says_nothing_of_a_base(tmp_path: Path) -> None:
    writer = ManifestWriter(target := CollectingTarget())
    writer.start(replace(SUBJECT, base_identity=None, base_size=None))

    await writer.add([Written(RecordHeader(3, 0, SECTOR), [ZEROS[:SECTOR]], [ZEROS[:SECTOR]], is_last=True)])

    await writer.finish(8 + 16 + SECTOR + 16)
    assert decode(target.data)[1] == RecordDigests(
        RecordHeader(3, 0, SECTOR), xxhash.xxh3_128_hexdigest(bytes(SECTOR)), None
    )
