"""Which snapshot something is of: what tells a base from all others. Pure.

Names and ids of snapshots are used again when one was deleted, in one cluster as in another. The time of creation is
exact to the nanosecond, and the time at which a cluster was formatted tells clusters apart.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identity:
    """A snapshot, or with ``created`` None a working VDI, of one cluster.

    ``vdi_id`` is in hex. ``created`` and ``cluster`` are times in UTC, as manifests write them; ``cluster`` is the time
    at which the cluster was formatted, None where nothing says it.
    """

    vdi: str
    vdi_id: str
    created: str | None
    cluster: str | None
    id: int
    tag: str

    def matches(self, other: Identity) -> bool:
        """Tell whether both are the same snapshot, as far as both say; ids and tags only name it to people."""
        if self.cluster is not None and other.cluster is not None and self.cluster != other.cluster:
            return False
        return (self.vdi, self.vdi_id, self.created) == (other.vdi, other.vdi_id, other.created)

    def __str__(self) -> str:
        """Name it in a message."""
        tag = f" {self.tag!r}" if self.tag else ""
        kind = f"snapshot {self.id}{tag}" if self.created else "the working VDI"
        cluster = f", in the cluster formatted {self.cluster}" if self.cluster else ""
        return f"{kind} of VDI {self.vdi!r} (vdi id {self.vdi_id}, created {self.created or 'not yet'}{cluster})"
