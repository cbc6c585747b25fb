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
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, Final


class AsyncBackupError(Exception):
    """The root: catching it catches every expected failure of this package."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Take message and fields to another process, whatever arguments the class is made with."""
        return _make_again, (type(self), self.args, self.__dict__)


def _make_again(kind: type[AsyncBackupError], args: tuple[Any, ...], fields: dict[str, Any]) -> AsyncBackupError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(fields)
    return error


class WorkersError(AsyncBackupError):
    """Processes, here or on other machines, that should do part of the work, or the way to them, are at fault."""


class WorkerLost(WorkersError):
    """A process that did part of the work, ``part`` in words, ended again and again, or did not start.

    ``reason`` is what the system said, if it said something.
    """

    def __init__(self, part: str, times: int, reason: str | None = None) -> None:
        what = f"the process for {part} ended {times} times before it was done"
        super().__init__(f"{what}: {reason}" if reason else what)
        self.part = part


class NoWorkers(WorkersError):
    """The scheduler at ``address`` has no workers, and none came."""

    def __init__(self, address: str) -> None:
        super().__init__(f"the scheduler at {address} has no workers")
        self.address = address


class WorkersSilent(WorkersError):
    """These ``workers`` are known to the scheduler, and did not answer within ``timeout_s``."""

    def __init__(self, workers: Sequence[str], timeout_s: float) -> None:
        super().__init__(f"{', '.join(workers)} did not answer within {timeout_s:g} s")
        self.workers = list(workers)
        self.timeout_s = timeout_s


class WorkersDiffer(WorkersError):
    """Workers cannot do the work as this machine would; ``differences`` says in words which and why."""

    def __init__(self, differences: Sequence[str]) -> None:
        super().__init__(f"workers differ from this machine: {'; '.join(differences)}")
        self.differences = list(differences)


class SchedulerUnreachable(WorkersError):
    """No scheduler answers at ``address``."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"cannot reach a scheduler at {address}: {reason}")
        self.address = address
        self.reason = reason


class SchedulerLost(WorkersError):
    """The scheduler at ``address`` ended, or the connection to it, before the work was done."""

    def __init__(self, address: str) -> None:
        super().__init__(f"lost the scheduler at {address}")
        self.address = address


class SchedulerSilent(SchedulerLost):
    """The scheduler at ``address`` did not answer within ``waited_s`` seconds."""

    def __init__(self, address: str, waited_s: float) -> None:
        AsyncBackupError.__init__(self, f"lost the scheduler at {address}: it did not answer within {waited_s:g} s")
        self.address = address
        self.waited_s = waited_s


class ClusterError(AsyncBackupError):
    """The cluster, or the way to it, is at fault."""


class Unreachable(ClusterError):
    """Nothing usable answers at ``address`` (``host:port``)."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"cannot reach a sheep at {address}: {reason}")
        self.address = address
        self.reason = reason


class ConnectionLost(ClusterError):
    """The connection to ``address`` ended while answers were outstanding."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"lost the connection to {address}: {reason}")
        self.address = address
        self.reason = reason


class RequestTimeout(ClusterError):
    """A request got no complete answer within its deadline of ``timeout_s`` seconds."""

    def __init__(self, address: str, request: str, timeout_s: float) -> None:
        super().__init__(f"{address} did not answer {request} within {timeout_s:g} s")
        self.address = address
        self.request = request
        self.timeout_s = timeout_s


class ProtocolViolation(ClusterError):
    """``address`` sent something that the sheep protocol does not allow."""

    def __init__(self, address: str, expected: str, got: str) -> None:
        super().__init__(f"{address} does not speak the sheep protocol: expected {expected}, got {got}")
        self.address = address
        self.expected = expected
        self.got = got


class ClusterNotReady(ClusterError):
    """The cluster answered that it serves no requests in its present state.

    ``result`` is the numeric result code, ``state`` the cluster's word for it.
    """

    def __init__(self, address: str, result: int, state: str) -> None:
        super().__init__(f"the cluster at {address} is not serving: {state}")
        self.address = address
        self.result = result
        self.state = state


class LeftUnfinished(ClusterError):
    """The restore of ``vdi`` failed because of ``cause``; removing the VDI failed because of ``reason``."""

    def __init__(self, vdi: str, left: str, cause: str, reason: str) -> None:
        super().__init__(f"{cause}; VDI '{vdi}', {left}, because {reason}")
        self.vdi = vdi
        self.cause = cause
        self.reason = reason


class PerhapsCreated(LeftUnfinished):
    """The creation of ``vdi`` failed because of ``cause``, but it may be there, empty and without a mark.

    Either the cluster did not say whether it is there, or a node may still make it, or it could not be removed.
    """

    def __init__(self, vdi: str, cause: str, reason: str) -> None:
        super().__init__(vdi, "empty and without a mark, may be there", cause, reason)


class RequestFailed(AsyncBackupError):
    """The cluster answered ``request`` with an error ``result`` (numeric; ``meaning`` in words)."""

    def __init__(self, request: str, result: int, meaning: str) -> None:
        super().__init__(f"{request} failed: {meaning} (result 0x{result:02x})")
        self.request = request
        self.result = result
        self.meaning = meaning


class ObjectReadFailed(RequestFailed):
    """A data object of a snapshot could not be read, so there is no backup."""

    def __init__(self, idx: int, oid: int, result: int, meaning: str) -> None:
        super().__init__(f"reading object {idx} (oid {oid:016x})", result, meaning)
        self.idx = idx
        self.oid = oid


class ObjectsUnreadable(ObjectReadFailed):
    """Several data objects could not be read: ``failures`` has an ObjectReadFailed for each, ``idx`` is the first."""

    def __init__(self, failures: Sequence[ObjectReadFailed]) -> None:
        first = failures[0]
        listed = list_indices([failure.idx for failure in failures])
        AsyncBackupError.__init__(self, f"{len(failures)} objects cannot be read: {listed}; the first of them: {first}")
        self.request = first.request
        self.result = first.result
        self.meaning = first.meaning
        self.idx = first.idx
        self.oid = first.oid
        self.failures = tuple(failures)


class ClusterFull(RequestFailed):
    """The cluster has no space left for what ``request`` would store."""


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


class SourceError(AsyncBackupError):
    """What a backup is read from (``source``: a path, or the name of a pipe) is at fault."""

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(f"{source}: {problem}")
        self.source = source
        self.problem = problem


class SourceUnreadable(SourceError):
    """The file cannot be opened or read."""


class BackupDamaged(SourceError):
    """At ``offset`` the bytes of ``source`` are not those of a backup, or of a manifest."""

    def __init__(self, source: str, offset: int, problem: str) -> None:
        super().__init__(source, f"at offset {offset}: {problem}")
        self.offset = offset


class BackupCompressed(BackupDamaged):
    """``source`` is no backup: the program ``compression`` made it."""

    def __init__(self, source: str, compression: str) -> None:
        super().__init__(source, 0, f"this is compressed with {compression} and must be decompressed first")
        self.compression = compression


class NotDecrypted(SourceError):
    """``source`` is encrypted, and it stays so: ``problem`` says why. ``recipients`` says who can read it, in words.

    ``lacks_identity``: no private key was named at all.
    """

    def __init__(
        self, source: str, problem: str, recipients: Sequence[str] = (), *, lacks_identity: bool = False
    ) -> None:
        who = f"; it is for {', '.join(recipients)}" if recipients else ""
        super().__init__(source, f"{problem}{who}")
        self.recipients = tuple(recipients)
        self.lacks_identity = lacks_identity


class FormatUnclear(BackupDamaged):
    """``source`` begins like a backup of either format, and is complete in neither."""

    def __init__(self, source: str, offset: int) -> None:
        super().__init__(source, offset, "this may be of either format")


class StateDamaged(BackupDamaged):
    """``source`` stands beside an image to say what the image is, but its bytes are no such statement."""

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(source, 0, f"this is no state of an image: {problem}")


class DigestMismatch(SourceError):
    """The data of object ``idx`` is not the data that the backup was made with."""

    def __init__(self, source: str, idx: int, expected: str, got: str) -> None:
        super().__init__(source, f"the data of object {idx} was changed: expected digest {expected}, got {got}")
        self.idx = idx


class BaseMismatch(SourceError):
    """Object ``idx`` of the base is not what the backup ``source`` was made against."""

    def __init__(self, source: str, idx: int, base: str) -> None:
        super().__init__(source, f"{base} does not hold at object {idx} what this backup was made against")
        self.idx = idx
        self.base = base


class BaseNeeded(SourceError):
    """Only the base has ``length`` bytes at ``offset`` of object ``idx``, and they are needed."""

    def __init__(self, source: str, idx: int, offset: int, length: int) -> None:
        super().__init__(
            source, f"object {idx} lacks {length} bytes at {offset} that only the base of the first backup has"
        )
        self.idx = idx
        self.offset = offset
        self.length = length


class ManifestMissing(SourceError):
    """The backup has no manifest, which would say what was backed up, and prove it."""

    def __init__(self, source: str) -> None:
        super().__init__(source, "it has no manifest, so nothing proves what it is a backup of and what it follows")


class ResultsDamaged(SourceError):
    """``source`` does not hold results of a benchmark that can be read."""


class ProgramFailed(AsyncBackupError):
    """``command``, which was run, failed; ``problem`` says how."""

    def __init__(self, command: str, problem: str) -> None:
        super().__init__(f"`{command}` {problem}")
        self.command = command
        self.problem = problem


class PlotsUnavailable(AsyncBackupError):
    """The library that draws plots is not installed."""

    def __init__(self) -> None:
        super().__init__("matplotlib, which draws the plots, is not installed")


class ExtraMissing(AsyncBackupError):
    """The ``library`` that does ``what`` is not installed. The package's ``extra`` brings it."""

    def __init__(self, extra: str, library: str, what: str) -> None:
        super().__init__(f"{library}, which {what}, is not installed")
        self.extra = extra
        self.library = library


class ChainBroken(AsyncBackupError):
    """Two files do not follow one another."""


class ChainGap(ChainBroken):
    """No chain of backups in ``folder`` leads to ``snapshot`` (in words).

    ``first`` is the oldest backup on the way, and ``needed`` (in words) what it is the difference to. ``first`` None:
    nothing leads there from the base ``needed``, which was named. ``spoilt`` is of that, and why it is of no use.
    ``unread`` is how many backups could not be decrypted, one of which may be what is missing.
    """

    def __init__(
        self,
        folder: str,
        snapshot: str,
        *,
        needed: str,
        first: str | None = None,
        spoilt: str | None = None,
        unread: int = 0,
    ) -> None:
        what = f"no backups in {folder} lead from {needed} to {snapshot}"
        if first is not None:
            gap = f"{first} is the difference to {needed}, and no backup there is of that"
            what = f"no backups in {folder} lead to {snapshot}: {gap}{f', except for {spoilt}' if spoilt else ''}"
        super().__init__(what + name_unread(unread))
        self.folder = folder
        self.first = first
        self.needed = needed
        self.unread = unread


class Incompatible(AsyncBackupError):
    """What was asked for cannot be done with what was named. It is raised only as one of the kinds below."""


class Fact(StrEnum):
    """What a manifest says of a backup, in words that follow "says"."""

    FORMAT = "which format the backup has"
    OBJECT_SIZE = "how large the objects are"
    VDI_SIZE = "how large the VDI is"
    VDI_NAME = "which VDI was backed up"
    BASE = "what the backup is the difference to"


class PieceGiven(Incompatible):
    """``source`` is piece ``number`` of ``count`` of a backup, and a whole backup is needed."""

    def __init__(self, source: str, number: int, count: int) -> None:
        super().__init__(f"{source} is piece {number} of {count} of a backup, not a whole one")
        self.source = source
        self.number = number
        self.count = count


class PieceNeeded(Incompatible):
    """``source`` is no piece of a backup; ``problem`` says why."""

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(f"{source} is no piece of a backup: {problem}")
        self.source = source


class PieceForeign(Incompatible):
    """``source`` does not go together with the other piece ``other``: its ``fact`` is ``got`` and not ``expected``."""

    def __init__(self, source: str, other: str, fact: str, expected: object, got: object) -> None:
        super().__init__(
            f"{source} is no piece of the backup that {other} is of: {fact}: expected {expected}, got {got}"
        )
        self.source = source
        self.other = other
        self.fact = fact


class PieceDoubled(Incompatible):
    """``sources`` are all piece ``number`` of ``count``."""

    def __init__(self, sources: Sequence[str], number: int, count: int) -> None:
        super().__init__(f"{' and '.join(sources)} are both piece {number} of {count}")
        self.sources = tuple(sources)
        self.number = number


class PieceMissing(Incompatible):
    """Of ``count`` pieces those with ``numbers`` are not there."""

    def __init__(self, numbers: Sequence[int], count: int) -> None:
        noun, verb = ("piece", "is") if len(numbers) == 1 else ("pieces", "are")
        super().__init__(f"{noun} {list_indices(numbers)} of {count} {verb} missing")
        self.numbers = tuple(numbers)
        self.count = count


class FactMissing(Incompatible):
    """``fact`` is needed, and neither a manifest nor the caller says it."""

    def __init__(self, fact: Fact) -> None:
        super().__init__(f"no manifest says {fact.value}")
        self.fact = fact


class SnapshotAmbiguous(Incompatible):
    """Several snapshots that ``folder`` has backups of are called ``snapshot``. ``choices`` are names of one each."""

    def __init__(self, folder: str, snapshot: str, choices: Sequence[str]) -> None:
        listed = list_names("they are", choices, "nothing tells them apart", complete=True)
        super().__init__(f"several snapshots in {folder} may be meant by '{snapshot}'; {listed}")
        self.folder = folder
        self.snapshot = snapshot
        self.choices = tuple(choices)


class BackupIncomplete(Incompatible):
    """``source`` lacks the objects ``missing``, by idx, which could not be read when it was made."""

    def __init__(self, source: str, missing: Sequence[int]) -> None:
        what = "1 object" if len(missing) == 1 else f"{len(missing)} objects"
        super().__init__(f"{source} is incomplete: {what} could not be read for it: {list_indices(missing)}")
        self.source = source
        self.missing = tuple(missing)


class BaseUnnamed(Incompatible):
    """``source`` is the difference to ``base`` (in words), and no base was named."""

    def __init__(self, source: str, base: str) -> None:
        super().__init__(f"{source} is the difference to {base}, and no base was named")
        self.source = source
        self.base = base


class BaseUnwanted(Incompatible):
    """``source`` is a full backup, and a base was named."""

    def __init__(self, source: str) -> None:
        super().__init__(f"{source} is a full backup, which stands on no base")
        self.source = source


class IncrementNeeded(Incompatible):
    """``source`` is a full backup, and was to be applied to VDI ``vdi``."""

    def __init__(self, source: str, vdi: str) -> None:
        super().__init__(f"{source} is a full backup, and only increments can be applied to VDI '{vdi}'")
        self.source = source
        self.vdi = vdi


class BaseUnproved(Incompatible):
    """Nothing proves that ``base`` is what ``source`` is the difference to; ``doubt`` tells what is missing."""

    def __init__(self, source: str, base: str, doubt: str) -> None:
        super().__init__(f"nothing proves that {base} is what {source} is the difference to: {doubt}")
        self.source = source
        self.base = base
        self.doubt = doubt


class Relation(StrEnum):
    """What a snapshot is to a backup, in words that follow the name of the backup."""

    BASE = "is the difference to"
    CONTENT = "is a backup of"


class WrongSnapshot(Incompatible):
    """``name`` is not the snapshot that has this ``relation`` to the backup ``source``: ``got`` is not ``expected``.

    Both are an ``asyncbackup.format.identity.Identity``, or both are sizes in bytes. ``can_be_assumed``: ``name`` may
    hold the same bytes nevertheless, as a restored VDI does.
    """

    def __init__(
        self, source: str, relation: Relation, name: str, expected: Any, got: Any, *, can_be_assumed: bool = False
    ) -> None:
        unit = " bytes" if isinstance(expected, int) else ""
        super().__init__(f"{name} is not what {source} {relation.value}: expected {expected}{unit}, got {got}")
        self.source = source
        self.relation = relation
        self.name = name
        self.expected = expected
        self.got = got
        self.can_be_assumed = can_be_assumed


class ObjectSizesDiffer(Incompatible):
    """``name`` has objects of ``expected`` bytes, and ``other``, which is used with it, of ``got`` bytes."""

    def __init__(self, name: str, expected: int, other: str, got: int) -> None:
        super().__init__(f"{name} has objects of {expected} bytes, and {other} of {got} bytes")
        self.name = name
        self.expected = expected
        self.other = other
        self.got = got


class ResizeUnproved(Incompatible):
    """``image`` of ``size`` bytes would get ``new_size``, and ``doubt`` says why that may be wrong."""

    def __init__(self, image: str, size: int, new_size: int, doubt: str) -> None:
        super().__init__(f"{image} has {size} bytes and would become {new_size}, but {doubt}")
        self.image = image
        self.size = size
        self.new_size = new_size
        self.doubt = doubt


class ContradictsManifest(Incompatible):
    """The caller says another ``fact`` of ``source`` than its manifest, which says ``expected``."""

    def __init__(self, source: str, fact: Fact, expected: object, got: object) -> None:
        super().__init__(f"{source}: its manifest says {fact.value}: expected {expected}, got {got}")
        self.source = source
        self.fact = fact
        self.expected = expected
        self.got = got


class FileNeeded(Incompatible):
    """``source`` is read only once, in order, but that is not enough. ``purpose`` says for what, such as "to apply it".

    ``layer``: what makes it so, ``age`` or ``zstd``; None: it is a pipe.
    """

    def __init__(self, source: str, purpose: str, layer: str | None = None) -> None:
        super().__init__(f"{source} is {_READ_ONCE[layer]}, and {purpose} it has to be read twice")
        self.source = source
        self.purpose = purpose
        self.layer = layer


_READ_ONCE: Final = {
    None: "a pipe",
    "age": "encrypted, so that it is only read in order",
    "zstd": "compressed without a seek table, so that it is only read in order",
}


class FolderNeeded(Incompatible):
    """``source`` is a file, and a folder with backups is expected."""

    def __init__(self, source: str) -> None:
        super().__init__(f"expected a folder, got the file {source}")
        self.source = source


class HyperVolume(Incompatible):
    """``name`` is a hyper volume, or would be one. ``limit`` says what this means, such as "cannot be restored"."""

    def __init__(self, name: str, limit: str) -> None:
        super().__init__(f"{name} is a hyper volume, which {limit}")
        self.name = name
        self.limit = limit


class PlacementUnknown(Incompatible):
    """It is not known which nodes hold the replicas of objects; ``doubt`` says why."""

    def __init__(self, doubt: str) -> None:
        super().__init__(f"it is not known which nodes hold the replicas: {doubt}")
        self.doubt = doubt


class NotMergeable(Incompatible):
    """Between the first and the last of ``backups`` the VDI was smaller: one backup cannot say what was cut off."""

    def __init__(self, backups: Sequence[str]) -> None:
        super().__init__(
            f"the VDI was smaller between {backups[0]} and {backups[-1]}, which cut off objects of the base: "
            "no single backup can say that"
        )
        self.backups = tuple(backups)


class VdiUnmakeable(Incompatible):
    """No VDI can be made as it was asked for: ``got`` in place of ``expected``, both in words."""

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f"no such VDI can be made: expected {expected}, got {got}")
        self.expected = expected
        self.got = got


class SampleNeedsBase(Incompatible):
    """A sample of ``source`` needs the snapshot that it is the difference to, and the cluster does not have it.

    ``base`` is that snapshot's ``asyncbackup.format.identity.Identity``.
    """

    def __init__(self, source: str, base: Any) -> None:
        super().__init__(f"a sample of {source} needs {base}, and this cluster has no such snapshot any more")
        self.source = source
        self.base = base


class AlreadyApplied(Incompatible):
    """``image`` already is ``identity`` (an ``asyncbackup.format.identity.Identity``): nothing is left to apply."""

    def __init__(self, image: str, identity: Any) -> None:
        super().__init__(
            f"{image} is an image of {identity} already: nothing is left to apply, and nothing was written"
        )
        self.image = image
        self.identity = identity


class HeldAlready(AlreadyApplied):
    """``vdi`` holds ``identity`` already, and nothing is left to apply; ``certainty`` says how sure that is."""

    def __init__(self, vdi: str, identity: Any, certainty: str) -> None:
        AsyncBackupError.__init__(self, f"VDI '{vdi}' holds {identity} already, {certainty}: nothing is left to apply")
        self.image = vdi
        self.identity = identity


class BackupsMissing(Incompatible):
    """``vdi`` holds ``got``, and ``source`` is the difference to ``expected``: two identities that do not match.

    Both are an ``asyncbackup.format.identity.Identity``.
    """

    def __init__(self, vdi: str, source: str, expected: Any, got: Any) -> None:
        is_behind = got.vdi == expected.vdi and (got.created or "") < (expected.created or "")
        why = "a backup between the two was not applied" if is_behind else "it is another one"
        super().__init__(f"VDI '{vdi}' holds {got}, and {source} is the difference to {expected}: {why}")
        self.vdi = vdi
        self.source = source
        self.expected = expected
        self.got = got
        self.is_behind = is_behind


class NoReplica(Incompatible):
    """Nothing can be applied to ``vdi``, because it is no replica; ``reason`` says why."""

    def __init__(self, vdi: str, reason: str) -> None:
        super().__init__(f"nothing can be applied to VDI '{vdi}': {reason}")
        self.vdi = vdi
        self.reason = reason


class ReplicaWritten(Incompatible):
    """Somebody wrote to ``vdi``, or resized it, since ``snapshot`` (in words); ``objects`` of its objects differ."""

    def __init__(self, vdi: str, snapshot: str, objects: int) -> None:
        how = f"written to ({objects} objects differ)" if objects else "resized"
        super().__init__(f"VDI '{vdi}' was {how} since {snapshot}, so it does not equal that")
        self.vdi = vdi
        self.snapshot = snapshot
        self.objects = objects


class PartlyApplied(Incompatible):
    """``base`` already holds what the backups ``applied``, oldest first, lead to.

    That is ``identity`` (an ``asyncbackup.format.identity.Identity``).
    """

    def __init__(self, base: str, identity: Any, applied: Sequence[str]) -> None:
        super().__init__(f"{base} holds {identity}, to which {applied[-1]} leads")
        self.base = base
        self.identity = identity
        self.applied = tuple(applied)


class OutsideVdi(Incompatible):
    """Object ``idx`` of a backup does not lie within the VDI's ``size`` in bytes."""

    def __init__(self, idx: int, size: int) -> None:
        super().__init__(f"the backup has an object {idx}, which does not lie within {size} bytes")
        self.idx = idx
        self.size = size


class BegunOtherwise(Incompatible):
    """The unfinished backup ``target`` was begun with another ``field`` than is asked for now.

    ``begun`` and ``asked`` are the values, as a manifest has them.
    """

    def __init__(self, target: str, field: str, begun: object, asked: object) -> None:
        super().__init__(f"{target}: what is unfinished was begun with another {field}: expected {asked}, got {begun}")
        self.target = target
        self.field = field
        self.begun = begun
        self.asked = asked


class SharedOtherwise(BegunOtherwise):
    """VDI ``vdi`` is being restored in shards, with another ``field`` than is asked for here."""

    def __init__(self, vdi: str, field: str, begun: object, asked: object) -> None:
        super().__init__(f"VDI '{vdi}'", field, begun, asked)
        self.vdi = vdi


class MemoryTooSmall(Incompatible):
    """There is not memory for one step of the work. ``needed`` and ``given`` in bytes."""

    def __init__(self, needed: int, given: int) -> None:
        super().__init__(f"expected at least {needed} bytes of memory for this work, got {given}")
        self.needed = needed
        self.given = given


class ObjectsTooLarge(Incompatible):
    """Several machines restore no objects of ``size`` bytes, which are more than ``most``, those of one request."""

    def __init__(self, size: int, most: int) -> None:
        super().__init__(f"several machines restore objects of {most} bytes at most, these have {size} bytes")
        self.size = size
        self.most = most


class PatchNeeded(Incompatible):
    """A backup of format ``dialect`` cannot be written where its beginning is not written again, such as a pipe."""

    def __init__(self, dialect: str) -> None:
        super().__init__(f"a {dialect} backup is completed at its beginning, so it needs a plain file")
        self.dialect = dialect


class KeyUnusable(Incompatible):
    """``name`` is no key that can be used; ``problem`` says why, and shows nothing of a private key."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name} {problem}")
        self.name = name
        self.problem = problem


class StoreMisconfigured(Incompatible):
    """The options, the environment and the profiles make no object store that can be used. No message shows a value."""


class RedundancyUnkeepable(Incompatible):
    """The cluster of ``nodes`` nodes cannot keep ``copies`` copies of each object, or knows no ``copy_policy``.

    ``nodes`` is None where only the policy is at fault; ``copy_policy`` is 0 without erasure coding.
    """

    def __init__(self, copies: int, copy_policy: int = 0, nodes: int | None = None) -> None:
        if nodes is None:
            problem = f"the VDI is to have erasure coding (0x{copy_policy:02x}), which this cluster does not know"
        else:
            has = "only one node" if nodes == 1 else f"{nodes} nodes"
            problem = f"the VDI is to keep {copies} copies of each object, but the cluster has {has} for them"
        super().__init__(problem)
        self.copies = copies
        self.copy_policy = copy_policy
        self.nodes = nodes


class ChangedMeanwhile(AsyncBackupError):
    """Somebody else changed ``name`` while it was in use; ``sign`` says how that was noticed."""

    def __init__(self, name: str, sign: str) -> None:
        super().__init__(f"{name} was changed by somebody else meanwhile: {sign}")
        self.name = name
        self.sign = sign


class SnapshotChanged(ChangedMeanwhile):
    """``snapshot`` (in words) was being deleted, so not all of it was read; ``sign`` says how that was noticed."""

    def __init__(self, snapshot: str, sign: str) -> None:
        AsyncBackupError.__init__(self, f"{snapshot} was being deleted while it was read: {sign}")
        self.name = snapshot
        self.sign = sign


class InodeCorrupt(AsyncBackupError):
    """An inode or B-tree node contradicts itself; ``vdi_id`` names it."""

    def __init__(self, vdi_id: int, problem: str) -> None:
        super().__init__(f"the metadata of VDI {vdi_id:x} is damaged: {problem}")
        self.vdi_id = vdi_id
        self.problem = problem


class TooManyVdis(AsyncBackupError):
    """The cluster says that it has ``count`` VDIs and snapshots, more than can be listed."""

    def __init__(self, address: str, count: int, limit: int) -> None:
        super().__init__(
            f"the cluster at {address} says that it has {count} VDIs and snapshots: expected at most {limit} to list"
        )
        self.count = count


class TargetError(AsyncBackupError):
    """What is written to (``target``: a path, or the name of a pipe) is at fault."""

    def __init__(self, target: str, problem: str) -> None:
        super().__init__(f"{target}: {problem}")
        self.target = target
        self.problem = problem


class TargetExists(TargetError):
    """A file of this name exists, and nobody asked to replace it."""

    def __init__(self, target: str) -> None:
        super().__init__(target, "exists already")


class TargetBusy(TargetError):
    """``owner``, such as ``process 4711 on vm1``, is writing this file or a file that belongs to it.

    ``since``: the time in UTC at which it began, if it says it.
    """

    def __init__(self, target: str, owner: str, since: str | None = None) -> None:
        super().__init__(target, f"{owner} is writing it" + (f" since {since}" if since else ""))
        self.owner = owner
        self.since = since


class TargetUnfinished(TargetError):
    """An interrupted run left an unfinished backup of ``size`` bytes in ``partial``. Another run can go on with it."""

    def __init__(self, target: str, partial: str, size: int) -> None:
        super().__init__(target, f"an interrupted run left {size} bytes of it, unfinished, in {partial}")
        self.partial = partial
        self.size = size


class NotResumable(TargetError):
    """The caller wants to resume, but nothing of this target is ever kept; ``reason`` says why."""

    def __init__(self, target: str, reason: str) -> None:
        super().__init__(target, f"cannot be resumed: {reason}")
        self.reason = reason


class PartialDamaged(TargetError):
    """What an interrupted run left in ``partial`` does not say what was begun; ``damage`` says what is wrong."""

    def __init__(self, target: str, partial: str, damage: str) -> None:
        super().__init__(target, f"what an interrupted run left of it cannot be gone on with: {partial}: {damage}")
        self.partial = partial
        self.damage = damage


class OwnInput(TargetError):
    """Writing this file would replace ``source``, which is read."""

    def __init__(self, target: str, source: str) -> None:
        super().__init__(target, f"writing it would replace {source}, which is read for it")
        self.source = source


class ManifestUnplaced(TargetError):
    """The manifest of a file should go to another place than beside the file."""

    def __init__(self, target: str) -> None:
        super().__init__(target, "the manifest of a file stands beside the file: only that of a pipe can go elsewhere")


class TargetUnusable(TargetError):
    """The target cannot be opened for writing."""


class TargetFull(TargetError):
    """The target's file system, quota or size limit is exhausted.

    ``needed``: how many bytes are missing at least. ``enough``: how many bytes more are always enough. None: not known.
    """

    needed: int | None = None
    enough: int | None = None


class TargetWriteFailed(TargetError):
    """Writing failed for another reason than space."""


class HalfReplaced(TargetError):
    """Replacing a file and what belongs to it was interrupted: ``source`` should be at ``place``."""

    def __init__(self, target: str, source: str, place: str) -> None:
        super().__init__(
            target,
            f"is half replaced: replacing it together with {place} was interrupted; what belongs there is {source}",
        )
        self.source = source
        self.place = place


class HalfRolled(TargetError):
    """Applying backups to an image in place was begun and not finished; ``marker`` beside it says so.

    ``cause`` is the error that ended it; None if that was in another run.
    """

    def __init__(self, target: str, marker: str, cause: AsyncBackupError | None = None) -> None:
        why = "applying backups to it was interrupted" if cause is None else str(cause)
        super().__init__(target, f"is half rolled: {why}")
        self.marker = marker
        self.cause = cause


class OtherImage(TargetError):
    """This is not, or may not be, the image that backups were applied to; ``marker`` beside it names that one."""

    def __init__(self, target: str, marker: str, doubt: str) -> None:
        super().__init__(target, f"cannot be finished: {doubt}; {marker} says so")
        self.marker = marker
        self.doubt = doubt


@contextmanager
def single_error() -> Iterator[None]:
    """Raise the first error of an exception group instead of the group: the first failure caused the others."""
    try:
        yield
    except BaseExceptionGroup as group:
        error = first_error(group)
        raise error from error.__cause__


def first_error(error: BaseException) -> BaseException:
    """Give the first error of a group, or ``error`` itself. One that says what was left goes before what caused it."""
    errors = list(_flatten(error))
    return next((each for each in errors if isinstance(each, LeftUnfinished)), errors[0])


def _flatten(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _flatten(each)
    else:
        yield error


def name_snapshot(snapshot: int | str) -> str:
    """Write an id, or a tag between quotes, into a message."""
    return str(snapshot) if isinstance(snapshot, int) else f"'{snapshot}'"


def list_indices(indices: Sequence[int], limit: int = 20) -> str:
    """Write the first of some numbers of objects into a message, and how many more there are."""
    listed = ", ".join(map(str, indices[:limit]))
    return f"{listed} and {len(indices) - limit} more" if len(indices) > limit else listed


def name_unread(count: int) -> str:
    """Say that some backups could not be decrypted."""
    if not count:
        return ""
    if count == 1:
        return "; 1 backup there is encrypted, so its snapshot is not known"
    return f"; {count} backups there are encrypted, so their snapshots are not known"


def list_names(intro: str, names: Sequence[str], nothing: str, *, complete: bool, limit: int = 12) -> str:
    """Say which there are, or ``nothing``; if not ``complete``, ``names`` are some of them."""
    if not names:
        return nothing
    listed = ", ".join(names[:limit])
    if not complete:
        return f"among others, {intro} {listed}"
    return f"{intro} {listed} and {len(names) - limit} more" if len(names) > limit else f"{intro} {listed}"
