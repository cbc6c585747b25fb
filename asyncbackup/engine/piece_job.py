"""Makes a piece of backups: the records of a range of the plan, each in its place, and their manifest lines.

What is to be done, and what became of it, is plain data, so that any process on any machine can do it.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from asyncbackup.client import Address, ClientOptions, connect_any
from asyncbackup.client.router import Counts
from asyncbackup.engine.deltas import DeltaWriter, Pass
from asyncbackup.engine.keeping import Keeping
from asyncbackup.engine.plan import Pair, Plan
from asyncbackup.engine.progress import BackupCounts
from asyncbackup.engine.record_writer import Piece, RecordWriter
from asyncbackup.engine.scratch import PieceName, Scratch
from asyncbackup.engine.unreadable import Losses
from asyncbackup.engine.window import WindowOptions
from asyncbackup.format import Dialect
from asyncbackup.format.manifest import Subject
from asyncbackup.storage.kept import KeptTarget
from asyncbackup.wire.inode import Inode


@dataclass(frozen=True, slots=True)
class Output:
    """Where the piece of one backup goes, and what it is a piece of."""

    scratch: Scratch
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
    """What became of a job: what is known of the pieces, whose data is where the outputs said."""

    name: PieceName
    pieces: Sequence[Piece]
    missing: Sequence[Sequence[int]]
    counts: BackupCounts
    sent: Counts
    digest_s: float
    write_s: float


async def make_piece(job: Job) -> Made:
    """Make a piece for each backup, under a name that no other attempt has. Cancelled: half of one may stay."""
    name = PieceName(job.first, secrets.token_hex(8))
    counts = BackupCounts()
    manifests = [KeptTarget(output.name) for output in job.outputs]
    async with AsyncExitStack() as stack:
        deltas = []
        for output, manifest in zip(job.outputs, manifests, strict=True):
            writer = RecordWriter(
                await stack.enter_async_context(output.scratch.write(name, output.name)),
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
        name,
        pieces=[
            Piece(writer.position, writer.records, writer.last_idx, bytes(manifest.data).splitlines(keepends=True))
            for writer, manifest in zip((delta.writer for delta in deltas), manifests, strict=True)
        ],
        missing=[list(delta.losses.missing) for delta in deltas],
        counts=counts,
        sent=cluster.counts,
        digest_s=sum(delta.writer.digest_s for delta in deltas),
        write_s=sum(delta.writer.write_s for delta in deltas),
    )


async def _each(pairs: Iterable[Pair]) -> AsyncGenerator[Pair, None]:
    for pair in pairs:
        yield pair
