"""What a running backup tells, and what a finished one reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

from asyncbackup.format import Dialect


@dataclass(slots=True)
class Progress:
    """Where a backup stands. The same object each time: copy it to keep it."""

    objects_planned: int = 0
    objects_shared: int = 0
    objects_done: int = 0
    """Planned objects that were compared, and written where they differ."""
    objects_read: int = 0
    """Data objects read, each side counted once however large it is."""
    bytes_read: int = 0
    records: int = 0
    bytes_written: int = 0


OnProgress = Callable[[Progress], None]
"""Called in the event loop whenever some objects are done; must return soon."""


@dataclass(slots=True)
class ReplayProgress:
    """Where the way through a chain stands. The same object each time: copy it to keep it."""

    objects_planned: int | None = None
    """Objects to go through, once for each time; None where only the end will tell: of a pipe."""
    objects_done: int = 0
    bytes_written: int = 0


OnReplay = Callable[[ReplayProgress], None]
"""Called in the event loop whenever some objects are done; must return soon."""


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
    elapsed_s: float
    requests: int
    retries: int

    def as_dict(self) -> dict[str, object]:
        """Give the fields as plain values, for JSON."""
        return asdict(self) | {"dialect": self.dialect.value}
