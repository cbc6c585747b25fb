"""Who backs a job up by turns, and how each of them is run once."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import anyio

from asyncbackup.bench import programs
from asyncbackup.bench.cases import Inside, Run
from asyncbackup.bench.drain import trace
from asyncbackup.bench.job import Job
from asyncbackup.bench.measure import measure
from asyncbackup.bench.programs import DRAIN, OURS
from asyncbackup.engine.progress import OnProgress

Contestant = Callable[[], Awaitable[Run]]


@dataclass(frozen=True, slots=True)
class Contest:
    """Backs ``job`` up into ``folder``, again and again. A run may take ``limit_s`` seconds."""

    job: Job
    folder: Path
    limit_s: float

    @property
    def _target(self) -> Path:
        return self.folder / "backup"

    @property
    def _trace(self) -> Path:
        return self.folder / "trace"

    async def prepare(self, on_progress: OnProgress | None = None) -> None:
        """Back up to nowhere once: that tells what the drain has to read, and fills caches for all."""
        _, reads = await trace(self.job, on_progress)
        self._trace.write_text(json.dumps(reads))

    def contestants(self, against: Sequence[str]) -> Mapping[str, Contestant]:
        """Give all: ours, the drain, and the reference clients ``against``."""
        return {OURS: self.ours, DRAIN: self.drain} | {name: partial(self.reference, name) for name in against}

    async def ours(self, in_flight: int | None = None) -> Run:
        """Back up with ours, to a file with a manifest, which are on disk when it ends."""
        report = self.folder / "report"
        command = programs.ours(self.job, self._target, in_flight)
        try:
            cost = await measure(command, report, self.limit_s)
            told = json.loads(report.read_text())
        finally:
            # Replacing a file takes longer than writing one.
            self._clear()
        inside = Inside(**{field.name: told[field.name] for field in fields(Inside)})
        return Run(cost.wall_s, cost.cpu_s, cost.peak_bytes, inside)

    async def drain(self) -> Run:
        """Read what ours reads, and drop it."""
        cost = await measure(programs.drain(self.job, self._trace), Path(os.devnull), self.limit_s)
        return Run(cost.wall_s, cost.cpu_s, cost.peak_bytes)

    async def reference(self, program: str) -> Run:
        """Back up with a client of Sheepdog, which leaves the file to the system's cache."""
        try:
            cost = await measure(programs.reference(program, self.job), self._target, self.limit_s)
            # What one wrote is not for the next one to wait for.
            await anyio.to_thread.run_sync(_flush, self._target)
        finally:
            self._clear()
        return Run(cost.wall_s, cost.cpu_s, cost.peak_bytes)

    def _clear(self) -> None:
        for path in self.folder.glob(f"*{self._target.name}*"):
            path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
