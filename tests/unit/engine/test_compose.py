"""What lies under a chain, and how it is compared with what manifests say of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import xxhash

from asyncbackup import ChainOptions, Dialect
from asyncbackup.engine.chain import open_chain
from asyncbackup.engine.compose import Composer
from asyncbackup.engine.source import ZeroObjects
from asyncbackup.errors import BackupDamaged, BaseMismatch, DigestMismatch
from asyncbackup.format import RecordHeader
from asyncbackup.format.identity import Identity
from asyncbackup.format.manifest import ManifestEncoder, RecordDigests, Subject
from asyncbackup.storage.publication import manifest_path
from tests.damage import flip
from tests.disks import noise

LENGTH = (4 << 20) + 512
"""More than is compared at a time, and no multiple of it."""


def write(folder: Path, base: bytes) -> Path:
    """Write a full backup of one record over ``base``, with a manifest that says so, as those of version 1 do."""
    data, header = noise(1, LENGTH), RecordHeader(0, 0, LENGTH)
    content = Dialect.COLLIE.patch(1) + header.encode() + data
    identity = Identity("disk", "abcdef", "2026-11-22T20:00:00.000000000Z", None, 1, "a")
    encoder = ManifestEncoder()
    digests = [xxhash.xxh3_128_hexdigest(each) for each in (data, base)]
    lines = [
        encoder.opening(Subject(8 << 20, 8 << 20, 1, 0, Dialect.COLLIE, identity, None, None)),
        encoder.record(RecordDigests(header, digests[0], digests[1])),
        encoder.ending(len(content)),
    ]
    file = folder / "file"
    file.write_bytes(content)
    manifest_path(file).write_bytes(b"".join(lines))
    return file


async def compose(file: Path) -> bytes:
    async with open_chain([file]) as chain:
        into = memoryview(bytearray(LENGTH))
        async for group in chain.groups():
            await Composer(ZeroObjects()).compose_checked(group, into)
        return bytes(into)


async def test_a_long_record_goes_on_zeros_of_its_length(tmp_path: Path) -> None:
    assert await compose(write(tmp_path, bytes(LENGTH))) == noise(1, LENGTH)


async def test_a_long_record_goes_on_nothing_but_zeros(tmp_path: Path) -> None:
    with pytest.raises(BaseMismatch):
        await compose(write(tmp_path, bytes(LENGTH - 1) + b"x"))


async def test_an_object_without_digests_is_not_read_to_be_checked(tmp_path: Path) -> None:
    file = write(tmp_path, bytes(LENGTH))
    manifest_path(file).unlink()

    async with open_chain([file], ChainOptions(object_size=8 << 20)) as chain:
        async for group in chain.groups():
            # The file is shorter than its header says by now: reading it would fail.
            file.write_bytes(file.read_bytes()[: 4 << 20])
            await Composer(ZeroObjects()).check(group, memoryview(bytearray(1 << 20)))
            with pytest.raises(BackupDamaged):
                await Composer(ZeroObjects()).compose(group, 0, memoryview(bytearray(LENGTH)))


async def test_an_object_larger_than_the_buffer_is_checked_piece_by_piece(tmp_path: Path) -> None:
    file, piece = write(tmp_path, bytes(LENGTH)), memoryview(bytearray(1 << 20))

    async def check() -> None:
        async with open_chain([file]) as chain:
            async for group in chain.groups():
                await Composer(ZeroObjects()).check(group, piece)

    await check()
    flip(file, 32 + LENGTH - 1)
    with pytest.raises(DigestMismatch):
        await check()
