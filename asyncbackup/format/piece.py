"""Which piece of a backup a file is, as its manifest says it, sans-IO. ``format/manifest`` has the rest."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Self

from asyncbackup.format.bounds import check_digest, check_number, shown

MAX_PIECES: Final = 4096
"""Pieces of a backup at most. Each costs a connection, a manifest, and a file to open."""


@dataclass(frozen=True, slots=True)
class PieceRange:
    """Which piece of how many it is, and of what. An impossible value is a ValueError that names the field."""

    number: int
    """From 1 on."""
    count: int
    first: int
    """The idx of the first object that lies in its range. A range may have no records, or no objects at all."""
    end: int
    """The idx behind the last object of its range."""
    planned: int
    """How many objects the plan of the whole backup has."""
    plan: str
    """The digest of that plan, in hex."""

    def __post_init__(self) -> None:
        check_number("count", self.count, MAX_PIECES, least=1)
        check_number("number", self.number, self.count, least=1)
        check_number("end", self.end, (1 << 32) - 1)
        check_number("first", self.first, self.end)
        check_number("planned", self.planned, (1 << 32) - 1)
        check_digest("plan", self.plan)
        if self.number == 1 and self.first:
            raise ValueError(f"first: expected 0 for the first piece, got {self.first}")

    def __str__(self) -> str:
        return f"piece {self.number} of {self.count}"

    @property
    def objects(self) -> str:
        """Name its range in words."""
        return f"objects {self.first} to {self.end - 1}" if self.first < self.end else "no objects"

    def check_within(self, object_count: int) -> None:
        """Raise ValueError unless a VDI of so many objects can have this range."""
        check_number("end", self.end, object_count, least=object_count if self.number == self.count else 0)

    def as_dict(self) -> dict[str, Any]:
        """Give the fields as plain values, in the order in which a manifest has them."""
        return asdict(self)

    @classmethod
    def from_fields(cls, found: Any) -> Self:
        """Read the fields of a manifest. Raises ValueError if they are wrong."""
        names = [field.name for field in fields(cls)]
        if not isinstance(found, dict) or list(found) != names:
            raise ValueError(f"piece: expected an object with {', '.join(names)} in this order, got {shown(found)}")
        try:
            return cls(**found)
        except ValueError as error:
            raise ValueError(f"piece.{error}") from error
