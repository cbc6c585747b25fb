"""``asyncbackup merge``."""

from __future__ import annotations

from collections.abc import Sequence

import click

from asyncbackup.cli import text
from asyncbackup.cli.base import named_base
from asyncbackup.cli.files import arrange, leave_out
from asyncbackup.cli.main import CONTEXT, Verb
from asyncbackup.cli.options import (
    PATH,
    base_options,
    check_base,
    check_manifests,
    check_output,
    cluster_options,
    connection_options,
    file_options,
    json_option,
    quiet_option,
    window_options,
)
from asyncbackup.cli.output import COMPLETE, say, say_json, warn
from asyncbackup.cli.progress import name_target, progress_bar
from asyncbackup.cli.running import run_async
from asyncbackup.client import ClientOptions, connect
from asyncbackup.engine.chain import ChainOptions
from asyncbackup.engine.progress import OnProgress
from asyncbackup.engine.window import WindowOptions
from asyncbackup.format import Dialect
from asyncbackup.storage import open_standard_output, open_target
from asyncbackup.verbs.merge import MergeSummary, merge


@click.command(
    "merge",
    cls=Verb,
    context_settings=CONTEXT,
    examples=["asyncbackup merge /backup/vm1.tuesday /backup/vm1.wednesday --to /backup/vm1.midweek"],
)
@click.argument("files", type=PATH, metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--to", "target", type=PATH, metavar="FILE", required=True, help="Write this backup; `-` is standard output."
)
@click.option(
    "--format",
    "to_dialect",
    type=click.Choice([dialect.value for dialect in Dialect]),
    help="Write this format. collie needs a file, and dog can go to a pipe.  [default: collie; dog to standard output]",
)
@base_options
@cluster_options
@click.option("--no-manifest", is_flag=True, help="Do not write a manifest beside the new file.")
@click.option("--force", is_flag=True, help="Replace the file if it exists, once the new one is complete.")
@file_options
@connection_options
@window_options
@quiet_option
@json_option
def command(
    *,
    files: Sequence[str],
    target: str,
    to_dialect: str | None,
    base: int | str | None,
    base_vdi: str | None,
    base_image: str | None,
    assume_base: bool,
    address: str,
    port: int,
    no_manifest: bool,
    force: bool,
    manifests: tuple[str, ...],
    object_size: int | None,
    dialect: Dialect | None,
    connections: int,
    timeout: float,
    in_flight: int,
    memory: int,
    quiet: bool,
    as_json: bool,
) -> None:
    """Make one backup that does what FILEs do one after the other.

    A base is only needed where two increments changed an object in places apart from one another: a backup has one
    range an object, so what lies between them has to come from somewhere.
    """
    files = leave_out(files, quiet=quiet)
    files, manifests = arrange(files, check_manifests(manifests, files), quiet=quiet)
    to_stdout = target == "-"
    format_ = Dialect(to_dialect) if to_dialect else None
    check_base(base, base_vdi, base_image)
    check_output(to_stdout=to_stdout, seeks=format_ is not None and format_.needs_patch)
    inputs = [*files, *([base_image] if base_image else [])]
    opening = (
        open_standard_output(None)
        if to_stdout
        else open_target(target, replace=force, with_manifest=not no_manifest, inputs=inputs, on_leftover=warn)
    )
    chain_options = ChainOptions(dialect, object_size, manifests=manifests)
    client_options = ClientOptions(connections=connections, request_timeout_s=timeout)

    async def work(on_progress: OnProgress | None) -> tuple[MergeSummary, bool]:
        async with (
            opening as opened,
            named_base(base, base_vdi, base_image, connect(address, port, client_options)) as under,
        ):
            summary = await merge(
                files,
                opened.data,
                base=under,
                assume_base=assume_base,
                manifest=opened.manifest,
                chain_options=chain_options,
                dialect=format_ or Dialect.usual(can_patch=opened.data.can_patch),
                options=WindowOptions(workers=in_flight, memory=memory),
                on_progress=on_progress,
            )
            return summary, not opened.data.can_patch

    with progress_bar(name_target(target), wanted=not quiet) as tell:
        summary, is_piped = run_async(lambda: work(tell))
    if as_json:
        say_json(summary.as_dict(), err=is_piped, done=COMPLETE)
    elif not quiet:
        say(*report(summary, target), err=is_piped, done=COMPLETE)


def report(summary: MergeSummary, target: str) -> list[str]:
    """Tell people what was written, in lines."""
    return [
        (
            f"{'standard output' if target == '-' else target}: {text.objects(summary.records)} "
            f"from {text.backups(summary.files)}{'' if summary.has_manifest else ', without a manifest'}"
        ),
        text.wrote(summary.bytes_written, summary.elapsed_s),
        *text.assumed(summary.assumed),
    ]
