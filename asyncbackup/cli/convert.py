"""``asyncbackup convert``."""

from __future__ import annotations

from typing import Final

import click

from asyncbackup.cli import text
from asyncbackup.cli.access_options import access_options
from asyncbackup.cli.files import check_output, is_piped, leave_out, open_output
from asyncbackup.cli.layer_options import check_layers, layer_options
from asyncbackup.cli.main import CONTEXT, Verb
from asyncbackup.cli.merge import report
from asyncbackup.cli.options import (
    PATH,
    check_manifests,
    file_options,
    json_option,
    new_file_options,
    quiet_option,
    vdi_size,
    window_options,
)
from asyncbackup.cli.output import COMPLETE, say_report
from asyncbackup.cli.progress import name_target, progress_option, telling_progress
from asyncbackup.cli.running import run_async
from asyncbackup.engine.chain import ChainOptions
from asyncbackup.engine.window import WindowOptions
from asyncbackup.format import Dialect
from asyncbackup.storage import Access, Layers
from asyncbackup.verbs.convert import RbdDiffSummary, convert, convert_to_rbd_diff
from asyncbackup.verbs.merge import MergeSummary

_RBD_DIFF: Final = "rbd-diff"


def _ceph_name(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    if value == "":
        raise click.BadParameter("a snapshot needs a name")
    return value


@click.command(
    "convert",
    cls=Verb,
    context_settings=CONTEXT,
    examples=[
        "asyncbackup convert /backup/vm1.monday --to vm1.dog --format dog",
        "asyncbackup convert /backup/vm1.tuesday --to - --format rbd-diff | rbd import-diff - vm1",
    ],
)
@click.argument("file", type=PATH)
@new_file_options
@click.option(
    "--format",
    "to_format",
    type=click.Choice([*(dialect.value for dialect in Dialect), _RBD_DIFF]),
    required=True,
    help="Write this format. `rbd import-diff` reads rbd-diff.",
)
@click.option(
    "--snapshot-name",
    metavar="NAME",
    callback=_ceph_name,
    help="Tell `rbd import-diff` to make a snapshot of this name.  [default: the snapshot's tag or id]",
)
@click.option(
    "--base-name",
    metavar="NAME",
    callback=_ceph_name,
    help="Tell `rbd import-diff` to expect a snapshot of this name.  [default: the base's tag or id]",
)
@click.option(
    "--size",
    metavar="SIZE",
    callback=vdi_size,
    help="Take this as the size of the VDI, for rbd-diff.  [default: what the manifest says]",
)
@layer_options
@access_options
@file_options
@window_options
@quiet_option
@progress_option
@json_option
def command(
    *,
    file: str,
    target: str,
    to_format: str,
    snapshot_name: str | None,
    base_name: str | None,
    no_manifest: bool,
    force: bool,
    manifests: tuple[str, ...],
    access: Access,
    layers: Layers,
    size: int | None,
    object_size: int | None,
    dialect: Dialect | None,
    options: WindowOptions,
    quiet: bool,
    as_json: bool,
) -> None:
    """Write the backup FILE in another format. The new file holds the same.

    With rbd-diff you can move a VDI to Ceph while it is in use: convert and import its full backup first, and then each
    increment. FILE `-` is standard input.
    """
    to_rbd = to_format == _RBD_DIFF
    if not to_rbd and (snapshot_name, base_name, size) != (None, None, None):
        raise click.UsageError("--snapshot-name, --base-name and --size are for --format rbd-diff")
    is_patched = not to_rbd and Dialect(to_format).needs_patch
    check_layers(layers, is_patched=is_patched)
    check_output(target, is_patched=is_patched)
    leave_out([file], access=access, quiet=quiet)
    chain_options = ChainOptions(dialect, object_size, size, check_manifests(manifests, [file]), access=access)

    opening = open_output(
        target, replace=force, with_manifest=not (no_manifest or to_rbd), inputs=[file], access=access, layers=layers
    )

    async def work() -> MergeSummary | RbdDiffSummary:
        async with telling_progress(name_target(target), wanted=not quiet) as tell, opening as opened:
            if to_rbd:
                return await convert_to_rbd_diff(
                    file,
                    opened.data,
                    snapshot_name=snapshot_name,
                    base_name=base_name,
                    chain_options=chain_options,
                    options=options,
                    on_progress=tell,
                )
            return await convert(
                file,
                opened.data,
                manifest=opened.manifest,
                dialect=Dialect(to_format),
                chain_options=chain_options,
                options=options,
                on_progress=tell,
            )

    summary = run_async(work)
    lines = _report(summary, target) if isinstance(summary, RbdDiffSummary) else report(summary, target)
    say_report(summary.as_dict(), lines, as_json=as_json, quiet=quiet, err=is_piped(target), done=COMPLETE)


def _report(summary: RbdDiffSummary, target: str) -> list[str]:
    return [
        (
            f"{text.target(target)}: {summary.snapshot or 'no snapshot'} "
            f"{f'against {summary.base}' if summary.base else 'in full'}, of an image of {text.size(summary.size)}"
        ),
        text.wrote(summary.bytes_written, summary.elapsed_s),
    ]
