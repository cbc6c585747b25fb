"""Reads what a backup reads, and drops it: ``python -m asyncbackup.bench.drain JOB TRACE``, both as JSON; TRACE a file.

It sends the requests that a backup sent, object by object and as many at a time, over the same client. So it shows what
the cluster and the way to it give at most to whoever asks like that.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import anyio

from asyncbackup.bench.job import Job
from asyncbackup.client import Cluster
from asyncbackup.client.objects import ObjectRead
from asyncbackup.engine.compare import COMPARED_SIZE
from asyncbackup.engine.progress import OnProgress, Summary
from asyncbackup.engine.source import open_snapshots
from asyncbackup.engine.window import Slot, Window, WindowOptions
from asyncbackup.engine.work import plan_sides
from asyncbackup.storage import NullTarget
from asyncbackup.verbs.backup import backup
from asyncbackup.wire.oid import index_of, is_data

Read = tuple[int, int, int]
"""The id of an object, where to read in it, and how many bytes."""
Trace = list[list[list[Read]]]
"""For each object in turn, the reads that were sent together, one group of them after the other."""

_SIDES: Final = 2


@dataclass(eq=False)
class _Traced(Cluster):
    """A cluster that takes notes of what is read from data objects."""

    reads: dict[int, list[list[Read]]] = field(default_factory=dict)

    def counted(self) -> Cluster:
        return self

    async def read_objects(self, reads: Sequence[ObjectRead]) -> None:
        if reads and is_data(reads[0].oid):
            group = [(read.oid, read.offset, len(read.into)) for read in reads]
            self.reads.setdefault(index_of(reads[0].oid), []).append(group)
        await super().read_objects(reads)


async def trace(job: Job, on_progress: OnProgress | None = None) -> tuple[Summary, Trace]:
    """Back up to nowhere, and give what was read. Raises what a backup raises."""
    async with job.connect() as cluster:
        traced = _Traced(cluster.router)
        summary = await backup(
            traced, job.vdi, NullTarget(), snapshot=job.snapshot, base=job.base, on_progress=on_progress
        )
        return summary, [traced.reads[idx] for idx in sorted(traced.reads)]


async def drain(job: Job, reads: Trace) -> int:
    """Plan, and send the reads of a trace; give the bytes."""
    done = 0

    async def each() -> AsyncIterator[list[list[Read]]]:
        for groups in reads:
            yield groups

    async def read(groups: list[list[Read]], slot: Slot) -> None:
        nonlocal done
        for group in groups:
            parts = [
                ObjectRead(oid, buffer[:length], offset)
                for (oid, offset, length), buffer in zip(group, slot.buffers, strict=False)
            ]
            await cluster.read_objects(parts)
            done += sum(len(part.into) for part in parts)

    async def drop(_: list[None]) -> None:
        """Nothing is kept."""

    largest = max((length for groups in reads for group in groups for _, _, length in group), default=1)
    options = WindowOptions()
    async with job.connect() as cluster:
        snapshots = [await cluster.find_vdi(job.vdi, each) for each in (job.snapshot, job.base) if each is not None]
        plan_sides(*await open_snapshots(cluster, snapshots, snapshots[0].object_count))
        active = options.active(cluster.in_flight_limit, len(snapshots) * COMPARED_SIZE)
        await Window(options.slots(largest), [largest] * _SIDES, read, drop, active).run(each())
    return done


def main() -> None:
    """Drain, on the loop that a backup has."""
    job, reads = Job.decode(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
    anyio.run(drain, job, reads, backend_options={"use_uvloop": True})


if __name__ == "__main__":
    main()
