"""Recognises compressed data by its first bytes. Pure; it decompresses nothing."""

from __future__ import annotations

from typing import Final

_MAGIC: Final = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\0": "xz",
    b"BZh": "bzip2",
    b"\x04\x22\x4d\x18": "lz4",
}
"""No backup begins with these bytes: its first four bytes are the version, which is 1."""


def find_compression(beginning: bytes | memoryview) -> str | None:
    """Name the program whose output begins with ``beginning``, at least 8 bytes; None if none is known."""
    return next((name for magic, name in _MAGIC.items() if bytes(beginning[: len(magic)]) == magic), None)
