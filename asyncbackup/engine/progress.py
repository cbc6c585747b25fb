"""What running work tells of itself, and what a finished backup reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from asyncbackup.format import Dialect
from asyncbackup.format.piece import PieceRange


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the work has come. Each time it is a new value, which does not change later."""

    objects_done: int
    objects_planned: int | None
    """Objects to go through. None where only the end tells it, as of a pipe, and where bytes are planned."""
    bytes_done: int
    """Bytes so far: those that a backup reads, that a replay writes, or that a check reads."""
    bytes_planned: int | None = None
    is_checking: bool = False
    """Whether the work checks what is there. If other work follows, the counts begin again with it."""


OnProgress = Callable[[Progress], None]
"""Is called in the event loop whenever some objects are done. It must return soon."""


@dataclass(slots=True)
class BackupCounts:
    """What a backup has done so far."""

    objects_planned: int = 0
    objects_shared: int = 0
    objects_done: int = 0
    """Planned objects that were compared, and written where they differ."""
    objects_read: int = 0
    """Data objects read, each side counted once however large it is."""
    bytes_read: int = 0
    objects_discarded: int = 0
    """Objects of a working VDI that its guest discarded while it was read: they are zeros in the backup."""
    bases_unreadable: int = 0
    """Objects that were written whole, because what the base has of them could not be read."""
    compare_s: float = 0.0
    """Seconds in which data was compared."""

    def add(self, other: BackupCounts) -> None:
        """Take over what another process did of what was planned here."""
        self.objects_done += other.objects_done
        self.objects_read += other.objects_read
        self.bytes_read += other.bytes_read
        self.objects_discarded += other.objects_discarded
        self.bases_unreadable += other.bases_unreadable
        self.compare_s += other.compare_s

    def progress(self) -> Progress:
        return Progress(self.objects_done, self.objects_planned, self.bytes_read)


@dataclass(slots=True)
class ReplayCounts:
    """What a way through a chain has done so far."""

    objects_planned: int | None = None
    objects_done: int = 0
    bytes_checked: int = 0
    bytes_written: int = 0
    is_checking: bool = False
    """Whether it goes through the chain only to prove it, and will go through it again."""

    def begin_again(self) -> None:
        """Take note that all is proved, and that the work itself begins now."""
        self.is_checking, self.objects_done = False, 0

    def progress(self) -> Progress:
        bytes_done = self.bytes_checked if self.is_checking else self.bytes_written
        return Progress(self.objects_done, self.objects_planned, bytes_done, is_checking=self.is_checking)


@dataclass(frozen=True, slots=True)
class DeltaSummary:
    """What another backup of the same pass came to. Sizes are in bytes. The fields are those of Summary."""

    file: str
    base: str | None
    dialect: Dialect
    records: int
    bytes_written: int
    bytes_resumed: int
    missing: Sequence[int]

    def as_dict(self) -> dict[str, object]:
        """Give the fields as plain values, for JSON."""
        return asdict(self) | {"dialect": self.dialect.value, "missing": list(self.missing)}


@dataclass(frozen=True, slots=True)
class Summary:
    """What a backup did. Sizes are in bytes, times in seconds."""

    vdi: str
    snapshot: str | None
    """As it was named; None: the working VDI."""
    base: str | None
    """As it was named; None: a full backup."""
    dialect: Dialect
    objects_planned: int
    objects_shared: int
    objects_done: int
    objects_read: int
    bytes_read: int
    records: int
    bytes_written: int
    """Of the file, with those that an interrupted run had written."""
    bytes_resumed: int
    """What an interrupted run had written of it, and this one went on with."""
    objects_discarded: int
    """Objects of a working VDI that its guest discarded while it was read: they are zeros in the backup."""
    bases_unreadable: int
    """Objects that were written whole, because what the base has of them could not be read."""
    missing: Sequence[int]
    """The idx of each object that was left out, because it could not be read."""
    also: Sequence[DeltaSummary]
    """The other backups that were made in the same pass."""
    elapsed_s: float
    plan_s: float
    """Until it was known what to read."""
    read_s: float
    """From then on until the last byte was read, and written. The next three lie in it, and overlap with the reads."""
    compare_s: float
    digest_s: float
    write_s: float
    """Waiting for the target, without the digests that are taken there."""
    sync_s: float
    """From then on until the backup was on disk, under its name."""
    requests: int
    retries: int
    retry_causes: dict[str, int]
    """Why requests were sent again, and how often."""
    hedges: int
    """Requests that were sent to a second node, because the first one took long."""
    most_in_flight: int
    """Bytes that were under way to the cluster at a time, at most."""
    latencies_s: Mapping[str, float]
    """Seconds within which so many per cent of the requests were answered; nothing if there was none."""
    piece: PieceRange | None = None
    """Which piece of the backup it is; None: all of it."""

    def as_dict(self) -> dict[str, object]:
        """Give the fields as plain values, for JSON."""
        return asdict(self) | {
            "dialect": self.dialect.value,
            "missing": list(self.missing),
            "also": [each.as_dict() for each in self.also],
        }
