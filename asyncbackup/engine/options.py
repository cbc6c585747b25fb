"""What the engine can be told, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from asyncbackup.engine.compact import MAX_LENGTH
from asyncbackup.format import Dialect

MIN_MEMORY: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class BackupOptions:
    """How to make a backup."""

    dialect: Dialect = Dialect.COLLIE
    in_flight: int = 4
    """Data objects (pieces of large ones) being fetched, compared or written at a time.

    More keep no server busier, and their buffers fall out of the processor's cache before they are compared.
    """
    memory: int = 128 << 20
    """Bytes of buffers for them, at most."""

    def __post_init__(self) -> None:
        if self.in_flight < 1:
            raise ValueError(f"expected at least 1 object in flight, got {self.in_flight}")
        if self.memory < MIN_MEMORY:
            raise ValueError(f"expected at least {MIN_MEMORY} bytes of memory, got {self.memory}")

    def piece_size(self, object_size: int) -> int:
        """Give the bytes to read at a time: a whole object, or a power of two of which memory holds two pairs."""
        fitting = 1 << (self.memory // 4).bit_length() - 1
        return min(object_size, MAX_LENGTH, fitting)

    def slots(self, piece_size: int) -> int:
        """Give how many pairs of pieces are in the window."""
        return min(self.in_flight, self.memory // (2 * piece_size))
