"""Has workers of Dask write the objects of a restore, from files that all machines see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace as with_fields

from asyncbackup.dispatch.files import make_absolute, manifest_of, refuse_other_files
from asyncbackup.dispatch.pool import Pool
from asyncbackup.engine.chain import ChainOptions
from asyncbackup.engine.fill_job import FillJob, fill_share
from asyncbackup.engine.progress import ReplayCounts


@dataclass(frozen=True, slots=True)
class DaskFillers:
    """The ``Fillers`` of a pool."""

    pool: Pool

    @property
    def at_once(self) -> int:
        return len(self.pool.workers)

    @property
    def on_one_machine(self) -> int:
        return self.pool.on_one_machine

    async def check(self, backups: Sequence[str], options: ChainOptions) -> None:
        """Raise WorkersDiffer unless each worker sees the same files as this machine."""
        paths = make_absolute(backups)
        manifests = make_absolute(map(str, options.manifests)) or list(map(manifest_of, paths))
        await refuse_other_files(self.pool, [*paths, *manifests], options.access)

    async def fill(self, job: FillJob) -> ReplayCounts:
        manifests = make_absolute(map(str, job.chain_options.manifests))
        options = with_fields(job.chain_options, manifests=manifests)
        job = with_fields(job, backups=make_absolute(job.backups), chain_options=options)
        what = f"objects {job.indices[0]} to {job.indices[-1]}"
        counts: ReplayCounts = await self.pool.do(what, fill_share, job)
        return counts

    async def have_ended(self) -> bool:
        return await self.pool.has_ended_all()

    async def find_lost(self) -> Sequence[str]:
        return await self.pool.find_lost()
