"""``asyncbackup join``."""

from __future__ import annotations

from collections.abc import Sequence

import click

from asyncbackup.cli import text
from asyncbackup.cli.access_options import access_options
from asyncbackup.cli.exits import ExitCode
from asyncbackup.cli.files import check_output, is_piped, leave_out, open_output
from asyncbackup.cli.layer_options import layer_options
from asyncbackup.cli.main import CONTEXT, Verb
from asyncbackup.cli.options import PATH, json_option, new_file_options, quiet_option
from asyncbackup.cli.output import COMPLETE, complain, say_report
from asyncbackup.cli.progress import name_target, progress_option, telling_progress
from asyncbackup.cli.running import run_async
from asyncbackup.storage import Access, Layers
from asyncbackup.verbs.join import JoinSummary, join


@click.command(
    "join",
    cls=Verb,
    context_settings=CONTEXT,
    examples=["asyncbackup join /backup/vm1.monday.piece* --to /backup/vm1.monday"],
)
@click.argument("pieces", type=PATH, metavar="PIECE...", nargs=-1, required=True)
@new_file_options
@layer_options
@access_options
@quiet_option
@progress_option
@json_option
def command(
    *,
    pieces: Sequence[str],
    target: str,
    no_manifest: bool,
    force: bool,
    access: Access,
    layers: Layers,
    quiet: bool,
    as_json: bool,
) -> None:
    """Make the backup that PIECEs, in any order, are the pieces of.

    `asyncbackup backup --shard` makes pieces. FILE and its manifest are the same as one run makes them. The data of
    PIECEs is not proved here: `asyncbackup verify` proves it, of the pieces before or of FILE afterwards.
    """
    if "-" in pieces:
        raise click.UsageError("a piece is a file: standard input has no manifest")
    check_output(target, is_patched=False)
    pieces = leave_out(pieces, access=access, quiet=quiet)

    output = open_output(
        target, replace=force, with_manifest=not no_manifest, inputs=pieces, access=access, layers=layers
    )

    async def work() -> JoinSummary:
        # The target comes first, so that its errors are raised before anything is read.
        async with telling_progress(name_target(target), wanted=not quiet) as tell, output as opened:
            return await join(pieces, opened.data, manifest=opened.manifest, access=access, on_progress=tell)

    summary = run_async(work)
    say_report(
        summary.as_dict(),
        _report(summary, target),
        as_json=as_json,
        quiet=quiet,
        is_good=not summary.missing,
        err=is_piped(target),
        done=COMPLETE,
    )
    if summary.missing:
        if not as_json:
            complain(f"{text.target(target)} is INCOMPLETE: {text.missing(summary.missing)} could not be read")
        raise click.exceptions.Exit(ExitCode.FAILURE)


def _report(summary: JoinSummary, target: str) -> list[str]:
    manifest = "" if summary.has_manifest else ", without a manifest"
    return [
        f"{text.target(target)}: {text.objects(summary.records)} from {text.pieces(summary.pieces)}{manifest}",
        text.wrote(summary.bytes_written, summary.elapsed_s),
    ]
