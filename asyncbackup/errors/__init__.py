"""Everything this package raises on purpose.

::

    AsyncBackupError
    ├── ClusterError                 the cluster cannot serve us
    │   ├── Unreachable              nothing answers at an address
    │   ├── ConnectionLost           a connection ended under a request
    │   ├── RequestTimeout           a request got no answer in time
    │   ├── ProtocolViolation        an answer that no sheep gives
    │   ├── ClusterNotReady          the cluster says that it does not serve now
    │   └── LeftUnfinished           a restore failed, and removing its VDI did too
    │       └── PerhapsCreated       … or nobody knows whether there is a VDI to remove
    ├── RequestFailed                the cluster answered with an error result
    │   ├── ClusterFull              … because it has no space left
    │   └── ObjectReadFailed         … to the read of a data object
    │       └── ObjectsUnreadable    … or of several
    ├── NotFound
    │   ├── VdiNotFound
    │   ├── SnapshotNotFound
    │   ├── SourceMissing            no such file
    │   ├── ProgramMissing           no such program
    │   ├── NothingToRead            a cluster without any snapshot
    │   ├── BackupMissing            a manifest was named, and its backup was not
    │   ├── NotStored                a folder that has no backup of what is wanted
    │   └── ShardMissing             a restore in shards, of which some are not written
    ├── VdiExists                    a restore makes a new VDI, and this name is taken
    │   └── UnfinishedExists         … by what an unfinished restore left
    ├── SnapshotExists               a snapshot was to be taken, and its tag is taken
    ├── SnapshotNotTaken             a restore is complete, but not the snapshot of it
    ├── VdiInUse                     somebody else uses the VDI that was to be written to
    ├── HalfApplied                  a VDI that backups were not applied to completely
    ├── NotDiscarded                 a VDI that is no unfinished restore, or that a restore still makes
    ├── SourceError                  what is read
    │   ├── SourceUnreadable         a file that cannot be read
    │   ├── BackupDamaged            bytes that are no backup, or no manifest
    │   │   ├── FormatUnclear        … or that begin as more than one format does
    │   │   ├── BackupCompressed     … or that a program compressed
    │   │   └── StateDamaged         … or that should say what an image is
    │   ├── NotDecrypted             an encrypted file that the keys at hand do not open
    │   ├── DigestMismatch           data that is not what the manifest says it was
    │   ├── BaseMismatch             the base does not hold what a backup was made against
    │   ├── BaseNeeded               data of the base is needed, and none was named
    │   ├── ManifestMissing          no manifest where one is needed to prove something
    │   └── ResultsDamaged           something else than results of a benchmark
    ├── ChainBroken                  files that do not follow one another
    │   └── ChainGap                 … because one is missing in a folder
    ├── ProgramFailed                another program that was run failed
    ├── PlotsUnavailable             the library that draws is not installed
    ├── ExtraMissing                 a library that only some need is not installed
    ├── Incompatible                 what was asked for cannot be done so
    │   ├── BackupIncomplete         a backup that lacks objects, where a whole one is wanted
    │   ├── SnapshotAmbiguous        a name that several snapshots have
    │   ├── PieceGiven               a piece of a backup, where a whole one is wanted
    │   ├── PieceNeeded              something else, where a piece of a backup is wanted
    │   ├── PieceForeign             a piece of another backup than the others, or cut otherwise
    │   ├── PieceDoubled             a piece that was given twice
    │   ├── PieceMissing             pieces that do not make a backup without others
    │   ├── FactMissing              something that neither a manifest nor the caller says
    │   ├── BaseUnnamed              increments, and no base was named
    │   ├── BaseUnwanted             a full backup, and a base was named
    │   ├── IncrementNeeded          a full backup where something is to be applied to a VDI
    │   ├── BaseUnproved             a base that nothing proves to be the one that is needed
    │   ├── WrongSnapshot            a base, or what is compared, that is not what the backup says
    │   ├── ObjectSizesDiffer        two things whose objects differ in size
    │   ├── ResizeUnproved           an image whose size would change, and nothing proves that it should
    │   ├── ContradictsManifest      the caller says one thing, and the manifest another
    │   ├── FileNeeded               a pipe, or an encrypted file, where something is read twice
    │   ├── FolderNeeded             a file, where a folder of backups is wanted
    │   ├── HyperVolume              a hyper volume where none can be
    │   ├── PlacementUnknown         replicas were asked for, and nobody knows where they are
    │   ├── NotMergeable             backups that no single backup can replace
    │   ├── VdiUnmakeable            a VDI that no cluster, or not this one, can make
    │   ├── SampleNeedsBase          a sample to audit, and no base to compare it with
    │   ├── AlreadyApplied           an image that has all that was to be applied
    │   │   └── HeldAlready          … or a VDI
    │   ├── BackupsMissing           a VDI that is not yet what the backups are applied to
    │   ├── NoReplica                a VDI that nothing can be applied to
    │   ├── ReplicaWritten           a VDI that somebody wrote to since it was restored
    │   ├── PartlyApplied            a base that has some of it
    │   ├── OutsideVdi               an object of a backup that lies beyond the VDI's size
    │   ├── BegunOtherwise            an unfinished backup that is of something else
    │   │   └── SharedOtherwise      … or a VDI that others restore together
    │   ├── MemoryTooSmall           less memory than a step of the work needs
    │   ├── ObjectsTooLarge          objects that several machines cannot write
    │   ├── PatchNeeded               a format that needs a plain file
    │   ├── KeyUnusable               a key that cannot encrypt, or decrypt
    │   ├── StoreMisconfigured        options that make no object store that can be used
    │   └── RedundancyUnkeepable     copies or erasure coding that the cluster cannot keep
    ├── ChangedMeanwhile             somebody else changed what was in use
    │   ├── VdiDiscarded             … by discarding what was restored
    │   └── SnapshotChanged          … by deleting a snapshot while it was read
    ├── WorkersError                 others that should do part of the work
    │   ├── WorkerLost               … of which one ended again and again
    │   ├── NoWorkers                … of which there is none
    │   ├── WorkersSilent            … which are there, and do not answer
    │   ├── WorkersDiffer            … and are not as this machine is
    │   ├── SchedulerUnreachable     … and nobody who would hand it out answers
    │   └── SchedulerLost            … and who handed it out is gone
    │       └── SchedulerSilent      … or is there, and does not answer
    ├── InodeCorrupt                 metadata of a VDI that contradicts itself
    ├── TooManyVdis                  a cluster claims more VDIs than can be listed
    └── TargetError                  where the bytes should go
        ├── TargetExists
        ├── TargetBusy               somebody else is writing it
        ├── TargetUnfinished         an interrupted run left it, to be gone on with
        ├── NotResumable             a target of which nothing is ever kept
        ├── PartialDamaged           an unfinished backup that does not say what it is of
        ├── OwnInput                 it is also an input
        ├── ManifestUnplaced         a manifest that does not go beside its file
        ├── TargetUnusable
        ├── TargetFull
        ├── TargetWriteFailed
        ├── HalfReplaced             a file and its manifest of which only one is new
        ├── HalfRolled               an image that backups were not applied to completely
        └── OtherImage               an image that is not the one that backups were being applied to

An error is named by its meaning and carries the facts as fields; the message says what was expected and what came.
Names from outside stand in it unchanged, between quotes; whoever prints the message escapes them once. What to do next,
and exit codes, belong to ``asyncbackup.cli``: no message here names an option of the command line.

A new error goes into the tree, and into the module of its parent. Only two parents have kinds in several modules, by
what the kinds are about. Those of AsyncBackupError: ``cluster``, ``missing``, ``vdis``, ``sources``, ``chains``,
``programs``, ``workers``, ``targets``. Those of Incompatible: ``pieces``, ``chains``, ``applying``, and for all others
``incompatible``. ``root``, ``wording`` and ``groups`` have what errors share. All other packages import from here.
"""

from asyncbackup.errors.applying import (
    AlreadyApplied,
    BackupsMissing,
    HeldAlready,
    NoReplica,
    OutsideVdi,
    PartlyApplied,
    ReplicaWritten,
    ResizeUnproved,
)
from asyncbackup.errors.chains import (
    BaseUnnamed,
    BaseUnproved,
    BaseUnwanted,
    ChainBroken,
    ChainGap,
    IncrementNeeded,
    NotMergeable,
    Relation,
    SampleNeedsBase,
    WrongSnapshot,
)
from asyncbackup.errors.cluster import (
    ClusterError,
    ClusterFull,
    ClusterNotReady,
    ConnectionLost,
    InodeCorrupt,
    LeftUnfinished,
    ObjectReadFailed,
    ObjectsUnreadable,
    PerhapsCreated,
    ProtocolViolation,
    RequestFailed,
    RequestTimeout,
    TooManyVdis,
    Unreachable,
)
from asyncbackup.errors.groups import first_error, single_error
from asyncbackup.errors.incompatible import (
    BackupIncomplete,
    BegunOtherwise,
    ContradictsManifest,
    Fact,
    FactMissing,
    FileNeeded,
    FolderNeeded,
    HyperVolume,
    Incompatible,
    KeyUnusable,
    MemoryTooSmall,
    ObjectSizesDiffer,
    ObjectsTooLarge,
    PatchNeeded,
    PlacementUnknown,
    RedundancyUnkeepable,
    SharedOtherwise,
    SnapshotAmbiguous,
    StoreMisconfigured,
    VdiUnmakeable,
)
from asyncbackup.errors.missing import (
    BackupMissing,
    NotFound,
    NothingToRead,
    NotStored,
    ProgramMissing,
    ShardMissing,
    SnapshotNotFound,
    SourceMissing,
    VdiNotFound,
)
from asyncbackup.errors.pieces import PieceDoubled, PieceForeign, PieceGiven, PieceMissing, PieceNeeded
from asyncbackup.errors.programs import ExtraMissing, PlotsUnavailable, ProgramFailed
from asyncbackup.errors.root import AsyncBackupError
from asyncbackup.errors.sources import (
    BackupCompressed,
    BackupDamaged,
    BaseMismatch,
    BaseNeeded,
    DigestMismatch,
    FormatUnclear,
    ManifestMissing,
    NotDecrypted,
    ResultsDamaged,
    SourceError,
    SourceUnreadable,
    StateDamaged,
)
from asyncbackup.errors.targets import (
    HalfReplaced,
    HalfRolled,
    ManifestUnplaced,
    NotResumable,
    OtherImage,
    OwnInput,
    PartialDamaged,
    TargetBusy,
    TargetError,
    TargetExists,
    TargetFull,
    TargetUnfinished,
    TargetUnusable,
    TargetWriteFailed,
)
from asyncbackup.errors.vdis import (
    ChangedMeanwhile,
    HalfApplied,
    NotDiscarded,
    SnapshotChanged,
    SnapshotExists,
    SnapshotNotTaken,
    UnfinishedExists,
    VdiDiscarded,
    VdiExists,
    VdiInUse,
)
from asyncbackup.errors.wording import list_indices, name_snapshot
from asyncbackup.errors.workers import (
    NoWorkers,
    SchedulerLost,
    SchedulerSilent,
    SchedulerUnreachable,
    WorkerLost,
    WorkersDiffer,
    WorkersError,
    WorkersSilent,
)

__all__ = [
    "AlreadyApplied",
    "AsyncBackupError",
    "BackupCompressed",
    "BackupDamaged",
    "BackupIncomplete",
    "BackupMissing",
    "BackupsMissing",
    "BaseMismatch",
    "BaseNeeded",
    "BaseUnnamed",
    "BaseUnproved",
    "BaseUnwanted",
    "BegunOtherwise",
    "ChainBroken",
    "ChainGap",
    "ChangedMeanwhile",
    "ClusterError",
    "ClusterFull",
    "ClusterNotReady",
    "ConnectionLost",
    "ContradictsManifest",
    "DigestMismatch",
    "ExtraMissing",
    "Fact",
    "FactMissing",
    "FileNeeded",
    "FolderNeeded",
    "FormatUnclear",
    "HalfApplied",
    "HalfReplaced",
    "HalfRolled",
    "HeldAlready",
    "HyperVolume",
    "Incompatible",
    "IncrementNeeded",
    "InodeCorrupt",
    "KeyUnusable",
    "LeftUnfinished",
    "ManifestMissing",
    "ManifestUnplaced",
    "MemoryTooSmall",
    "NoReplica",
    "NoWorkers",
    "NotDecrypted",
    "NotDiscarded",
    "NotFound",
    "NotMergeable",
    "NotResumable",
    "NotStored",
    "NothingToRead",
    "ObjectReadFailed",
    "ObjectSizesDiffer",
    "ObjectsTooLarge",
    "ObjectsUnreadable",
    "OtherImage",
    "OutsideVdi",
    "OwnInput",
    "PartialDamaged",
    "PartlyApplied",
    "PatchNeeded",
    "PerhapsCreated",
    "PieceDoubled",
    "PieceForeign",
    "PieceGiven",
    "PieceMissing",
    "PieceNeeded",
    "PlacementUnknown",
    "PlotsUnavailable",
    "ProgramFailed",
    "ProgramMissing",
    "ProtocolViolation",
    "RedundancyUnkeepable",
    "Relation",
    "ReplicaWritten",
    "RequestFailed",
    "RequestTimeout",
    "ResizeUnproved",
    "ResultsDamaged",
    "SampleNeedsBase",
    "SchedulerLost",
    "SchedulerSilent",
    "SchedulerUnreachable",
    "ShardMissing",
    "SharedOtherwise",
    "SnapshotAmbiguous",
    "SnapshotChanged",
    "SnapshotExists",
    "SnapshotNotFound",
    "SnapshotNotTaken",
    "SourceError",
    "SourceMissing",
    "SourceUnreadable",
    "StateDamaged",
    "StoreMisconfigured",
    "TargetBusy",
    "TargetError",
    "TargetExists",
    "TargetFull",
    "TargetUnfinished",
    "TargetUnusable",
    "TargetWriteFailed",
    "TooManyVdis",
    "UnfinishedExists",
    "Unreachable",
    "VdiDiscarded",
    "VdiExists",
    "VdiInUse",
    "VdiNotFound",
    "VdiUnmakeable",
    "WorkerLost",
    "WorkersDiffer",
    "WorkersError",
    "WorkersSilent",
    "WrongSnapshot",
    "first_error",
    "list_indices",
    "name_snapshot",
    "single_error",
]
