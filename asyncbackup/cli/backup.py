"""``asyncbackup backup``."""

from __future__ import annotations

import click

from asyncbackup.cli import text
from asyncbackup.cli.files import open_output
from asyncbackup.cli.main import CONTEXT, Verb
from asyncbackup.cli.options import (
    PATH,
    check_output,
    cluster_options,
    connection_options,
    format_option,
    json_option,
    quiet_option,
    snapshot_name,
    window_options,
)
from asyncbackup.cli.output import COMPLETE, say_report, warn
from asyncbackup.cli.progress import progress_bar
from asyncbackup.cli.running import run_async
from asyncbackup.client import ClientOptions, connect
from asyncbackup.engine.progress import OnProgress, Summary
from asyncbackup.engine.window import WindowOptions
from asyncbackup.errors import ManifestUnplaced
from asyncbackup.format import Dialect
from asyncbackup.verbs.backup import backup


@click.command(
    "backup",
    cls=Verb,
    context_settings=CONTEXT,
    examples=[
        "asyncbackup backup -s monday vm1 /backup/vm1.monday",
        "asyncbackup backup -s tuesday -F monday vm1 /backup/vm1.tuesday",
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
@cluster_options
@click.option(
    "--live",
    is_flag=True,
    help="Back up the VDI as it is now, without a snapshot. If a guest writes meanwhile, the backup mixes moments.",
)
@format_option
@connection_options
@window_options
@click.option(
    "--manifest",
    type=PATH,
    help="Write the manifest to this file, if FILE is `-` or a FIFO.  [default: write none]",
)
@click.option("--no-manifest", is_flag=True, help="Do not write FILE.manifest, which can prove the backup later.")
@click.option("--force", is_flag=True, help="Replace FILE if it exists, when the new backup is complete.")
@quiet_option
@json_option
def command(
    *,
    vdi: str,
    file: str,
    snapshot: int | str | None,
    base: int | str | None,
    address: str,
    port: int,
    live: bool,
    to_dialect: Dialect | None,
    client_options: ClientOptions,
    options: WindowOptions,
    manifest: str | None,
    no_manifest: bool,
    force: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Back up a snapshot of VDI into FILE: all of it or, with -F, what changed since an older snapshot.

    FILE appears under its name only when it is complete and on disk. FILE.manifest appears beside it: it says what was
    backed up, and it can prove the backup later. FILE `-` is standard output. A FIFO is written like standard output.
    """
    to_stdout = file == "-"
    if live and snapshot is not None:
        raise click.UsageError("give either -s or --live, not both")
    if snapshot is None and not live:
        raise click.UsageError("name the snapshot to back up with -s, or use --live for the working VDI")
    if manifest is not None and no_manifest:
        raise click.UsageError("give either --manifest or --no-manifest, not both")
    check_output(to_stdout=to_stdout, seeks=to_dialect is not None and to_dialect.needs_patch)
    opening = open_output(file, replace=force, manifest=manifest, with_manifest=not no_manifest)
    if live and not quiet:
        warn(f"if a guest writes to {vdi} while it is backed up, the backup mixes older and newer data")

    async def work(on_progress: OnProgress | None) -> tuple[Summary, bool]:
        # The target comes first, so that an error of it is told before anything is read.
        async with opening as target, connect(address, port, client_options) as cluster:
            summary = await backup(
                cluster,
                vdi,
                target.data,
                snapshot=snapshot,
                base=base,
                live=live,
                manifest=target.manifest,
                dialect=to_dialect or Dialect.usual(can_patch=target.data.can_patch),
                options=options,
                on_progress=on_progress,
            )
            return summary, not target.data.can_patch

    with progress_bar(vdi, wanted=not quiet) as tell:
        try:
            summary, is_piped = run_async(lambda: work(tell))
        except ManifestUnplaced as error:
            raise click.UsageError("--manifest is only for `-` and FIFOs: that of a file stands beside it") from error
    say_report(summary.as_dict(), _report(summary, file), as_json=as_json, quiet=quiet, err=is_piped, done=COMPLETE)


def _report(summary: Summary, file: str) -> list[str]:
    what = f"{summary.vdi} {summary.snapshot or '(live)'}"
    against = f" against {summary.base}" if summary.base is not None else ""
    rate = text.rate(summary.bytes_read, summary.elapsed_s)
    lines = [
        (
            f"{what}{against}: {text.objects(summary.records)} in {text.size(summary.bytes_written)} "
            f"to {text.target(file)}"
        ),
        (
            f"compared {text.objects(summary.objects_planned)}, skipped {summary.objects_shared:,} shared; "
            f"read {text.size(summary.bytes_read)} in {summary.elapsed_s:.1f} s ({rate})"
        ),
    ]
    if summary.objects_discarded:
        lines.append(f"{text.objects(summary.objects_discarded)} discarded by the guest meanwhile: zeros in the backup")
    return lines
