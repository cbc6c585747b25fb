"""``asyncbackup backup``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import click

from asyncbackup.cli import text
from asyncbackup.cli.access_options import access_options
from asyncbackup.cli.backup_refusals import Wanted, check_files, check_manifest, check_resume, check_shard, check_source
from asyncbackup.cli.exits import ExitCode
from asyncbackup.cli.files import check_output, is_piped, open_output
from asyncbackup.cli.layer_options import check_layers, layer_options
from asyncbackup.cli.main import CONTEXT, Verb
from asyncbackup.cli.options import (
    PATH,
    cluster_options,
    connection_options,
    format_option,
    json_option,
    quiet_option,
    resume_options,
    snapshot_name,
    window_options,
)
from asyncbackup.cli.output import COMPLETE, complain, say_report, warn
from asyncbackup.cli.progress import progress_option, telling_progress
from asyncbackup.cli.resuming import command_that_resumes, telling_how_to_go_on
from asyncbackup.cli.running import run_async
from asyncbackup.cli.shard_options import shard_option
from asyncbackup.cli.split_options import Split, split_options
from asyncbackup.client import Address, ClientOptions, connect_any
from asyncbackup.engine.cut import Shard
from asyncbackup.engine.progress import Summary
from asyncbackup.engine.window import WindowOptions
from asyncbackup.errors import ManifestUnplaced, NotResumable, TargetExists
from asyncbackup.format import Dialect
from asyncbackup.storage import Access, Layers
from asyncbackup.storage.backup_target import BackupTarget, check_target
from asyncbackup.verbs.backup import Delta, Estimate, backup, estimate


def _also(context: click.Context, param: click.Parameter, values: Sequence[str]) -> list[Wanted]:
    """Read FILE=SNAPSHOT, or FILE alone. Raises BadParameter."""
    found = []
    for value in values:
        # A name may have `=` in it: the last one counts.
        file, _, base = value.rpartition("=") if "=" in value else (value, "", "")
        if file == "-":
            raise click.BadParameter("standard output is for FILE alone")
        found.append(Wanted(PATH.convert(file, param, context), snapshot_name(context, param, base or None)))
    return found


@click.command(
    "backup",
    cls=Verb,
    context_settings=CONTEXT,
    examples=[
        "asyncbackup backup -s monday vm1 /backup/vm1.monday",
        "asyncbackup backup -s friday -F thursday vm1 /backup/vm1.friday --also /backup/vm1.week=monday",
    ],
)
@click.argument("vdi")
@click.argument("file", type=PATH)
@click.option(
    "-s",
    "--snapshot",
    metavar="SNAPSHOT",
    callback=snapshot_name,
    help="Back up this snapshot. Give its tag, or its id, which is all digits.",
)
@click.option(
    "-F",
    "--from",
    "--base",
    "base",
    metavar="SNAPSHOT",
    callback=snapshot_name,
    help="Back up only what changed since this older snapshot of VDI. That is an increment.",
)
@click.option(
    "--also",
    multiple=True,
    metavar="FILE[=SNAPSHOT]",
    callback=_also,
    help="Write another backup of the same snapshot to this FILE as well: what changed since SNAPSHOT, or without one "
    "all of it. Each object is read once for all of them. You can give several.",
)
@split_options
@shard_option(
    "Make only this piece of the backup, such as 3/8; other machines make the others. `asyncbackup join` makes the "
    "backup of them."
)
@cluster_options
@click.option(
    "--live",
    is_flag=True,
    help="Back up the VDI as it is now, without a snapshot. If a guest writes meanwhile, the backup mixes moments.",
)
@format_option
@connection_options
@window_options
@layer_options
@access_options
@click.option(
    "--manifest",
    type=PATH,
    help="Write the manifest to this file, if FILE is `-` or a FIFO.  [default: write none]",
)
@click.option("--no-manifest", is_flag=True, help="Do not write FILE.manifest, which can prove the backup later.")
@click.option("--force", is_flag=True, help="Replace FILE if it exists, when the new backup is complete.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Say what would be read and written at most, or what is in the way at FILE, and do nothing. No data object is "
    "read.",
)
@resume_options
@click.option(
    "--skip-unreadable",
    is_flag=True,
    help="Finish without the objects that the cluster cannot give. The manifest names them, and the exit code is 1.",
)
@quiet_option
@progress_option
@json_option
def command(
    *,
    vdi: str,
    file: str,
    snapshot: int | str | None,
    base: int | str | None,
    also: Sequence[Wanted],
    split: Split,
    shard: Shard | None,
    gateways: Sequence[Address],
    live: bool,
    to_dialect: Dialect | None,
    client_options: ClientOptions,
    options: WindowOptions,
    access: Access,
    layers: Layers,
    manifest: str | None,
    no_manifest: bool,
    force: bool,
    dry_run: bool,
    resume: bool,
    checkpoint_bytes: int,
    skip_unreadable: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Back up a snapshot of VDI into FILE: all of it or, with -F, what changed since an older snapshot.

    FILE appears under its name only when it is complete and on disk. FILE.manifest appears beside it: it says what was
    backed up, and it can prove the backup later. FILE `-` is standard output. A FIFO is written like standard output.
    FILE may be a URL of an object store, such as s3://bucket/vm1.monday.

    If the run is interrupted after the first checkpoint, what it wrote stays, and the same command with --resume goes
    on with it.
    """
    check_source(snapshot, live=live)
    if manifest is not None and no_manifest:
        raise click.UsageError("give either --manifest or --no-manifest, not both")
    wanted = [Wanted(file, base, manifest), *also]
    check_shard(shard, wanted, live=live, split=split, no_manifest=no_manifest)
    check_manifest(wanted, skip_unreadable=skip_unreadable, no_manifest=no_manifest)
    check_resume(wanted, resume=resume, live=live, no_manifest=no_manifest)
    # A piece has no beginning to patch, whatever the format.
    is_patched = shard is None and to_dialect is not None and to_dialect.needs_patch
    check_layers(layers, is_patched=is_patched, keeps=True, split=split.option)
    check_output(*(each.file for each in wanted), is_patched=is_patched)
    check_files(wanted, split=split.option)
    again = command_that_resumes()
    if live and not quiet and not dry_run:
        warn(f"if a guest writes to {vdi} while it is backed up, the backup mixes older and newer data")

    async def work() -> Summary:
        # The target comes first, so that its errors are raised before anything is read.
        async with (
            telling_progress(vdi, wanted=not quiet) as tell,
            _telling_what_is_complete(wanted, resume=resume),
            _open_outputs(
                wanted, replace=force, resume=resume, with_manifest=not no_manifest, access=access, layers=layers
            ) as targets,
            telling_how_to_go_on(lambda: any(each.partial and each.partial.is_kept for each in targets), again),
            split.workers() as workers,
            connect_any(gateways, client_options) as cluster,
        ):
            first, *others = targets
            return await backup(
                cluster,
                vdi,
                first.data,
                snapshot=snapshot,
                base=base,
                live=live,
                checkpoint_bytes=checkpoint_bytes,
                skip_unreadable=skip_unreadable,
                manifest=first.manifest,
                partial=first.partial,
                dialect=_dialect(first, to_dialect),
                options=options,
                on_progress=tell,
                also=[
                    Delta(target.data, each.base, target.manifest, target.partial, _dialect(target, to_dialect))
                    for each, target in zip(also, others, strict=True)
                ],
                processes=split.processes,
                workers=workers,
                shard=shard,
            )

    async def look() -> Estimate:
        for each in wanted:
            place = None if each.file == "-" else each.file
            await check_target(
                place,
                replace=force,
                resume=resume,
                manifest=each.manifest,
                with_manifest=not no_manifest,
                access=access,
                layers=layers,
            )
        async with connect_any(gateways, client_options) as cluster:
            bases = [each.base for each in also]
            return await estimate(cluster, vdi, snapshot=snapshot, base=base, live=live, also=bases, shard=shard)

    try:
        if dry_run:
            found = run_async(look)
            say_report(found.as_dict(), _expectation(found), as_json=as_json, quiet=quiet)
            return
        summary = run_async(work)
    except ManifestUnplaced as error:
        message = "--manifest is only for `-` and FIFOs: that of a file or an object stands beside it"
        raise click.UsageError(message) from error
    except NotResumable as error:
        raise click.UsageError(f"--resume needs a file: {error}") from error
    is_good = not any([summary.missing, *(each.missing for each in summary.also)])
    report = _report(summary, file)
    say_report(
        summary.as_dict(), report, as_json=as_json, quiet=quiet, is_good=is_good, err=is_piped(file), done=COMPLETE
    )
    _end(summary, file, as_json=as_json)


@asynccontextmanager
async def _telling_what_is_complete(wanted: Sequence[Wanted], *, resume: bool) -> AsyncIterator[None]:
    """Add to a TargetExists that --resume goes on with the others, if there are any."""
    try:
        yield
    except TargetExists as error:
        if resume and len(wanted) > 1:
            error.add_note("if it is complete already, leave it out: --resume goes on with the others")
        raise


@asynccontextmanager
async def _open_outputs(
    wanted: Sequence[Wanted], *, replace: bool, resume: bool, with_manifest: bool, access: Access, layers: Layers
) -> AsyncIterator[list[BackupTarget]]:
    """Open what the backups go to, as ``open_output`` does for one."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                open_output(
                    each.file,
                    replace=replace,
                    resume=resume,
                    manifest=each.manifest,
                    with_manifest=with_manifest,
                    access=access,
                    layers=layers,
                )
            )
            for each in wanted
        ]


def _dialect(target: BackupTarget, chosen: Dialect | None) -> Dialect:
    return chosen or Dialect.usual(can_patch=target.data.can_patch)


def _end(summary: Summary, file: str, *, as_json: bool) -> None:
    """Raise Exit if the backup lacks something."""
    lacking = {file: summary.missing} | {each.file: each.missing for each in summary.also}
    lacking = {name: missing for name, missing in lacking.items() if missing}
    if lacking:
        if not as_json:
            for name, missing in lacking.items():
                complain(f"{text.target(name)} is INCOMPLETE: {text.missing(missing)} could not be read")
        raise click.exceptions.Exit(ExitCode.FAILURE)


def _expectation(found: Estimate) -> list[str]:
    """Say what the backup would read and write at most."""
    return [
        (
            f"would read at most {text.size(found.bytes_to_read)} of {text.objects(found.objects_to_read)}, "
            f"and write at most {text.size(found.bytes_to_write)}"
        ),
        f"would compare {text.objects(found.objects_planned)}, and skip {found.objects_shared:,} shared",
    ]


def _report(summary: Summary, file: str) -> list[str]:
    what = f"{summary.vdi} {summary.snapshot or '(live)'}"
    against = f" against {summary.base}" if summary.base is not None else ""
    rate = text.rate(summary.bytes_read, summary.elapsed_s)
    piece = f", {summary.piece}" if summary.piece is not None else ""
    lines = [
        (
            f"{what}{against}{piece}: {text.objects(summary.records)} in {text.size(summary.bytes_written)} "
            f"to {text.target(file)}"
        ),
        (
            f"compared {text.objects(summary.objects_planned)}, skipped {summary.objects_shared:,} shared; "
            f"read {text.size(summary.bytes_read)} in {summary.elapsed_s:.1f} s ({rate})"
        ),
    ]
    for each in summary.also:
        since = f"against {each.base}" if each.base is not None else "in full"
        lines.append(f"also {since}: {text.objects(each.records)} in {text.size(each.bytes_written)} to {each.file}")
    if summary.bytes_resumed:
        lines.append(f"went on behind {text.size(summary.bytes_resumed)} that an interrupted run had written")
    if summary.latencies_s:
        lines.append(_traffic(summary))
    if summary.objects_discarded:
        lines.append(f"{text.objects(summary.objects_discarded)} discarded by the guest meanwhile: zeros in the backup")
    if summary.bases_unreadable:
        lines.append(f"{text.objects(summary.bases_unreadable)} written whole: what the base has could not be read")
    return lines


def _traffic(summary: Summary) -> str:
    """Say how the cluster answered."""
    half_s, most_s = (summary.latencies_s[percent] for percent in ("50", "99"))
    line = (
        f"sent {text.requests(summary.requests)}, up to {text.size(summary.most_in_flight)} at a time; "
        f"half of them answered within {half_s * 1000:.1f} ms, "
        f"99 % within {most_s * 1000:.1f} ms"
    )
    if summary.hedges:
        line += f"; {summary.hedges:,} late ones sent to a second node"
    if summary.retries:
        causes = ", ".join(f"{cause} {count:,}" for cause, count in sorted(summary.retry_causes.items()))
        line += f"; {summary.retries:,} sent again ({causes})"
    return line
