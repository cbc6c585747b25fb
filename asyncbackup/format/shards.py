"""What a VDI that several runs restore together says in its attributes, sans-IO: of what it is made, and how far it is.

The keys end with the id of the VDI, and the values say when it was created, as in ``asyncbackup.format.replica``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

from asyncbackup.format.bounds import check_number
from asyncbackup.format.piece import MAX_PIECES
from asyncbackup.format.sealed import read_digest, read_number, read_time, seal, unseal


def shards_key(vdi_id: int) -> str:
    """Give the key of the attribute that says of what VDI ``vdi_id`` is made, in shards."""
    return f"asyncbackup.shards.{vdi_id:x}"


def receipt_key(vdi_id: int, number: int) -> str:
    """Give the key of the attribute that says that one shard of VDI ``vdi_id`` is written."""
    return f"asyncbackup.shard.{vdi_id:x}.{number}"


def beat_key(vdi_id: int, number: int) -> str:
    """Give the key of the attribute that says that a run works on one shard of VDI ``vdi_id``."""
    return f"asyncbackup.beat.{vdi_id:x}.{number}"


@dataclass(frozen=True, slots=True)
class Shards:
    """Of which backups a VDI is made, and in how many shards.

    ``backups`` are the xxh3_128 of their manifests, oldest first. ``created`` is the time at which this VDI was
    created, as ``asyncbackup.format.identity.time_text`` writes it. ``parent`` is the id of the snapshot that it is a
    clone of; 0: it is no clone. Sizes are in bytes. The redundancy is what was asked for; zeros mean the cluster's
    defaults. ``is_named``: the owner table is as it will be at the end. Before that no shard may be written.
    ``is_written``: all shards are, and the snapshot may be taken.
    """

    backups: tuple[str, ...]
    created: str
    parent: int
    size: int
    object_size: int
    copies: int
    copy_policy: int
    count: int
    is_named: bool = False
    is_written: bool = False

    def __post_init__(self) -> None:
        check_number("count", self.count, MAX_PIECES, least=1)

    def encode(self) -> bytes:
        return seal({"shards": 1} | asdict(self))

    @classmethod
    def decode(cls, line: bytes) -> Self:
        """Read the value of the attribute. Raises ValueError if a run did not write it so."""
        return unseal(line, "shards", 1, cls._from_fields)

    @classmethod
    def _from_fields(cls, fields: dict[str, Any]) -> Self:
        names = ("parent", "size", "object_size", "copies", "copy_policy", "count")
        parent, size, object_size, copies, copy_policy, count = (read_number(fields[name]) for name in names)
        backups = tuple(read_digest(digest) for digest in fields["backups"])
        created = read_time("created", fields["created"])
        done = {name: fields[name] is True for name in ("is_named", "is_written")}
        return cls(backups, created, parent, size, object_size, copies, copy_policy, count, **done)


@dataclass(frozen=True, slots=True)
class Receipt:
    """All objects of a shard are in the cluster, those from index ``first`` on, before ``end``.

    ``created`` is the time at which the VDI was created. The run that wrote them wrote ``objects`` objects.
    """

    created: str
    first: int
    end: int
    objects: int
    bytes_written: int

    def encode(self) -> bytes:
        return seal({"shard": 1} | asdict(self))

    @classmethod
    def decode(cls, line: bytes) -> Self:
        """Read the value of the attribute. Raises ValueError if a run did not write it so."""
        return unseal(line, "shard", 1, cls._from_fields)

    @classmethod
    def _from_fields(cls, fields: dict[str, Any]) -> Self:
        names = ("first", "end", "objects", "bytes_written")
        return cls(read_time("created", fields["created"]), *(read_number(fields[name]) for name in names))


@dataclass(frozen=True, slots=True)
class Beat:
    """A run works on a shard. Each run has its own ``run``, and increases ``count`` as long as it works."""

    created: str
    run: str
    count: int

    def encode(self) -> bytes:
        return seal({"beat": 1} | asdict(self))

    @classmethod
    def decode(cls, line: bytes) -> Self:
        """Read the value of the attribute. Raises ValueError if a run did not write it so."""
        return unseal(line, "beat", 1, cls._from_fields)

    @classmethod
    def _from_fields(cls, fields: dict[str, Any]) -> Self:
        return cls(read_time("created", fields["created"]), read_digest(fields["run"]), read_number(fields["count"]))
