"""The identity of a snapshot, which distinguishes a base from all other snapshots. Pure.

Names and ids of snapshots are used again after one was deleted, and in other clusters. The time of creation is exact to
the nanosecond, and each cluster has its own time of formatting.

Values from outside, from a manifest or a cluster, are checked here: there is no ``Identity`` that no snapshot can have.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from asyncbackup.format.bounds import check_name, check_number, check_time, check_vdi_id

_MAX_SNAPSHOT_ID: Final = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Identity:
    """A snapshot, or with ``created`` None a working VDI, of one cluster.

    ``vdi_id`` is in hex. ``created`` and ``cluster`` are times in UTC, as ``time_text`` writes them; ``cluster`` is the
    time at which the cluster was formatted, None if it is not known. Making one raises ValueError, which names the
    field, for a value that no snapshot can have.
    """

    vdi: str
    vdi_id: str
    created: str | None
    cluster: str | None
    id: int
    tag: str

    def __post_init__(self) -> None:
        check_name("vdi", self.vdi)
        if not self.vdi:
            raise ValueError("vdi: expected a name, got an empty one")
        check_vdi_id("vdi_id", self.vdi_id)
        for name, time in (("created", self.created), ("cluster", self.cluster)):
            if time is not None:
                check_time(name, time)
        check_number("id", self.id, _MAX_SNAPSHOT_ID)
        check_name("tag", self.tag)

    def matches(self, other: Identity) -> bool:
        """Tell whether both are the same snapshot. A cluster that one of them does not say is not compared.

        Snapshot ids and tags are not compared either: they are for people.
        """
        if self.cluster is not None and other.cluster is not None and self.cluster != other.cluster:
            return False
        return (self.vdi, self.vdi_id, self.created) == (other.vdi, other.vdi_id, other.created)

    def __str__(self) -> str:
        """Name the snapshot in a message."""
        tag = f" '{self.tag}'" if self.tag else ""
        kind = f"snapshot {self.id}{tag}" if self.created else "the working VDI"
        cluster = f", in the cluster formatted {self.cluster}" if self.cluster else ""
        return f"{kind} of VDI '{self.vdi}' (vdi id {self.vdi_id}, created {self.created or 'not yet'}{cluster})"


def time_text(time: int) -> str | None:
    """Write an inode's time (seconds << 32 | nanoseconds) in UTC, exact to the nanosecond; None for 0.

    Raises ValueError if there are a thousand million nanoseconds or more.
    """
    if not time:
        return None
    seconds, nanoseconds = time >> 32, time & 0xFFFFFFFF
    if nanoseconds >= 10**9:
        raise ValueError(f"expected less than 10^9 nanoseconds, got {nanoseconds}")
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"
