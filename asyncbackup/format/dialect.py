"""The two ways to frame the same records. The package's docstring holds the bytes."""

from __future__ import annotations

import struct
from enum import Enum
from typing import Final

from asyncbackup.format.record import END_IDX

VERSION: Final = 1
MAGIC: Final = 0x11921192

_COLLIE_HEADER: Final = struct.Struct("<IIII")
_DOG_HEADER: Final = struct.Struct("<II")
_END_MARKER: Final = struct.pack("<IIII", END_IDX, 0, 0, 0)


class Dialect(Enum):
    """How a backup begins and ends."""

    COLLIE = "collie"
    DOG = "dog"

    @classmethod
    def usual(cls, *, can_patch: bool) -> Dialect:
        """Give the dialect to write if nobody chose one: collie, or dog if the target cannot patch its beginning."""
        return cls.COLLIE if can_patch else cls.DOG

    @property
    def needs_patch(self) -> bool:
        """Whether the first bytes are known only at the end, so that the dialect needs a plain file."""
        return self is Dialect.COLLIE

    @property
    def opening(self) -> bytes:
        """What to write before the first record: zeros that ``patch`` replaces, if the dialect ``needs_patch``."""
        return bytes(_COLLIE_HEADER.size) if self is Dialect.COLLIE else _DOG_HEADER.pack(VERSION, MAGIC)

    @property
    def ending(self) -> bytes:
        """What to write after the last record."""
        return b"" if self is Dialect.COLLIE else _END_MARKER

    def patch(self, records: int) -> bytes:
        """Build what to write over the beginning after all else was written; empty if the dialect needs no patch."""
        return _COLLIE_HEADER.pack(VERSION, MAGIC, records, 0) if self is Dialect.COLLIE else b""
