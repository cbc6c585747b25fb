"""Damages files."""

from __future__ import annotations

from pathlib import Path


def flip(path: Path, position: int, bits: int = 1) -> None:
    """Change the ``bits`` of one byte of a file; a negative position counts from its end."""
    data = bytearray(path.read_bytes())
    data[position] ^= bits
    path.write_bytes(data)
