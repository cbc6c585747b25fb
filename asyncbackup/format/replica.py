"""What a restored VDI says about itself in its attributes, sans-IO: sealed lines, as beside an image.

All VDIs and snapshots that ever had a name share its attributes. So the key ends with the id of the VDI that the value
is about, and the value says when that VDI was created, because some clusters use ids again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Self

from asyncbackup.format.identity import Identity, time_text
from asyncbackup.format.sealed import read_digest, read_identity, read_number, read_text, read_time, seal, unseal

MAX_LINE: Final = 65536
"""Bytes of the longest value that an attribute can have."""


def origin_key(vdi_id: int) -> str:
    """Give the key of the attribute that says which snapshot VDI ``vdi_id`` equals."""
    return f"asyncbackup.origin.{vdi_id:x}"


def applying_key(vdi_id: int) -> str:
    """Give the key of the attribute that says which backups are being applied to VDI ``vdi_id``."""
    return f"asyncbackup.applying.{vdi_id:x}"


def discarding_key(vdi_id: int) -> str:
    """Give the key of the attribute that says that VDI ``vdi_id`` is being removed as an unfinished restore."""
    return f"asyncbackup.discarding.{vdi_id:x}"


@dataclass(frozen=True, slots=True)
class Origin:
    """Which snapshot a VDI equals, or did when it was restored.

    ``size`` is that of the snapshot, in bytes. ``created`` is the time at which this VDI was created. ``snapshot`` is
    the time of the snapshot that was taken of the VDI as soon as it was complete: that snapshot never changes. None:
    somebody may have written to the VDI since. ``assumed``: the VDI was made on a base that somebody vouched for. Times
    are as ``asyncbackup.format.identity.time_text`` writes them.
    """

    identity: Identity
    size: int
    created: str
    snapshot: str | None
    assumed: bool

    def of_snapshot(self, snap_ctime: int) -> Origin:
        """Give the origin of the snapshot that was taken at that time, as its inode has the time."""
        return replace(self, snapshot=time_text(snap_ctime))

    def encode(self) -> bytes:
        return seal({"origin": 1} | asdict(self))

    @classmethod
    def decode(cls, line: bytes) -> Self:
        """Read the value of the attribute. Raises ValueError if it is not an origin."""
        return unseal(line, "origin", 1, cls._from_fields)

    @classmethod
    def _from_fields(cls, fields: dict[str, Any]) -> Self:
        return cls(
            read_identity(fields["identity"]),
            read_number(fields["size"]),
            read_time("created", fields["created"]),
            None if fields["snapshot"] is None else read_time("snapshot", fields["snapshot"]),
            fields["assumed"] is True,
        )


@dataclass(frozen=True, slots=True)
class Applying:
    """Which backups are being applied to a VDI, which run does it, and how far it came.

    ``backups`` are the xxh3_128 of their manifests, oldest first. ``created`` is the time at which this VDI was
    created. ``assumed`` says in words what was assumed of the base; None: all was proved. ``snapshot`` is the tag of
    the snapshot that will be taken at the end; None: no snapshot. ``is_complete``: all is written, and only that
    snapshot may be missing. Each run has its own ``run``, and increases ``beat`` as long as it works.
    """

    backups: tuple[str, ...]
    created: str
    assumed: str | None
    snapshot: str | None
    is_complete: bool
    run: str
    beat: int = 0

    def encode(self) -> bytes:
        return seal({"applying": 1} | asdict(self))

    @classmethod
    def decode(cls, line: bytes) -> Self:
        """Read the value of the attribute. Raises ValueError if a run did not write it so."""
        return unseal(line, "applying", 1, cls._from_fields)

    @classmethod
    def _from_fields(cls, fields: dict[str, Any]) -> Self:
        return cls(
            tuple(read_digest(digest) for digest in fields["backups"]),
            read_time("created", fields["created"]),
            None if fields["assumed"] is None else read_text(fields["assumed"]),
            None if fields["snapshot"] is None else read_text(fields["snapshot"]),
            fields["is_complete"] is True,
            read_digest(fields["run"]),
            read_number(fields["beat"]),
        )


@dataclass(frozen=True, slots=True)
class Discarding:
    """A VDI that was not completed is being removed. ``created`` is the time at which this VDI was created."""

    created: str

    def encode(self) -> bytes:
        return seal({"discarding": 1} | asdict(self))

    @classmethod
    def decode(cls, line: bytes) -> Self:
        """Read the value of the attribute. Raises ValueError if a run did not write it so."""
        return unseal(line, "discarding", 1, cls._from_fields)

    @classmethod
    def _from_fields(cls, fields: dict[str, Any]) -> Self:
        return cls(read_time("created", fields["created"]))
