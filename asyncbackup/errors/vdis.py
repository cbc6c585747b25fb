"""VDIs and snapshots that exist already, that others use or change, or that are not complete."""

from __future__ import annotations

from asyncbackup.errors.root import AsyncBackupError


class VdiExists(AsyncBackupError):
    """The cluster has a VDI named ``vdi`` already."""

    def __init__(self, vdi: str) -> None:
        super().__init__(f"a VDI named '{vdi}' exists already")
        self.vdi = vdi


class UnfinishedExists(VdiExists):
    """An unfinished restore left the VDI named ``vdi``, or still makes it."""

    def __init__(self, vdi: str) -> None:
        AsyncBackupError.__init__(
            self, f"a VDI named '{vdi}' exists already: an unfinished restore left it, or is still making it"
        )
        self.vdi = vdi


class HalfApplied(AsyncBackupError):
    """Applying backups to ``vdi`` was begun and not finished, as the attributes of the VDI say.

    ``cause`` is the error that ended it; None if that was in another run.
    """

    def __init__(self, vdi: str, cause: AsyncBackupError | None = None) -> None:
        why = "applying backups to it was interrupted, or still goes on" if cause is None else str(cause)
        super().__init__(f"VDI '{vdi}' is half written: {why}")
        self.vdi = vdi
        self.cause = cause


class VdiInUse(AsyncBackupError):
    """Somebody else uses ``vdi``, as ``reason`` says, so nothing is written to it."""

    def __init__(self, vdi: str, reason: str) -> None:
        super().__init__(f"VDI '{vdi}' is in use: {reason}")
        self.vdi = vdi
        self.reason = reason


class SnapshotExists(AsyncBackupError):
    """There is a snapshot of ``vdi`` with this ``tag`` already."""

    def __init__(self, vdi: str, tag: str) -> None:
        super().__init__(f"VDI '{vdi}' has a snapshot '{tag}' already")
        self.vdi = vdi
        self.tag = tag


class SnapshotNotTaken(AsyncBackupError):
    """``vdi`` is restored, and its snapshot ``tag`` could not be taken because of ``cause``."""

    def __init__(self, vdi: str, tag: str, cause: AsyncBackupError) -> None:
        super().__init__(f"VDI '{vdi}' is complete, but its snapshot '{tag}' was not taken: {cause}")
        self.vdi = vdi
        self.tag = tag
        self.cause = cause


class NotDiscarded(AsyncBackupError):
    """``vdi`` was not removed; ``reason`` says why."""

    def __init__(self, vdi: str, reason: str) -> None:
        super().__init__(f"VDI '{vdi}' was not removed: {reason}")
        self.vdi = vdi
        self.reason = reason


class ChangedMeanwhile(AsyncBackupError):
    """Somebody else changed ``name`` while it was in use; ``sign`` says how that was noticed."""

    def __init__(self, name: str, sign: str) -> None:
        super().__init__(f"{name} was changed by somebody else meanwhile: {sign}")
        self.name = name
        self.sign = sign


class VdiDiscarded(ChangedMeanwhile):
    """``vdi`` was being restored, and is being removed, or was when the run that removed it was interrupted."""

    def __init__(self, vdi: str) -> None:
        super().__init__(f"VDI '{vdi}'", "a discard removes it, or began to")
        self.vdi = vdi


class SnapshotChanged(ChangedMeanwhile):
    """``snapshot`` (in words) was being deleted, so not all of it was read; ``sign`` says how that was noticed."""

    def __init__(self, snapshot: str, sign: str) -> None:
        AsyncBackupError.__init__(self, f"{snapshot} was being deleted while it was read: {sign}")
        self.name = snapshot
        self.sign = sign
