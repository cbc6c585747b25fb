"""Exit codes: those of dog, so that scripts for dog still work, and those of the shell for signals."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from asyncbackup.errors import (
    AsyncBackupError,
    ClusterError,
    ClusterFull,
    FolderNeeded,
    HalfApplied,
    HalfRolled,
    LeftUnfinished,
    ManifestUnplaced,
    NotFound,
    OwnInput,
    PartialDamaged,
    SnapshotExists,
    SnapshotNotTaken,
    SourceUnreadable,
    StoreMisconfigured,
    TargetBusy,
    TargetError,
    TargetExists,
    TargetFull,
    TargetUnfinished,
    VdiExists,
    VdiInUse,
    WorkersDiffer,
    WorkersError,
)


class ExitCode(IntEnum):
    """What a command ends with."""

    OK = 0
    FAILURE = 1
    SYSTEM_FAILURE = 2
    EXISTS = 3
    FULL = 4
    MISSING = 5
    USAGE = 64
    BUG = 70


_BY_ERROR: Final[tuple[tuple[type[AsyncBackupError], ExitCode], ...]] = (
    (TargetExists, ExitCode.EXISTS),
    (TargetBusy, ExitCode.EXISTS),
    (TargetUnfinished, ExitCode.EXISTS),
    (PartialDamaged, ExitCode.FAILURE),
    (ManifestUnplaced, ExitCode.USAGE),
    (OwnInput, ExitCode.FAILURE),
    (FolderNeeded, ExitCode.USAGE),
    (StoreMisconfigured, ExitCode.USAGE),
    (VdiExists, ExitCode.EXISTS),
    (SnapshotExists, ExitCode.EXISTS),
    (VdiInUse, ExitCode.EXISTS),
    (TargetFull, ExitCode.FULL),
    (ClusterFull, ExitCode.FULL),
    (NotFound, ExitCode.MISSING),
    (TargetError, ExitCode.SYSTEM_FAILURE),
    (SourceUnreadable, ExitCode.SYSTEM_FAILURE),
    (ClusterError, ExitCode.SYSTEM_FAILURE),
    (WorkersDiffer, ExitCode.FAILURE),
    (WorkersError, ExitCode.SYSTEM_FAILURE),
)


def exit_code(error: AsyncBackupError) -> ExitCode:
    """Give the exit code for an error, by the first kind in the list that matches."""
    if isinstance(error, HalfRolled | HalfApplied | SnapshotNotTaken) and error.cause is not None:
        return exit_code(error.cause)
    if isinstance(error, LeftUnfinished) and isinstance(error.__cause__, ClusterFull):
        return ExitCode.FULL
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), ExitCode.FAILURE)
