"""Splits a pass over several processes: each makes pieces of the backups, which are joined in order.

A piece holds the records of a range of the plan, and their manifest lines. It is a file beside its backup, so that to
join it is to copy within one file system, or there where it can to share the blocks. It is made again by another
process if its own one dies. It need not survive a crash: what counts then is the last checkpoint of the backup.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from dataclasses import replace as with_fields
from functools import partial
from pathlib import Path
from typing import Final

import anyio
from anyio import BrokenWorkerProcess, CapacityLimiter, to_process, to_thread

from asyncbackup.client import Address, ClientOptions, connect_any
from asyncbackup.client.router import Counts
from asyncbackup.engine.deltas import DeltaWriter, Pass
from asyncbackup.engine.keeping import Keeping
from asyncbackup.engine.plan import Pair, Plan
from asyncbackup.engine.progress import BackupCounts
from asyncbackup.engine.record_writer import Piece, RecordWriter
from asyncbackup.engine.unreadable import Losses
from asyncbackup.engine.window import Slot, Window, WindowOptions
from asyncbackup.errors import MemoryTooSmall, TargetFull, WorkerLost, single_error
from asyncbackup.format import Dialect
from asyncbackup.format.manifest import Subject
from asyncbackup.storage import JoinableTarget, ScratchTarget
from asyncbackup.storage.target import wrap_os_errors
from asyncbackup.wire.inode import Inode

_MOST_OBJECTS: Final = 256
"""Objects of a piece: with 4 MiB each it takes a second or so to make, and an eighth of that to connect."""
_LEAST_OBJECTS: Final = 16
_PIECES_EACH: Final = 4
"""Pieces that a process makes, at least, if there are enough objects: so all end at about the same time."""
_TRIES: Final = 3
_DIE_WITH_PARENT: Final = 1
"""``PR_SET_PDEATHSIG`` of prctl."""


@dataclass(frozen=True, slots=True)
class _Output:
    """Where the piece of one backup goes, and what it is a piece of."""

    data: Path
    manifest: Path
    name: str
    """What messages call the backup."""
    dialect: Dialect
    subject: Subject | None


@dataclass(frozen=True, slots=True)
class _Job:
    """What another process needs to know to make a piece."""

    parent: int
    """The process that wants the piece."""
    gateways: Sequence[Address]
    client_options: ClientOptions
    options: WindowOptions
    to: Inode
    plan: Plan
    sides: int
    outputs: Sequence[_Output]
    skips_unreadable: bool


@dataclass(frozen=True, slots=True)
class _Made:
    """What became of a job."""

    pieces: Sequence[Piece]
    missing: Sequence[Sequence[int]]
    counts: BackupCounts
    sent: Counts
    digest_s: float
    write_s: float


@dataclass(slots=True)
class SplitPass:
    """Does what ``whole`` would do, in ``processes`` processes. ``plan`` is what there is to read.

    ``targets`` are what the backups go to, each in the order of those of ``whole``.
    """

    whole: Pass
    plan: Plan
    targets: Sequence[JoinableTarget]
    processes: int
    _folders: list[Path] = field(default_factory=list)

    async def write_records(self) -> None:
        """Write what differs, as ``Pass.write_records`` does. Also raises WorkerLost, MemoryTooSmall."""
        self.whole.tell()
        job = self._job()
        limiter = CapacityLimiter(self.processes)
        async with self._scratch() as self._folders:
            # Some pieces more than processes: one that is slow does not stop those that are done.
            window = Window(self._most_pieces, [], partial(self._make, job, limiter), self._join)
            await window.run(self._cut())

    @property
    def _most_pieces(self) -> int:
        return 2 * self.processes

    @property
    def _piece_size(self) -> int:
        """Objects of a piece."""
        size = -(-len(self.plan) // (self.processes * _PIECES_EACH))
        return max(_LEAST_OBJECTS, min(size, _MOST_OBJECTS))

    async def _cut(self) -> AsyncGenerator[Plan, None]:
        size = self._piece_size
        for start in range(0, len(self.plan), size):
            yield self.plan[start : start + size]

    def _saying_how_much_room_is_missing(self, delta: DeltaWriter) -> AbstractContextManager[None]:
        return self.whole.saying_how_much_room_is_missing(delta, self._most_pieces * self._piece_size)

    def _job(self) -> _Job:
        """Share out what is bounded for all processes together. The plan and the files of each piece are lacking."""
        whole, count = self.whole, self.processes
        cluster, options = whole.cluster, whole.options
        # Each must cut objects as one process would: what a manifest says of the base depends on it.
        portion_size = options.portion_size(whole.to.object_size)
        memory = max(options.memory // count, 4 * portion_size, (1 + len(whole.deltas)) * portion_size)
        if memory * count > options.memory and count > 1:
            raise MemoryTooSmall(memory * count, options.memory)
        gateway, rate = cluster.nodes.gateway, cluster.nodes.options.rate
        return _Job(
            parent=os.getpid(),
            gateways=list(dict.fromkeys([(gateway.host, gateway.port), *cluster.nodes.gateways])),
            client_options=with_fields(cluster.nodes.options, rate=None if rate is None else max(1, rate // count)),
            options=with_fields(options, memory=memory),
            to=whole.to,
            plan=self.plan[:0],
            sides=whole.sides,
            outputs=(),
            skips_unreadable=whole.deltas[0].losses.are_skipped,
        )

    @asynccontextmanager
    async def _scratch(self) -> AsyncIterator[list[Path]]:
        """Make a folder for pieces beside each backup, and remove them afterwards."""
        folders: list[Path] = []
        try:
            for target in self.targets:
                with wrap_os_errors(target.name):
                    await to_thread.run_sync(target.pieces.mkdir, 0o700)
                folders.append(target.pieces)
            yield folders
        finally:
            with anyio.CancelScope(shield=True):
                for folder in folders:
                    await to_thread.run_sync(partial(shutil.rmtree, folder, ignore_errors=True))

    async def _make(self, job: _Job, limiter: CapacityLimiter, plan: Plan, _slot: Slot) -> _Made:
        """Have a piece made. A process that dies is replaced, and its piece is made again."""
        first = int(plan.idx[0])
        outputs = [
            _Output(folder / f"{first}", folder / f"{first}.manifest", target.name, delta.writer.dialect, delta.subject)
            for folder, target, delta in zip(self._folders, self.targets, self.whole.deltas, strict=True)
        ]
        ready = with_fields(job, plan=plan, outputs=outputs)
        lost: BrokenWorkerProcess | OSError | None = None
        for _ in range(_TRIES):
            try:
                return await to_process.run_sync(make_piece, ready, cancellable=True, limiter=limiter)
            except (BrokenWorkerProcess, OSError) as error:  # The system starts none, or it ended while it started.
                self.whole.cluster.counts.causes["worker process lost"] += 1
                lost = error
            except TargetFull as full:
                names = [target.name for target in self.targets]
                with self._saying_how_much_room_is_missing(self.whole.deltas[names.index(full.target)]):
                    raise
        raise WorkerLost(first, int(plan.idx[-1]), _TRIES, getattr(lost, "strerror", None)) from lost

    async def _join(self, made: Sequence[_Made]) -> None:
        for each in made:
            for delta, piece, missing in zip(self.whole.deltas, each.pieces, each.missing, strict=True):
                with self._saying_how_much_room_is_missing(delta):
                    await delta.writer.append_piece(piece)
                delta.losses.begin_with(missing)
                await to_thread.run_sync(piece.data.unlink)
            first = self.whole.deltas[0].writer
            first.digest_s += each.digest_s
            first.write_s += each.write_s
            self.whole.counts.add(each.counts)
            self.whole.cluster.counts.add(each.sent)
        self.whole.tell()
        for delta in self.whole.deltas:
            with self._saying_how_much_room_is_missing(delta):
                await delta.keeping.advance()


def _end_with(parent: int) -> None:
    """Let this process end as soon as ``parent`` does. If that has ended, another run may make the pieces now."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def make_piece(job: _Job) -> _Made:
    """Make a piece, in a process of its own. It ends with the process that wants the piece."""
    # Ctrl-C goes to all processes of a terminal. The one that was started by hand decides what happens.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with(job.parent)
    with single_error():
        return anyio.run(_make_piece, job)


async def _make_piece(job: _Job) -> _Made:
    counts = BackupCounts()
    async with AsyncExitStack() as stack:
        files = stack.enter_context(ExitStack())
        deltas = []
        for output in job.outputs:
            data, manifest = [
                await stack.enter_async_context(_open(files, path, output.name))
                for path in (output.data, output.manifest)
            ]
            writer = RecordWriter(
                data,
                output.dialect,
                manifest=None if output.subject is None else manifest,
                subject=output.subject,
                is_range=True,
            )
            deltas.append(DeltaWriter(output.subject, writer, Keeping(writer, None, 0), Losses(job.skips_unreadable)))
        cluster = await stack.enter_async_context(connect_any(job.gateways, job.client_options))
        cluster = cluster.counted()
        await Pass(cluster, _each(job.plan), job.to, job.sides, job.options, deltas, counts, None).write_records()
        for delta in deltas:
            await delta.writer.finish()
    return _Made(
        pieces=[
            Piece(
                output.data, delta.writer.position, delta.writer.records, delta.writer.last_idx, _take(output.manifest)
            )
            for output, delta in zip(job.outputs, deltas, strict=True)
        ],
        missing=[list(delta.losses.missing) for delta in deltas],
        counts=counts,
        sent=cluster.counts,
        digest_s=sum(delta.writer.digest_s for delta in deltas),
        write_s=sum(delta.writer.write_s for delta in deltas),
    )


def _open(files: ExitStack, path: Path, name: str) -> ScratchTarget:
    """Open a file for a piece, anew: a process that died may have left some of it."""
    with wrap_os_errors(name):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    files.callback(os.close, descriptor)
    return ScratchTarget(descriptor, name)


def _take(path: Path) -> list[bytes]:
    """Read the lines of a manifest, and remove it."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.unlink()
    return lines


async def _each(pairs: Iterable[Pair]) -> AsyncGenerator[Pair, None]:
    for pair in pairs:
        yield pair
