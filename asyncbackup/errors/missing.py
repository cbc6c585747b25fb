"""What was named, and is not there."""

from __future__ import annotations

from collections.abc import Sequence

from asyncbackup.errors.root import AsyncBackupError
from asyncbackup.errors.wording import list_indices, list_names, name_snapshot, name_unread


class NotFound(AsyncBackupError):
    """Something was named that the cluster does not have."""


class VdiNotFound(NotFound):
    """There is no VDI of this name. ``existing`` names others, newest first: all of them only if ``complete``."""

    def __init__(self, vdi: str, existing: Sequence[str], *, complete: bool = True) -> None:
        nothing = "the cluster holds no VDI" if complete else "only a few were looked at, and all of those are damaged"
        super().__init__(f"no VDI named '{vdi}'; {list_names('VDIs are', existing, nothing, complete=complete)}")
        self.vdi = vdi
        self.existing = tuple(existing)


class SnapshotNotFound(NotFound):
    """The VDI exists, but the snapshot does not.

    ``existing`` describes the snapshots that there are, newest first: all of them only if ``complete``.
    """

    def __init__(self, vdi: str, snapshot: int | str, existing: Sequence[str], *, complete: bool = True) -> None:
        nothing = "it has no snapshot" if complete else "only a few were looked at, and all of those are damaged"
        listed = list_names("snapshots are", existing, nothing, complete=complete)
        super().__init__(f"VDI '{vdi}' has no snapshot {name_snapshot(snapshot)}; {listed}")
        self.vdi = vdi
        self.snapshot = snapshot
        self.existing = tuple(existing)


class SourceMissing(NotFound):
    """There is no file ``source``."""

    def __init__(self, source: str) -> None:
        super().__init__(f"{source}: no such file")
        self.source = source


class ProgramMissing(NotFound):
    """There is no ``program`` on PATH."""

    def __init__(self, program: str) -> None:
        super().__init__(f"no {program} on PATH")
        self.program = program


class NothingToRead(NotFound):
    """No VDI of the cluster has a snapshot that could be read."""

    def __init__(self) -> None:
        super().__init__("no VDI of this cluster has a snapshot with data")


class BackupMissing(NotFound):
    """``manifest`` was named, but not the ``backup`` that it proves."""

    def __init__(self, manifest: str, backup: str, *, is_there: bool) -> None:
        where = "which is there, but was not named" if is_there else "which is missing"
        super().__init__(f"{manifest} is the manifest of the backup {backup}, {where}")
        self.manifest = manifest
        self.backup = backup


class NotStored(NotFound):
    """``folder`` has no backup of ``wanted`` (in words). ``existing`` names what it has backups of, the newest first.

    ``unread`` is how many of its backups could not be decrypted, so that nobody knows what they are of.
    """

    def __init__(self, folder: str, wanted: str, existing: Sequence[str], unread: int = 0) -> None:
        listed = list_names("it has", existing, "it has none whose manifest could be read", complete=True)
        super().__init__(f"{folder} has no backup of {wanted}; {listed}{name_unread(unread)}")
        self.folder = folder
        self.wanted = wanted
        self.existing = tuple(existing)
        self.unread = unread


class ShardMissing(NotFound):
    """Of the ``count`` shards that VDI ``vdi`` is restored in, those with ``numbers`` are not written completely."""

    def __init__(self, vdi: str, numbers: Sequence[int], count: int) -> None:
        noun, verb = ("shard", "is") if len(numbers) == 1 else ("shards", "are")
        super().__init__(f"VDI '{vdi}': {noun} {list_indices(numbers)} of {count} {verb} missing, or not complete")
        self.vdi = vdi
        self.numbers = tuple(numbers)
        self.count = count
