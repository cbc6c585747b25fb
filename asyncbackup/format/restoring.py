"""The journal of a new VDI that is being restored, sans-IO: sealed lines that say how much is written."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from asyncbackup.format.sealed import read_digest, read_number, read_text, seal, unseal

MAX_LINE: Final = 1 << 20
"""Bytes of the longest line: it has 35 for each backup."""


@dataclass(frozen=True, slots=True)
class Restoring:
    """Which backups are being restored to which VDI, and how much is written.

    ``backups`` are the xxh3_128 of their manifests, oldest first. The VDI has the name ``vdi``, an id, and the time
    ``created`` (seconds << 32 | nanoseconds). ``parent`` is the id of the snapshot that it is a clone of; 0: it is not
    a clone. It has ``size`` bytes, and the redundancy that was asked for; zeros mean the cluster's defaults. All
    objects whose index is below ``done`` are in the cluster.
    """

    backups: tuple[str, ...]
    vdi: str
    vdi_id: int
    created: int
    parent: int
    size: int
    copies: int
    copy_policy: int
    done: int

    def encode(self) -> bytes:
        return seal({"restoring": 1} | asdict(self))

    @classmethod
    def decode(cls, line: bytes) -> Self:
        """Read a line of the journal. Raises ValueError if it is not such a line."""
        return unseal(line, "restoring", 1, cls._from_fields)

    @classmethod
    def _from_fields(cls, fields: dict[str, Any]) -> Self:
        return cls(
            tuple(read_digest(digest) for digest in fields["backups"]),
            read_text(fields["vdi"]),
            *(
                read_number(fields[name])
                for name in ("vdi_id", "created", "parent", "size", "copies", "copy_policy", "done")
            ),
        )
