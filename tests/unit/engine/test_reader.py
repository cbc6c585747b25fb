from __future__ import annotations

import bz2
import gzip
import lzma
import os
import struct
import threading
from contextlib import aclosing
from pathlib import Path

import pytest
import xxhash

from asyncbackup import Dialect
from asyncbackup.engine.manifest import Digests
from asyncbackup.engine.reader import BackupReader, Record, open_backup
from asyncbackup.errors import BackupCompressed, BackupDamaged, FormatUnclear, SourceMissing, SourceUnreadable
from asyncbackup.format import RecordHeader
from asyncbackup.format.identity import Identity
from asyncbackup.format.manifest import ManifestEncoder, RecordDigests, Subject
from asyncbackup.storage import FileSource
from asyncbackup.storage.publication import manifest_path
from tests.disks import OBJECT, noise
from tests.streams import standard_input

Change = tuple[int, int, bytes]
"""Of which object, from which byte of it on, which data."""

TWO: list[Change] = [(1, 512, noise(1, 1024)), (3, 0, noise(2, 512))]
SUBJECT = Subject(
    size=8 * OBJECT,
    object_size=OBJECT,
    copies=1,
    copy_policy=0,
    dialect=Dialect.COLLIE,
    identity=Identity(vdi="disk", vdi_id="abcdef", created=None, cluster=None, id=1, tag="a"),
    base_identity=None,
    base_size=None,
)


def framed(changes: list[Change], dialect: Dialect = Dialect.COLLIE) -> bytes:
    records = [RecordHeader(idx, offset, len(data)).encode() + data for idx, offset, data in changes]
    return (dialect.patch(len(changes)) or dialect.opening) + b"".join(records) + dialect.ending


def proven(changes: list[Change]) -> bytes:
    """Make the manifest of a collie backup of ``changes`` over zeros."""
    encoder = ManifestEncoder()
    lines = [encoder.opening(SUBJECT)]
    for idx, offset, data in changes:
        header = RecordHeader(idx, offset, len(data))
        lines.append(encoder.record(RecordDigests(header, xxh3(data), xxh3(bytes(len(data))))))
    return b"".join([*lines, encoder.ending(len(framed(changes)))])


def write(folder: Path, data: bytes, manifest: bytes | None = None) -> Path:
    file = folder / "file"
    file.write_bytes(data)
    if manifest is not None:
        manifest_path(file).write_bytes(manifest)
    return file


def xxh3(data: bytes) -> str:
    return xxhash.xxh3_128(data).hexdigest()


async def found_in(reader: BackupReader) -> list[Record]:
    return [record async for record in reader.records()]


async def note_records(reader: BackupReader, found: list[int]) -> None:
    """Note the indices of the records in ``found``, which has them even where an error ends them."""
    async for record in reader.records():
        found.append(record.header.idx)  # noqa: PERF401 - a comprehension would keep nothing


async def changes_in(reader: BackupReader) -> list[Change]:
    """Read everything, in order."""
    changes = []
    async for record in reader.records():
        data = bytearray(record.header.length)
        await reader.read_data(record, 0, memoryview(data))
        changes.append((record.header.idx, record.header.offset, bytes(data)))
    return changes


# Which dialect


@pytest.mark.parametrize("dialect", list(Dialect))
async def test_the_dialect_is_found_out(tmp_path: Path, dialect: Dialect) -> None:
    async with open_backup(write(tmp_path, framed(TWO, dialect))) as reader:
        assert reader.dialect is dialect
        assert await changes_in(reader) == TWO


@pytest.mark.parametrize("dialect", list(Dialect))
async def test_the_dialect_of_a_pipe_is_found_out(dialect: Dialect) -> None:
    with standard_input(framed(TWO, dialect)):
        async with open_backup("-") as reader:
            assert reader.dialect is dialect
            assert await changes_in(reader) == TWO


COLLIE_LIKE_DOG: list[Change] = [(512, 0, bytes(1024))]
"""One record, as dog's first index says too; the index, as dog's first length, is whole sectors."""

DOG_LIKE_COLLIE: list[Change] = [(1, 0, struct.pack("<II", 512, 0) + bytes(504))]
"""The index counts the records, and the data begins like the rest of a header."""


async def test_what_only_begins_like_a_dog_backup_is_a_collie_backup(tmp_path: Path) -> None:
    async with open_backup(write(tmp_path, framed(COLLIE_LIKE_DOG))) as reader:
        assert reader.dialect is Dialect.COLLIE
        assert await changes_in(reader) == COLLIE_LIKE_DOG


async def test_of_two_possible_dialects_the_one_that_explains_more_is_right(tmp_path: Path) -> None:
    file = write(tmp_path, framed(DOG_LIKE_COLLIE, Dialect.DOG))
    async with open_backup(file, dialect=Dialect.COLLIE) as reader:
        assert len(await found_in(reader)) == 1

    async with open_backup(file) as reader:
        assert reader.dialect is Dialect.DOG
        assert await changes_in(reader) == DOG_LIKE_COLLIE


async def test_damage_that_leaves_both_dialects_possible_asks_for_the_dialect(tmp_path: Path) -> None:
    file = write(tmp_path, framed(COLLIE_LIKE_DOG)[:-1])

    with pytest.raises(FormatUnclear, match="may be of either format"):
        async with open_backup(file):
            pytest.fail("entered")


async def test_a_pipe_that_may_be_of_either_dialect_asks_for_the_dialect() -> None:
    with (
        standard_input(framed(COLLIE_LIKE_DOG)),
        pytest.raises(FormatUnclear, match=r"standard input: .*may be of either format"),
    ):
        async with open_backup("-"):
            pytest.fail("entered")


async def test_a_pipe_of_a_named_dialect_is_taken_at_its_word() -> None:
    with standard_input(framed(COLLIE_LIKE_DOG)):
        async with open_backup("-", dialect=Dialect.COLLIE) as reader:
            assert await changes_in(reader) == COLLIE_LIKE_DOG


async def test_what_is_no_backup_is_told(tmp_path: Path) -> None:
    with pytest.raises(BackupDamaged, match=r"file: at offset 4: expected magic 11921192.*this is no backup"):
        async with open_backup(write(tmp_path, b"something else altogether")):
            pytest.fail("entered")


# Records


async def test_more_records_than_are_found_in_one_go_are_all_found(tmp_path: Path) -> None:
    changes = [(idx, 0, noise(idx, 512)) for idx in range(600)]

    async with open_backup(write(tmp_path, framed(changes))) as reader:
        assert await changes_in(reader) == changes


async def test_what_stands_before_damage_is_found_before_it_is_told(tmp_path: Path) -> None:
    found: list[int] = []

    async with open_backup(write(tmp_path, framed(TWO)[:-1])) as reader:
        with pytest.raises(BackupDamaged, match="the file ends here; expected 1 more bytes"):
            await note_records(reader, found)

    assert found == [1]


async def test_a_pipe_that_ends_within_data_is_told() -> None:
    with standard_input(framed(TWO)[:-1]):
        async with open_backup("-") as reader:
            with pytest.raises(BackupDamaged, match="input: at offset 1583: the file ends here; expected 1 more bytes"):
                await changes_in(reader)


@pytest.mark.parametrize("dialect", list(Dialect))
async def test_what_follows_the_end_is_counted(tmp_path: Path, dialect: Dialect) -> None:
    file = write(tmp_path, framed(TWO, dialect) + b"something")

    async with open_backup(file, dialect=dialect) as reader:
        await found_in(reader)
        assert await reader.count_trailing() == 9


@pytest.mark.parametrize("count", [0, 9])
async def test_what_follows_the_end_in_a_pipe_is_counted_by_reading_it(count: int) -> None:
    with standard_input(framed(TWO) + bytes(count)):
        async with open_backup("-") as reader:
            await changes_in(reader)
            assert await reader.count_trailing() == count


# Data


@pytest.mark.parametrize("length", [512, OBJECT], ids=["brief", "long"])
@pytest.mark.parametrize("with_base", [False, True])
async def test_what_is_read_is_digested_and_what_it_is_laid_over(
    tmp_path: Path, length: int, *, with_base: bool
) -> None:
    data, base = noise(1, length), noise(2, length)
    digests = Digests(with_base=with_base)

    async with open_backup(write(tmp_path, framed([(0, 0, data)]))) as reader:
        (record,) = await found_in(reader)
        await reader.read_data(record, 0, memoryview(into := bytearray(base)), digests)

    assert into == data
    assert digests.data.hexdigest() == xxh3(data)
    assert digests.base.hexdigest() == xxh3(base if with_base else b"")


@pytest.mark.parametrize("length", [512, OBJECT], ids=["brief", "long"])
async def test_data_is_read_from_within_a_record(tmp_path: Path, length: int) -> None:
    data = noise(1, 2 * length)

    async with open_backup(write(tmp_path, framed([(0, 0, data)]))) as reader:
        (record,) = await found_in(reader)
        await reader.read_data(record, 512, memoryview(into := bytearray(length)))

    assert into == data[512 : 512 + length]


@pytest.mark.parametrize("length", [512, OBJECT], ids=["brief", "long"])
async def test_a_file_that_was_cut_off_meanwhile_is_told(tmp_path: Path, length: int) -> None:
    file = write(tmp_path, framed([(0, 0, noise(1, length))]))

    async with open_backup(file) as reader:
        (record,) = await found_in(reader)
        os.truncate(file, 32 + length - 3)
        with pytest.raises(BackupDamaged, match=f"at offset {32 + length - 3}: the file ends here; expected 3 more"):
            await reader.read_data(record, 0, memoryview(bytearray(length)))


async def test_part_of_a_record_is_digested_through_a_smaller_buffer(tmp_path: Path) -> None:
    data, digest = noise(1, 4096), xxhash.xxh3_128()

    async with open_backup(write(tmp_path, framed([(0, 0, data)]))) as reader:
        (record,) = await found_in(reader)
        reader.digest_now(record, 512, 3072, memoryview(bytearray(1000)), digest)

    assert digest.hexdigest() == xxh3(data[512 : 512 + 3072])


async def test_a_file_that_was_cut_off_meanwhile_is_not_digested(tmp_path: Path) -> None:
    file = write(tmp_path, framed([(0, 0, noise(1, 4096))]))

    async with open_backup(file) as reader:
        (record,) = await found_in(reader)
        os.truncate(file, 32 + 4095)
        with pytest.raises(BackupDamaged, match="at offset 4127: the file ends here; expected 1 more bytes"):
            reader.digest_now(record, 0, 4096, memoryview(bytearray(1000)), xxhash.xxh3_128())


@pytest.mark.parametrize("dialect", list(Dialect))
async def test_records_of_a_pipe_are_passed_over_by_reading_them(dialect: Dialect) -> None:
    with standard_input(framed(TWO, dialect)):
        async with open_backup("-") as reader:
            found = []
            async for record in reader.records():
                found.append(record.header.idx)
                await reader.skip_data(record)

    assert found == [1, 3]


async def test_data_of_a_file_that_nobody_wants_is_not_read(tmp_path: Path) -> None:
    file = write(tmp_path, framed(TWO))

    async with open_backup(file) as reader:
        found = await found_in(reader)
        os.truncate(file, 16)
        for record in found:
            await reader.skip_data(record)


# Manifests


async def test_what_the_manifest_says_comes_with_the_records(tmp_path: Path) -> None:
    file = write(tmp_path, framed(TWO), proven(TWO))

    async with open_backup(file) as reader:
        assert reader.subject == SUBJECT
        assert reader.object_size == OBJECT
        assert [record.digests and record.digests.data for record in await found_in(reader)] == [
            xxh3(data) for _, _, data in TWO
        ]


async def test_without_a_manifest_the_caller_says_what_objects_are_like(tmp_path: Path) -> None:
    async with open_backup(write(tmp_path, framed(TWO)), object_size=4096) as reader:
        assert reader.subject is None
        assert reader.object_size == 4096


async def test_a_manifest_that_is_to_be_ignored_is_not_even_read(tmp_path: Path) -> None:
    file = write(tmp_path, framed(TWO), b"no manifest")

    async with open_backup(file, with_manifest=False) as reader:
        assert reader.subject is None
        assert [record.digests for record in await found_in(reader)] == [None, None]


async def test_a_pipe_has_the_manifest_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "proof").write_bytes(proven(TWO))

    with standard_input(framed(TWO)):
        async with open_backup("-", manifest=tmp_path / "proof") as reader:
            assert reader.subject == SUBJECT
            assert await changes_in(reader) == TWO


async def test_beside_a_pipe_the_manifest_is_read_in_threads_alone(tmp_path: Path) -> None:
    class InThreads(FileSource):
        """A file that is so slow to read that the event loop may not wait for it."""

        def read_now(self, offset: int, view: memoryview) -> int:
            assert threading.current_thread() is not threading.main_thread()
            return super().read_now(offset, view)

    (tmp_path / "manifest").write_bytes(proven(TWO))
    with standard_input(framed(TWO)):
        async with (
            InThreads(tmp_path / "manifest") as manifest,
            open_backup("-", manifest=manifest) as reader,
            aclosing(reader.records()) as records,
        ):
            async for record in records:
                assert record.digests is not None
                await reader.skip_data(record)

    assert reader.end == len(framed(TWO))


async def test_a_named_manifest_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="proof: no such file"):
        async with open_backup(write(tmp_path, framed(TWO)), manifest=tmp_path / "proof"):
            pytest.fail("entered")


async def test_a_folder_is_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(SourceUnreadable, match="is a folder"):
        async with open_backup(write(tmp_path, framed(TWO)), manifest=tmp_path):
            pytest.fail("entered")


async def test_a_manifest_that_was_changed_is_told_by_its_own_name(tmp_path: Path) -> None:
    file = write(tmp_path, framed(TWO), proven(TWO).replace(b'"copies":1', b'"copies":2'))

    with pytest.raises(BackupDamaged, match=r"file\.manifest: at offset \d+: .*the manifest was changed"):
        async with open_backup(file):
            pytest.fail("entered")


@pytest.mark.parametrize(
    "others",
    [[TWO[0], (4, 0, TWO[1][2])], TWO[:1]],
    ids=["another record", "no record"],
)
async def test_a_manifest_of_another_backup_is_told_where_it_differs(tmp_path: Path, others: list[Change]) -> None:
    async with open_backup(write(tmp_path, framed(TWO), proven(others))) as reader:
        with pytest.raises(BackupDamaged, match=r"file: at offset 1056: its manifest has another record here"):
            await found_in(reader)


async def test_a_backup_that_lacks_records_which_its_manifest_has_is_told(tmp_path: Path) -> None:
    async with open_backup(write(tmp_path, framed(TWO[:1]), proven(TWO))) as reader:
        with pytest.raises(
            BackupDamaged, match="expected 2 records in 1584 bytes, as its manifest says, got 1 in 1056"
        ):
            await found_in(reader)


# Telling backups apart


async def test_a_backup_is_identified_by_its_manifest(tmp_path: Path) -> None:
    async with open_backup(write(tmp_path, framed(TWO), proven(TWO))) as reader:
        assert await reader.identify() == xxh3(proven(TWO))


async def test_a_backup_without_a_manifest_is_identified_by_all_of_it(tmp_path: Path) -> None:
    async with open_backup(write(tmp_path, framed(TWO))) as reader:
        assert await reader.identify() == xxh3(framed(TWO))


async def test_a_backup_whose_name_is_gone_is_identified_by_what_was_opened(tmp_path: Path) -> None:
    file = write(tmp_path, framed(TWO), proven(TWO))

    async with open_backup(file) as reader:
        manifest_path(file).unlink()
        assert await reader.identify() == xxh3(proven(TWO))


# What is no backup


COMPRESSED = {
    "gzip": gzip.compress(framed(TWO)),
    "xz": lzma.compress(framed(TWO)),
    "bzip2": bz2.compress(framed(TWO)),
    "lz4": bytes.fromhex("04224d186440a7") + bytes(40),
}


@pytest.mark.parametrize("dialect", [None, *Dialect])
@pytest.mark.parametrize("compression", COMPRESSED)
async def test_a_compressed_file_is_told_as_such(tmp_path: Path, compression: str, dialect: Dialect | None) -> None:
    file = write(tmp_path, COMPRESSED[compression])

    with pytest.raises(BackupCompressed, match=f"at offset 0: this is compressed with {compression}") as caught:
        async with open_backup(file, dialect=dialect) as reader:
            await found_in(reader)

    assert (caught.value.source, caught.value.compression) == (str(file), compression)


@pytest.mark.parametrize("compression", COMPRESSED)
async def test_a_compressed_pipe_is_told_as_such(compression: str) -> None:
    with standard_input(COMPRESSED[compression]), pytest.raises(BackupCompressed, match=compression):
        async with open_backup("-") as reader:
            await found_in(reader)


async def test_a_file_that_was_compressed_beside_its_manifest_is_told_as_such(tmp_path: Path) -> None:
    file = write(tmp_path, COMPRESSED["gzip"], proven(TWO))

    with pytest.raises(BackupCompressed, match="gzip"):
        async with open_backup(file) as reader:
            await found_in(reader)


async def test_an_end_marker_ends_no_collie_backup(tmp_path: Path) -> None:
    file = write(tmp_path, Dialect.COLLIE.patch(1) + Dialect.DOG.ending)

    async with open_backup(file, dialect=Dialect.COLLIE) as reader:
        with pytest.raises(BackupDamaged, match=r"at offset 24: expected a length in sectors from 1 to .*, got 0"):
            await found_in(reader)
