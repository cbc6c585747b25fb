"""What a running backup tells, and what a finished one reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

from asyncbackup.format import Dialect


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the work stands: a value of its own each time, which nothing changes later."""

    objects_done: int
    objects_planned: int | None
    """Objects to go through; None where only the end will tell, as of a pipe, and where bytes are planned."""
    bytes_done: int
    """Bytes so far of what takes the time: read by a backup, written by what replays one, checked by a check."""
    bytes_planned: int | None = None
    is_checking: bool = False
    """Whether this is about proving what is there; if more is to come, the counts begin again then."""


OnProgress = Callable[[Progress], None]
"""Called in the event loop whenever some objects are done; must return soon."""


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
    """Whether it goes through the chain only to prove it, and begins again then."""

    def begin_again(self) -> None:
        """Take note that all is proved, and that the work comes now."""
        self.is_checking, self.objects_done = False, 0

    def progress(self) -> Progress:
        bytes_done = self.bytes_checked if self.is_checking else self.bytes_written
        return Progress(self.objects_done, self.objects_planned, bytes_done, is_checking=self.is_checking)


@dataclass(frozen=True, slots=True)
class Summary:
    """What a backup was made of. Sizes in bytes, times in seconds."""

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
    objects_discarded: int
    """Objects of a working VDI that its guest discarded while it was read: they are zeros in the backup."""
    elapsed_s: float
    requests: int
    retries: int

    def as_dict(self) -> dict[str, object]:
        """Give the fields as plain values, for JSON."""
        return asdict(self) | {"dialect": self.dialect.value}
