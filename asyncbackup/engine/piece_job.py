"""Makes a piece of backups: the records of a range of the plan, and their manifest lines, each in a file.

What is to be done, and what became of it, is plain data, so that any process on any machine can do it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path

from asyncbackup.client import Address, ClientOptions, connect_any
from asyncbackup.client.router import Counts
from asyncbackup.engine.deltas import DeltaWriter, Pass
from asyncbackup.engine.keeping import Keeping
from asyncbackup.engine.plan import Pair, Plan
from asyncbackup.engine.progress import BackupCounts
from asyncbackup.engine.record_writer import Piece, RecordWriter
from asyncbackup.engine.unreadable import Losses
from asyncbackup.engine.window import WindowOptions
from asyncbackup.format import Dialect
from asyncbackup.format.manifest import Subject
from asyncbackup.storage import ScratchTarget
from asyncbackup.storage.publication import MANIFEST
from asyncbackup.storage.target import wrap_os_errors
from asyncbackup.wire.inode import Inode


@dataclass(frozen=True, slots=True)
class Output:
    """Where the piece of one backup goes, and what it is a piece of."""

    path: Path
    """The beginning of its path. What follows tells attempts apart: one that is thought dead may still write."""
    name: str
    """What messages call the backup."""
    dialect: Dialect
    subject: Subject | None


@dataclass(frozen=True, slots=True)
class Job:
    """What another process, here or on another machine, needs to know to make a piece."""

    gateways: Sequence[Address]
    client_options: ClientOptions
    options: WindowOptions
    to: Inode
    plan: Plan
    sides: int
    outputs: Sequence[Output]
    skips_unreadable: bool

    @property
    def first(self) -> int:
        """The first object of the piece."""
        return int(self.plan.idx[0])

    @property
    def last(self) -> int:
        return int(self.plan.idx[-1])


@dataclass(frozen=True, slots=True)
class Made:
    """What became of a job: what is known of the pieces, whose data is in their files."""

    pieces: Sequence[Piece]
    missing: Sequence[Sequence[int]]
    counts: BackupCounts
    sent: Counts
    digest_s: float
    write_s: float


async def make_piece(job: Job) -> Made:
    """Make a piece for each backup, in files that no other attempt writes to. Cancelled: half of one may stay."""
    attempt = secrets.token_hex(8)
    counts = BackupCounts()
    async with AsyncExitStack() as stack:
        files = stack.enter_context(ExitStack())
        deltas = []
        for output in job.outputs:
            data, manifest = [
                await stack.enter_async_context(_open(files, path, output.name)) for path in _paths(output, attempt)
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
    return Made(
        pieces=[
            Piece(data, delta.writer.position, delta.writer.records, delta.writer.last_idx, _take(manifest))
            for (data, manifest), delta in zip((_paths(output, attempt) for output in job.outputs), deltas, strict=True)
        ],
        missing=[list(delta.losses.missing) for delta in deltas],
        counts=counts,
        sent=cluster.counts,
        digest_s=sum(delta.writer.digest_s for delta in deltas),
        write_s=sum(delta.writer.write_s for delta in deltas),
    )


def _paths(output: Output, attempt: str) -> tuple[Path, Path]:
    """Give the files for data and manifest."""
    data = output.path.with_name(f"{output.path.name}.{attempt}")
    return data, data.with_name(f"{data.name}{MANIFEST}")


def find_attempts(path: Path) -> list[Path]:
    """Find the data of all attempts at a piece whose path begins so (``Output.path``), whole or not."""
    return [found for found in path.parent.glob(f"{path.name}.*") if found.suffix != MANIFEST]


def remove_attempts(piece: Path) -> None:
    """Remove a piece, and the files of all other attempts at it that can be seen.

    Where machines share a folder, a listing may be older than what another one has just written there.
    """
    piece.unlink()
    for found in piece.parent.glob(f"{piece.stem}.*"):
        found.unlink(missing_ok=True)


def _open(files: ExitStack, path: Path, name: str) -> ScratchTarget:
    with wrap_os_errors(name):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
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
