"""What lies under a chain, and how it is compared with what manifests say of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import xxhash

from asyncbackup import Dialect
from asyncbackup.engine.chain import open_chain
from asyncbackup.engine.compose import Composer
from asyncbackup.engine.source import ZeroObjects
from asyncbackup.errors import BaseMismatch
from asyncbackup.format import RecordHeader
from asyncbackup.format.identity import Identity
from asyncbackup.format.manifest import ManifestEncoder, RecordDigests, Subject
from asyncbackup.storage.publication import manifest_path
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
