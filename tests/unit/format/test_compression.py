from __future__ import annotations

import bz2
import gzip
import lzma

import pytest

from asyncbackup.format import Dialect
from asyncbackup.format.compression import find_compression

ZSTD = b"\x28\xb5\x2f\xfd\x04\x58\x59\x00"
"""The first bytes of what `zstd` 1.5 makes, such as of a short text."""
LZ4 = b"\x04\x22\x4d\x18\x64\x40\xa7\x00"
"""The first bytes of what `lz4` 1.9 makes."""


@pytest.mark.parametrize(
    ("data", "program"),
    [
        (gzip.compress(b"backup", mtime=0), "gzip"),
        (bz2.compress(b"backup"), "bzip2"),
        (lzma.compress(b"backup"), "xz"),
        (ZSTD, "zstd"),
        (LZ4, "lz4"),
    ],
    ids=["gzip", "bzip2", "xz", "zstd", "lz4"],
)
def test_compressed_data_is_known_by_its_beginning(data: bytes, program: str) -> None:
    assert find_compression(data) == find_compression(memoryview(data)[:8]) == program


@pytest.mark.parametrize(
    "data", [bytes(8), b"", b"\x1f", b"BZ", Dialect.COLLIE.patch(1)[:8], Dialect.DOG.opening, b" \x1f\x8b"]
)
def test_other_data_is_not_taken_for_compressed(data: bytes) -> None:
    assert find_compression(data) is None
