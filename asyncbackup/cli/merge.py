"""``asyncbackup merge``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import click

from asyncbackup.cli import text
from asyncbackup.cli.access_options import access_options
from asyncbackup.cli.base import find_base, named_base
from asyncbackup.cli.files import check_output, is_piped, open_output, order_chain
from asyncbackup.cli.layer_options import check_layers, layer_options
from asyncbackup.cli.main import CONTEXT, Verb
from asyncbackup.cli.options import (
    PATH,
    base_options,
    check_base,
    cluster_options,
    connection_options,
    file_options,
    format_option,
    json_option,
    new_file_options,
    quiet_option,
    window_options,
)
from asyncbackup.cli.output import COMPLETE, say_report
from asyncbackup.cli.progress import name_target, progress_option, telling_progress
from asyncbackup.cli.running import run_async
from asyncbackup.client import Address, ClientOptions, connect_any
from asyncbackup.engine.chain import ChainOptions
from asyncbackup.engine.window import WindowOptions
from asyncbackup.format import Dialect
from asyncbackup.storage import Access, Layers
from asyncbackup.verbs.merge import MergeSummary, merge


@click.command(
    "merge",
    cls=Verb,
    context_settings=CONTEXT,
    examples=["asyncbackup merge /backup/vm1.tuesday /backup/vm1.wednesday --to /backup/vm1.midweek"],
)
@click.argument("files", type=PATH, metavar="FILE...", nargs=-1, required=True)
@new_file_options
@format_option
@base_options
@cluster_options
@layer_options
@access_options
@file_options
@connection_options
@window_options
@quiet_option
@progress_option
@json_option
def command(
    *,
    files: Sequence[str],
    target: str,
    to_dialect: Dialect | None,
    base: int | str | None,
    base_vdi: str | None,
    base_image: str | None,
    assume_base: bool,
    gateways: Sequence[Address],
    no_manifest: bool,
    force: bool,
    manifests: tuple[str, ...],
    access: Access,
    layers: Layers,
    object_size: int | None,
    dialect: Dialect | None,
    client_options: ClientOptions,
    options: WindowOptions,
    quiet: bool,
    as_json: bool,
) -> None:
    """Make one backup that does the same as FILEs one after the other.

    A base is needed only if two increments changed separate places of one object. A backup has only one range for each
    object, so the bytes between the two places must come from the base.

    `FOLDER@SNAPSHOT` in place of FILEs takes those backups in FOLDER that lead to that snapshot with the least to read.
    SNAPSHOT is its tag, its id or its time, or `VDI:SNAPSHOT`; `asyncbackup list FOLDER` shows what is there.
    """
    is_patched = to_dialect is not None and to_dialect.needs_patch
    check_layers(layers, is_patched=is_patched)
    check_output(target, is_patched=is_patched)
    check_base(base, base_vdi, base_image)
    named = partial(find_base, base, base_vdi, base_image)
    files, manifests = order_chain(files, manifests, access=access, quiet=quiet, find_base=named)
    inputs = [*files, *([base_image] if base_image else [])]
    opening = open_output(
        target, replace=force, with_manifest=not no_manifest, inputs=inputs, access=access, layers=layers
    )
    chain_options = ChainOptions(dialect, object_size, manifests=manifests, access=access)

    async def work() -> MergeSummary:
        async with (
            telling_progress(name_target(target), wanted=not quiet) as tell,
            opening as opened,
            named_base(base, base_vdi, base_image, connect_any(gateways, client_options)) as under,
        ):
            return await merge(
                files,
                opened.data,
                base=under,
                assume_base=assume_base,
                manifest=opened.manifest,
                chain_options=chain_options,
                dialect=to_dialect or Dialect.usual(can_patch=opened.data.can_patch),
                options=options,
                on_progress=tell,
            )

    summary = run_async(work)
    say_report(
        summary.as_dict(), report(summary, target), as_json=as_json, quiet=quiet, err=is_piped(target), done=COMPLETE
    )


def report(summary: MergeSummary, target: str) -> list[str]:
    """Tell people what was written, in lines."""
    return [
        (
            f"{text.target(target)}: {text.objects(summary.records)} "
            f"from {text.backups(summary.files)}{'' if summary.has_manifest else ', without a manifest'}"
        ),
        text.wrote(summary.bytes_written, summary.elapsed_s),
        *text.assumed(summary.assumed),
    ]
