"""Has workers of Dask prove backups that all machines see: each the data of some shares of the records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace as with_fields
from functools import partial
from typing import Final

import anyio
from anyio import CapacityLimiter

from asyncbackup.dispatch.files import make_absolute, manifest_of, name_as_given, refuse_other_files
from asyncbackup.dispatch.pool import Pool
from asyncbackup.engine.chain import ChainOptions
from asyncbackup.engine.cut import Shard
from asyncbackup.engine.progress import OnProgress, Progress
from asyncbackup.errors import AsyncBackupError, single_error
from asyncbackup.verbs.verify import FileReport, Problems, VerifyReport, verify

_SHARES_EACH: Final = 4
"""Shares for each worker: a slow one does not delay the end by much. Each reads all headers and manifests again."""


async def verify_over(
    pool: Pool,
    backups: Sequence[str],
    *,
    require_manifest: bool = False,
    chain_options: ChainOptions | None = None,
    on_progress: OnProgress | None = None,
) -> VerifyReport:
    """Do what ``verify`` does with all of ``backups``, which are files or objects, by the workers of a pool.

    Secret options of a store do not go to the workers: they have their own in the environment.

    Raises what ``verify`` raises, WorkersDiffer for a worker that sees other files, and WorkerLost.
    """
    options = chain_options or ChainOptions()
    paths, manifests = make_absolute(backups), make_absolute(map(str, options.manifests))
    named = [*backups, *map(str, options.manifests)]
    options = with_fields(options, manifests=manifests)
    await refuse_other_files(pool, [*paths, *(manifests or map(manifest_of, paths))], options.access)
    count = _SHARES_EACH * len(pool.workers)
    reports: dict[int, VerifyReport] = {}
    limiter = CapacityLimiter(len(pool.workers))

    async def prove(shard: Shard) -> None:
        share = partial(verify, paths, require_manifest=require_manifest, shard=shard, chain_options=options)
        async with limiter:
            try:
                reports[shard.number] = await pool.do(f"share {shard}", share)
            except AsyncBackupError as error:
                name_as_given(error, named)
                raise
        if on_progress is not None:
            on_progress(_progress(list(reports.values()), count))

    with single_error():
        async with anyio.create_task_group() as group:
            for number in range(1, count + 1):
                group.start_soon(prove, Shard(number, count))
    merged = merge_reports([reports[number] for number in sorted(reports)])
    for file, name in zip(merged.files, backups, strict=True):
        file.file = name
    for error in [*merged.links.errors, *(each for file in merged.files for each in file.problems.errors)]:
        name_as_given(error, named)
    return merged


def merge_reports(reports: Sequence[VerifyReport]) -> VerifyReport:
    """Make one report of those of all shares: data was proved by one of them, and everything else by each."""
    first = reports[0]
    files = [_merge_files(files) for files in zip(*(report.files for report in reports), strict=True)]
    return with_fields(first, files=files)


def _merge_files(files: Sequence[FileReport]) -> FileReport:
    return with_fields(
        files[0],
        records_digested=sum(file.records_digested for file in files),
        bytes_digested=sum(file.bytes_digested for file in files),
        problems=_merge_problems([file.problems for file in files]),
    )


def _merge_problems(found: Sequence[Problems]) -> Problems:
    """Take what each share found, once, and what only one found."""
    by_message = [{str(error): error for error in problems.errors} for problems in found]
    common = set.intersection(*(set(errors) for errors in by_message))
    merged = Problems()
    for error in {message: error for errors in by_message for message, error in errors.items()}.values():
        merged.add(error)
    merged.count = sum(problems.count for problems in found) - (len(found) - 1) * len(common)
    return merged


def _progress(reports: Sequence[VerifyReport], count: int) -> Progress:
    """Say how much data was proved. All of it is what each share sees."""
    files = [file for report in reports for file in report.files]
    planned = sum(file.data_bytes for file in reports[0].files)
    records = sum(file.records for file in reports[0].files) * len(reports) // count
    return Progress(records, None, sum(file.bytes_digested for file in files), planned, is_checking=True)
