"""``asyncbackup verify``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from asyncbackup.cli import text
from asyncbackup.cli.access_options import access_options
from asyncbackup.cli.advice import with_advice
from asyncbackup.cli.exits import ExitCode
from asyncbackup.cli.files import arrange, find_files, refuse_pipes
from asyncbackup.cli.main import CONTEXT, Verb
from asyncbackup.cli.options import (
    PATH,
    WholeNumber,
    cluster_options,
    connection_options,
    file_options,
    find_given,
    json_option,
    quiet_option,
    snapshot_name,
    window_options,
)
from asyncbackup.cli.output import complain, say, say_json
from asyncbackup.cli.progress import name_files, progress_option, telling_progress
from asyncbackup.cli.running import run_async
from asyncbackup.cli.shard_options import refuse_with_shard, shard_option
from asyncbackup.cli.split_options import dask_option, split_with_dask
from asyncbackup.client import Address, ClientOptions, connect_any
from asyncbackup.engine.chain import ChainOptions
from asyncbackup.engine.cut import Shard
from asyncbackup.engine.progress import OnProgress
from asyncbackup.engine.replicas import ReplicaReport
from asyncbackup.engine.window import WindowOptions
from asyncbackup.errors import ChainBroken
from asyncbackup.format import Dialect
from asyncbackup.storage import Access, is_fifo
from asyncbackup.verbs.compare import Comparison, compare
from asyncbackup.verbs.verify import FileReport, Problems, VerifyReport, verify

if TYPE_CHECKING:
    from asyncbackup.dispatch.pool import Pool

_OF_COMPARISON: Final = frozenset(
    {
        "snapshot",
        "assume_base",
        "sample",
        "seed",
        "all_replicas",
        "address",
        "port",
        "connections",
        "timeout",
        "give_up_after",
        "rate",
        "in_flight",
        "memory",
    }
)
"""Parameters that only a comparison with a cluster uses."""

_LISTED = 20
"""How many objects that differ to list by their index. The others are only counted."""


def _share(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """Read ``5`` or ``5%``."""
    if value is None:
        return None
    match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,10})?)%?", value)
    percent = float(match[1]) if match else 0
    if not 0 < percent <= 100:
        raise click.BadParameter(f"expected a percentage such as 5 or 5%, got '{value[:60]}'")
    return percent / 100


@click.command(
    "verify",
    cls=Verb,
    context_settings=CONTEXT,
    examples=[
        "asyncbackup verify /backup/vm1.monday /backup/vm1.tuesday",
        "asyncbackup verify /backup/vm1.* --against vm1 -s tuesday",
    ],
)
@click.argument("files", type=PATH, metavar="FILE...", nargs=-1, required=True)
@click.option("--against", "vdi", metavar="VDI", help="Compare what FILEs hold with this VDI of the cluster.")
@click.option(
    "-s",
    "--snapshot",
    metavar="SNAPSHOT",
    callback=snapshot_name,
    help="Compare with this snapshot of the VDI. Give its tag or its id.  [default: the one that was backed up]",
)
@click.option("--assume-base", is_flag=True, help="Compare with this VDI even if it is not the one that was backed up.")
@click.option(
    "--sample",
    metavar="N%",
    callback=_share,
    help="Also read N % of the objects that the backup says did not change, and compare them.",
)
@click.option("--require-manifest", is_flag=True, help="Fail if a FILE has no manifest, because nothing proves it.")
@click.option(
    "--seed",
    type=WholeNumber(0, (1 << 64) - 1),
    metavar="NUMBER",
    help="Choose the same sample as the run that reported this seed.",
)
@click.option(
    "--all-replicas",
    is_flag=True,
    help="Also read every copy that the cluster keeps of these objects, and name objects whose copies differ.",
)
@dask_option
@shard_option(
    "Prove the data of only this share of the records of each FILE, such as 3/8, and compare only this share of the "
    "objects; other machines do the others. The structure and the manifests are proved always."
)
@cluster_options
@access_options
@file_options
@connection_options
@window_options
@quiet_option
@progress_option
@json_option
def command(
    *,
    files: tuple[str, ...],
    vdi: str | None,
    snapshot: int | str | None,
    assume_base: bool,
    sample: float | None,
    seed: int | None,
    all_replicas: bool,
    require_manifest: bool,
    shard: Shard | None,
    dask: str | None,
    manifests: tuple[str, ...],
    access: Access,
    gateways: Sequence[Address],
    dialect: Dialect | None,
    object_size: int | None,
    client_options: ClientOptions,
    options: WindowOptions,
    quiet: bool,
    as_json: bool,
) -> None:
    """Prove that FILEs are complete, that their data is what their manifests say, and that they follow one another.

    You may also name the files that belong to FILEs, such as FILE.manifest. With --against, the content of FILEs is
    then compared with the cluster. FILE `-` is standard input.

    `FOLDER@SNAPSHOT` in place of FILEs takes those backups in FOLDER that lead to that snapshot with the least to read.
    SNAPSHOT is its tag, its id or its time, or `VDI:SNAPSHOT`; `asyncbackup list FOLDER` shows what is there.
    """
    _refuse_options_without_effect(vdi, sample, seed)
    refuse_with_shard(
        shard, {"shares of a --sample need the same --seed: give one": sample is not None and seed is None}
    )
    if vdi is not None and "-" in files:
        raise click.UsageError("--against reads each FILE twice, and standard input can be read only once")
    files = find_files(files, manifests, access=access, quiet=quiet)
    try:
        files, manifests = arrange(files, manifests, access=access, quiet=quiet)
    except ChainBroken as broken:
        # Each file is still proved, and the report says that they do not follow one another.
        complain(with_advice(broken))
    split = split_with_dask(dask)
    if dask is not None:
        _refuse_with_dask(files, vdi, shard)
    chain_options = ChainOptions(dialect, object_size, manifests=manifests, access=access)

    async def work() -> tuple[VerifyReport, Comparison | None]:
        if vdi is not None:
            await _refuse_pipes(files)
        async with telling_progress(name_files(files), wanted=not quiet) as tell, split.pool() as pool:
            report = await _prove(
                pool,
                files,
                require_manifest=require_manifest,
                shard=shard,
                chain_options=chain_options,
                on_progress=tell,
            )
        if vdi is None or not report.is_sound:
            return report, None
        async with (
            connect_any(gateways, client_options) as cluster,
            telling_progress(vdi, wanted=not quiet) as tell,
        ):
            return report, await compare(
                cluster,
                files,
                vdi,
                snapshot,
                assume_base=assume_base,
                sample=sample,
                seed=seed,
                all_replicas=all_replicas,
                shard=shard,
                chain_options=chain_options,
                options=options,
                on_progress=tell,
            )

    report, comparison = run_async(work)
    is_good = report.is_good and (comparison is None or comparison.is_good)
    if as_json:
        against = None if comparison is None else comparison.as_dict()
        of = None if shard is None else str(shard)
        say_json(report.as_dict() | {"good": is_good, "shard": of, "against": against})
    else:
        _print(report, comparison, shard, quiet=quiet)
        if vdi is not None and comparison is None:
            say(f"not compared with {vdi}: what is damaged differs anyway")
    if not is_good:
        raise click.exceptions.Exit(ExitCode.FAILURE)


def _refuse_with_dask(files: Sequence[str], vdi: str | None, shard: Shard | None) -> None:
    """Raise UsageError for what workers of Dask do not do, or cannot see."""
    if shard is not None:
        raise click.UsageError("give either --shard or --dask, not both")
    if vdi is not None:
        raise click.UsageError("--against is for one machine, or for several with --shard: leave --dask out")
    refuse_pipes(files, "--dask")


async def _prove(
    pool: Pool | None,
    files: Sequence[str],
    *,
    require_manifest: bool,
    shard: Shard | None,
    chain_options: ChainOptions,
    on_progress: OnProgress | None,
) -> VerifyReport:
    if pool is None:
        return await verify(
            files,
            require_manifest=require_manifest,
            shard=shard,
            chain_options=chain_options,
            on_progress=on_progress,
        )
    from asyncbackup.dispatch.verify import verify_over  # noqa: PLC0415 - loads much

    return await verify_over(
        pool, files, require_manifest=require_manifest, chain_options=chain_options, on_progress=on_progress
    )


def _refuse_options_without_effect(vdi: str | None, sample: float | None, seed: int | None) -> None:
    """Raise UsageError for options of a comparison without one, and for a seed without a sample to choose."""
    if vdi is not None:
        if seed is not None and sample is None:
            raise click.UsageError("--seed has no effect without --sample: give that as well")
        return
    if given := find_given(_OF_COMPARISON):
        raise click.UsageError(f"{given} has no effect without --against: give that as well")


async def _refuse_pipes(files: Sequence[str]) -> None:
    for file in files:
        if await is_fifo(file):
            raise click.UsageError(f"{file} is a pipe, which can be read only once: --against needs files")


def _print(report: VerifyReport, comparison: Comparison | None, shard: Shard | None, *, quiet: bool) -> None:
    for file in report.files:
        _print_problems(file.problems)
        if not quiet:
            say(_verdict(file, shard))
    _print_problems(report.links)
    if not quiet and len(report.files) > 1 and not any(file.piece for file in report.files):
        say(_links(report))
    if comparison is not None:
        if comparison.differing:
            say(_differences(comparison))
        if comparison.replicas is not None:
            _print_replicas(comparison.vdi, comparison.replicas, quiet=quiet)
        if not quiet:
            say(*_compared(comparison, shard))
    if report.is_good and not (quiet or report.is_proved):
        say(_unproved(report, shard))


def _print_problems(problems: Problems) -> None:
    for error in problems.errors:
        say(with_advice(error))
    if problems.count > len(problems.errors):
        say(f"… and {problems.count - len(problems.errors):,} more")


def _verdict(file: FileReport, shard: Shard | None) -> str:
    name = text.source(file.file) + (f", {file.piece}" if file.piece else "")
    trailing = f"; {file.trailing_bytes:,} bytes that are no part of it follow" if file.trailing_bytes else ""
    if file.problems.count:
        problems = f"{file.problems.count:,} problem{'' if file.problems.count == 1 else 's'}"
        return f"{name}: BAD, {problems}{trailing}"
    found = f"{text.records(file.records)}, {text.size(file.data_bytes)}"
    if file.missing:
        return f"{name}: INCOMPLETE, {text.missing(file.missing)} could not be read for it: {found}{trailing}"
    if file.assumed:
        of_base = f"{text.records(file.assumed)} with bytes of a base that nobody proved"
        return f"{name}: all data is as its manifest says, but it has {of_base}: {found}{trailing}"
    if file.has_manifest and shard is not None:
        share = f"{text.records(file.records_digested)} of {file.records:,}, {text.size(file.bytes_digested)}"
        return f"{name}: good, the data of share {shard} is as its manifest says: {share}{trailing}"
    if file.has_manifest:
        return f"{name}: good, all data is as its manifest says: {found}{trailing}"
    return f"{name}: structure only, without a manifest nothing proves its data: {found}{trailing}"


def _links(report: VerifyReport) -> str:
    if report.links.count:
        return "chain: BROKEN"
    if report.unproven_links:
        return f"chain: {report.unproven_links} of {len(report.files) - 1} links cannot be proven without manifests"
    return "chain: good, each file follows the one before it"


def _unproved(report: VerifyReport, shard: Shard | None) -> str:
    without = sum(not file.has_manifest for file in report.files)
    assumed = sum(file.assumed > 0 for file in report.files)
    of = f"of {text.backups(len(report.files))}"
    if not without and not assumed:
        assert shard is not None, "a whole proof leaves nothing out"
        return f"share {shard} is proved: all {shard.count} of them together prove all data"
    if not without:
        return f"not proved: {assumed:,} {of} with bytes of a base that nobody proved"
    return f"not proved: {without:,} {of} without a manifest, structure only"


def _differences(comparison: Comparison) -> str:
    listed = ", ".join(map(str, comparison.differing_idx[:_LISTED]))
    others = f" and {comparison.differing - _LISTED:,} more" if comparison.differing > _LISTED else ""
    return f"{comparison.vdi} differs in {text.objects(comparison.differing)}: {listed}{others}"


def _print_replicas(vdi: str, found: ReplicaReport, *, quiet: bool) -> None:
    for idx, oid, replicas in found.named[:_LISTED]:
        say(f"{vdi}: the copies of object {idx} (oid {oid:016x}) differ: {', '.join(map(str, replicas))}")
    if found.diverging > _LISTED:
        say(f"… and those of {found.diverging - _LISTED:,} more objects")
    if not quiet:
        verdict = f"those of {text.objects(found.diverging)} DIFFER" if found.diverging else "all the same"
        say(f"{vdi}: read {found.replicas:,} copies of {text.objects(found.objects)}: {verdict}")


def _compared(comparison: Comparison, shard: Shard | None) -> list[str]:
    share = "" if shard is None else f", share {shard}"
    where = f"{comparison.vdi} {comparison.snapshot or '(the working VDI)'}{share}"
    verdict = "the same" if not comparison.differing else "NOT THE SAME"
    compared = f"{text.size(comparison.bytes_compared)} of {text.objects(comparison.objects_done)}"
    lines = [f"{where}: {verdict}; compared {compared}"]
    if comparison.seed is not None:
        lines.append(
            f"audited {comparison.unchanged_audited:,} of {text.objects(comparison.unchanged)} without a record, and "
            f"what lies around {comparison.partly_changed_audited:,} of {text.records(comparison.partly_changed)}; "
            f"{comparison.shared:,} shared with the base; seed {comparison.seed}"
        )
    return [*lines, *text.assumed(comparison.assumed)]
