"""Says what to type or do next after an error: the only place that knows which option mends what."""

from __future__ import annotations

import errno
import shlex
from collections.abc import Callable
from typing import Any, Final

from asyncbackup.cli import text
from asyncbackup.errors import (
    AsyncBackupError,
    BackupCompressed,
    BackupIncomplete,
    BackupsMissing,
    BaseMismatch,
    BaseNeeded,
    BaseUnnamed,
    BaseUnproved,
    BaseUnwanted,
    BegunOtherwise,
    ChainBroken,
    ChainGap,
    ChangedMeanwhile,
    ClusterNotReady,
    ContradictsManifest,
    ExtraMissing,
    Fact,
    FactMissing,
    FileNeeded,
    FolderNeeded,
    FormatUnclear,
    HalfApplied,
    HalfReplaced,
    HalfRolled,
    IncrementNeeded,
    LeftUnfinished,
    ManifestMissing,
    MemoryTooSmall,
    NoReplica,
    NotDecrypted,
    NothingToRead,
    NotMergeable,
    NotStored,
    NoWorkers,
    ObjectReadFailed,
    ObjectSizesDiffer,
    ObjectsTooLarge,
    OtherImage,
    OutsideVdi,
    OwnInput,
    PartialDamaged,
    PartlyApplied,
    PatchNeeded,
    PerhapsCreated,
    PieceDoubled,
    PieceForeign,
    PieceGiven,
    PieceMissing,
    PieceNeeded,
    PlacementUnknown,
    PlotsUnavailable,
    ProgramMissing,
    RedundancyUnkeepable,
    Relation,
    ReplicaWritten,
    RequestTimeout,
    ResizeUnproved,
    SampleNeedsBase,
    SchedulerLost,
    SchedulerUnreachable,
    ShardMissing,
    SharedOtherwise,
    SnapshotAmbiguous,
    SnapshotChanged,
    SnapshotExists,
    SnapshotNotTaken,
    StateDamaged,
    TargetBusy,
    TargetExists,
    TargetFull,
    TargetUnfinished,
    TooManyVdis,
    UnfinishedExists,
    Unreachable,
    VdiDiscarded,
    VdiExists,
    VdiInUse,
    WorkerLost,
    WorkersDiffer,
    WorkersSilent,
    WrongSnapshot,
)
from asyncbackup.storage.source import STANDARD_INPUT
from asyncbackup.wire.constants import Result

TOO_MANY_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE})
"""What the system answers when the process, or all processes together, may open no more files."""

MORE_FILES: Final = "raise the limit of open files, for example with `ulimit -n 1024`"

JOIN: Final = "`asyncbackup join` makes the backup of all its pieces"
"""What to do with a piece."""

_EXPORT_ANEW: Final = (
    "to make the image anew, use `export --force`, without --base-image, on a full backup and its increments"
)
_MAKE_FILE: Final = {
    None: "name a file instead",
    "age": "decrypt it to a file first, with `age -d`",
    "zstd": "make a file with a seek table of it first, with `convert --zstd`",
}
_DECRYPT: Final = "name a file with your private key with --identity"
_RIGHT_BASE: Final = "name the right base with --base or --base-image"
_START_NODES: Final = "start the missing nodes"
_CHECK_STATE: Final = "look at the state with `dog cluster info`"

_OF_STATE: Final = {
    Result.WAIT_FOR_FORMAT: "format the cluster with `dog cluster format`",
    Result.WAIT_FOR_JOIN: _START_NODES,
    Result.STARTUP: "try again when the cluster has started",
    Result.SHUTDOWN: "start the cluster again",
    Result.JOIN_FAILED: _CHECK_STATE,
    Result.HALT: _START_NODES,
    Result.KILLED: _CHECK_STATE,
}

_OPTIONS: Final = {
    Fact.FORMAT: "--input-format",
    Fact.OBJECT_SIZE: "--object-size",
    Fact.VDI_SIZE: "--size",
    Fact.VDI_NAME: "--base-vdi",
    Fact.BASE: "--manifest",
}
"""Options that say what no manifest says."""


def _find_why_lost(error: WorkerLost) -> str:
    if isinstance(error.__cause__, OSError) and error.__cause__.errno in TOO_MANY_FILES:
        return MORE_FILES
    return "the system's log may say why, such as that memory ran out; fewer --workers need less of it"


def _reach(error: Unreachable) -> str:
    if isinstance(error.__cause__, OSError) and error.__cause__.errno in TOO_MANY_FILES:
        return MORE_FILES
    return "check the address and the port, and check that a sheep runs there"


def _decompress(error: BackupCompressed) -> str:
    decompress = f"{error.compression} -dc"
    if error.source == STANDARD_INPUT:
        return f"put `{decompress} |` before this command"
    return f"`{decompress} {shlex.quote(error.source)} | asyncbackup … -` reads it"


def _show_file(error: FolderNeeded) -> str:
    return f"`{shlex.join(['asyncbackup', 'info', error.source])}` shows it; name the folder that it is in to list that"


def _finish_replacing(error: HalfReplaced) -> str:
    return f"{shlex.join(['mv', '--', error.source, error.place])} finishes it, as does the next run that writes it"


def _resume_or_discard(error: UnfinishedExists) -> str:
    return f"the interrupted command with --resume goes on with it, if it kept a journal; {_discard(error)}"


def _go_on_or_give_up(error: SharedOtherwise) -> str:
    discard = shlex.join(["asyncbackup", "restore", "--discard", error.vdi])
    return f"to go on, name what it was begun with; `{discard}` gives all shards up"


def _discard_again(error: VdiDiscarded) -> str:
    discard = shlex.join(["asyncbackup", "restore", "--discard", error.vdi])
    return f"when it is gone, begin anew; if the discard was interrupted, `{discard}` removes the rest"


def _discard(error: LeftUnfinished | UnfinishedExists) -> str:
    discard = shlex.join(["asyncbackup", "restore", "--discard", error.vdi])
    return f"`{discard}` removes it, and with the FILEs also its journal"


def _delete(error: PerhapsCreated) -> str:
    delete = shlex.join(["dog", "vdi", "delete", error.vdi])
    return f"look with `asyncbackup vdi list`: if it is there, and nobody else made it, `{delete}` removes it"


def _name_right_one(error: WrongSnapshot) -> str:
    if error.relation is Relation.BASE:
        return _RIGHT_BASE
    if error.can_be_assumed:
        return "if that VDI was made of it, say so with --assume-base"
    return "name the right one with -s, or leave -s out"


def _leave_out_applied(error: PartlyApplied) -> str:
    *earlier, newest = error.applied
    others = " and all before it" if earlier else ""
    return f"leave out {newest}{others}, or name what {error.applied[0]} is the difference to"


def _finish_applying(error: HalfApplied) -> str:
    back = shlex.join(["dog", "vdi", "rollback", error.vdi, "-s"])
    return (
        "to finish, run the interrupted command again, with the same FILEs; "
        f"`{back} TAG` takes the VDI back to snapshot TAG instead"
    )


def _roll_back(error: ReplicaWritten) -> str:
    back = shlex.join(["dog", "vdi", "rollback", error.vdi, "-s"])
    return f"if nobody needs what was written, `{back} TAG` takes the VDI back to that snapshot"


def _catch_up(error: BackupsMissing) -> str:
    if error.is_behind:
        return "name the backups in between as well, oldest first, or a merged one that begins there"
    return "name a backup that is the difference to what the VDI holds, or restore to a new VDI"


def _take_by_hand(error: SnapshotNotTaken) -> str:
    take = shlex.join(["dog", "vdi", "snapshot", error.vdi, "-s", error.tag])
    return f"`{take}` takes it, and nothing will prove what it holds; or delete the VDI and restore it again"


def _make_room(error: TargetFull) -> str | None:
    if error.needed is None:
        return None
    enough = "" if error.enough is None else f", and {text.size(error.enough)} are always enough"
    return f"make room for at least {text.size(error.needed)} more{enough}"


def _fill_gap(error: ChainGap) -> str:
    if error.unread:
        return _DECRYPT
    if error.circle:
        return "bring back a full backup of one of these snapshots"
    return (
        "bring back a backup of what is missing, or name that snapshot with --base, or an image of it with --base-image"
    )


_Advice = str | Callable[[Any], str | None]

_BY_ERROR: Final[dict[type[AsyncBackupError], _Advice]] = {
    Unreachable: _reach,
    RequestTimeout: "check whether the node is stalled, or wait longer with --timeout",
    ClusterNotReady: lambda error: _OF_STATE.get(error.result, _CHECK_STATE),
    LeftUnfinished: _discard,
    PerhapsCreated: _delete,
    ObjectReadFailed: "`dog vdi check` may mend it, and `backup --skip-unreadable` goes without what cannot be read",
    BackupIncomplete: "`restore` and `export` take it with --allow-incomplete; a new full backup may be whole",
    PieceGiven: JOIN,
    PieceNeeded: "name the pieces that `asyncbackup backup --shard` made",
    PieceForeign: "leave it out, or make the piece of the same snapshots, and of as many pieces, again",
    PieceDoubled: "name each piece once",
    PieceMissing: lambda error: (
        f"name all of them; `asyncbackup backup --shard {error.numbers[0]}/{error.count}` makes it"
    ),
    TooManyVdis: "name a VDI exactly: it is found without a list",
    PlotsUnavailable: "install it with `pip install 'asyncbackup[report]'`, or leave --html out",
    ExtraMissing: lambda error: f"install it with `pip install 'asyncbackup[{error.extra}]'`",
    NotDecrypted: lambda error: _DECRYPT if error.lacks_identity else None,
    ProgramMissing: "install it, or leave --against out",
    NothingToRead: "take one, such as with `dog vdi snapshot -s TAG VDI`",
    VdiExists: "restore under another name, or delete that VDI first",
    UnfinishedExists: _resume_or_discard,
    BackupCompressed: _decompress,
    FormatUnclear: "say which with --input-format",
    StateDamaged: "if you know what the image is, remove that file, not the image, and say so with --assume-base",
    ChainGap: _fill_gap,
    NotStored: lambda error: _DECRYPT if error.unread else "`asyncbackup list FOLDER` shows what is there",
    SnapshotAmbiguous: "put one of these names behind FOLDER@",
    ChainBroken: "name backups of one VDI that follow one another, each of them once",
    ManifestMissing: "name the manifests with --manifest, once for each FILE, or vouch for FILEs with --assume-base",
    FactMissing: lambda error: f"say it with {_OPTIONS[error.fact]}",
    ContradictsManifest: lambda error: f"leave {_OPTIONS[error.fact]} out",
    BaseUnnamed: (
        "name the backups before it as well, from the full one on, or that snapshot with --base or an image of it "
        "with --base-image"
    ),
    BaseUnwanted: "leave --base and --base-image out",
    IncrementNeeded: "name the increments after it, or restore it to a new VDI, without --onto",
    BaseUnproved: "if you know that it is, say so with --assume-base",
    BaseMismatch: "check whether that is the right base",
    BaseNeeded: "name that base with --base, or an image of it with --base-image",
    WrongSnapshot: _name_right_one,
    ObjectSizesDiffer: "use a snapshot with objects of the same size, or a full backup",
    SampleNeedsBase: "leave --sample out, or name the whole chain from its full backup on",
    PartlyApplied: _leave_out_applied,
    PlacementUnknown: "leave --all-replicas out; `dog vdi check` compares the copies by itself",
    NotMergeable: "merge them with their full backup, or keep them apart",
    OutsideVdi: "say with --size how large the VDI is",
    MemoryTooSmall: lambda error: (
        f"give it {text.size(error.needed)} with --memory; fewer backups at a time, --workers or --threads need less"
    ),
    PatchNeeded: "use --format dog",
    FileNeeded: lambda error: _MAKE_FILE[error.layer],
    FolderNeeded: _show_file,
    RedundancyUnkeepable: "say with --copies how many copies to keep instead",
    ChangedMeanwhile: "try again",
    VdiDiscarded: _discard_again,
    SnapshotChanged: "use a snapshot that nobody deletes",
    TargetExists: "use another name, or --force to replace it",
    TargetFull: _make_room,
    TargetUnfinished: "the same command with --resume goes on with that, and with --force it begins anew",
    SharedOtherwise: _go_on_or_give_up,
    ShardMissing: lambda error: (
        f"write it with --shard {error.numbers[0]}/{error.count} in place of --join-shards and --take-snapshot"
    ),
    BegunOtherwise: "to go on, name what it was begun with; to begin anew, use --force without --resume",
    PartialDamaged: "to begin anew, use --force without --resume",
    TargetBusy: "wait until that is done, or use another name",
    OwnInput: "use another name",
    HalfReplaced: _finish_replacing,
    HalfApplied: _finish_applying,
    BackupsMissing: _catch_up,
    ReplicaWritten: _roll_back,
    NoReplica: "restore to a new VDI, without --onto, and with --take-snapshot",
    SnapshotExists: "use another tag for --take-snapshot",
    SnapshotNotTaken: _take_by_hand,
    VdiInUse: "wait until that is done, and try again",
    HalfRolled: f"to finish, run the interrupted command again; {_EXPORT_ANEW}",
    OtherImage: _EXPORT_ANEW,
    ObjectsTooLarge: "leave --dask, or --shard, out: one machine restores it",
    WorkerLost: _find_why_lost,
    NoWorkers: lambda error: f"start some with `dask worker {error.address}`",
    WorkersSilent: "end these workers, or start them again, and then this command",
    WorkersDiffer: "install the same versions on all machines, and share the folder of FILE under one path",
    SchedulerUnreachable: "start one with `dask scheduler`, or let this machine do the work with --dask local",
    SchedulerLost: "look at its log, start it and its workers again, and then this command",
    ResizeUnproved: "export a full backup and its increments instead, without --base-image",
}
"""What to do next. The entry of the nearest kind counts: that of an error itself before those of its bases."""


def advice(error: AsyncBackupError) -> str | None:
    """Say what to do next after ``error``; None if the message says it all."""
    found = next((_BY_ERROR[kind] for kind in type(error).__mro__ if kind in _BY_ERROR), None)
    return found(error) if callable(found) else found


def with_advice(error: AsyncBackupError) -> str:
    """Give what ``error`` says, and what to do next."""
    what_next = advice(error)
    return f"{error}; {what_next}" if what_next else str(error)
