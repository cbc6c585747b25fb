"""``asyncbackup export``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import Final

import click

from asyncbackup.cli import text
from asyncbackup.cli.access_options import access_options
from asyncbackup.cli.base import find_base, named_base
from asyncbackup.cli.files import order_chain
from asyncbackup.cli.main import CONTEXT, Verb
from asyncbackup.cli.options import (
    LOCAL_PATH,
    PATH,
    base_options,
    check_base,
    cluster_options,
    connection_options,
    file_options,
    incomplete_option,
    json_option,
    quiet_option,
    resume_options,
    vdi_size,
    window_options,
)
from asyncbackup.cli.output import is_terminal, say_report, warn
from asyncbackup.cli.progress import name_target, progress_option, telling_progress
from asyncbackup.cli.resuming import command_that_resumes, telling_how_to_go_on
from asyncbackup.cli.running import Interrupted, run_async
from asyncbackup.client import Address, ClientOptions, connect_any
from asyncbackup.engine.chain import ChainOptions
from asyncbackup.engine.window import WindowOptions
from asyncbackup.errors import NotResumable
from asyncbackup.format import Dialect
from asyncbackup.storage import Access, PipeTarget, is_fifo, open_fifo
from asyncbackup.storage.image import is_unfinished, marker_path
from asyncbackup.verbs.export import ExportSummary, export

_COMPLETE: Final = "the image itself is complete"


@click.command(
    "export",
    cls=Verb,
    context_settings=CONTEXT,
    examples=["asyncbackup export /backup/vm1.monday /backup/vm1.tuesday --to vm1.img"],
)
@click.argument("files", type=PATH, metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--to",
    "image",
    type=LOCAL_PATH,
    metavar="IMAGE",
    required=True,
    help="Write this raw image. `-` is standard output.",
)
@base_options
@incomplete_option
@cluster_options
@click.option("--force", is_flag=True, help="Replace IMAGE if it exists, when the new one is complete.")
@click.option(
    "--size",
    metavar="SIZE",
    callback=vdi_size,
    help="Make the image this large, such as 10G.  [default: what the manifest says]",
)
@resume_options
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
    image: str,
    base: int | str | None,
    base_vdi: str | None,
    base_image: str | None,
    assume_base: bool,
    allow_incomplete: bool,
    gateways: Sequence[Address],
    force: bool,
    resume: bool,
    checkpoint_bytes: int,
    manifests: tuple[str, ...],
    access: Access,
    size: int | None,
    object_size: int | None,
    dialect: Dialect | None,
    client_options: ClientOptions,
    options: WindowOptions,
    quiet: bool,
    as_json: bool,
) -> None:
    """Make a raw image from FILEs: a full backup and its increments, or increments and their base.

    IMAGE holds the same bytes as `dog vdi read` of the newest snapshot, with holes where nothing was ever written. It
    appears under its name only when it is complete and on disk, together with IMAGE.state, which says what it is.

    `FOLDER@SNAPSHOT` in place of FILEs takes those backups in FOLDER that lead to that snapshot with the least to read.
    SNAPSHOT is its tag, its id or its time, or `VDI:SNAPSHOT`; `asyncbackup list FOLDER` shows what is there.
    With a base, they begin there.

    Increments alone need their base: a snapshot in the cluster (--base) or an image of it (--base-image). If
    --base-image is IMAGE itself, the increments are applied to it in place. All of them are checked before the first
    byte is written. If that is interrupted later, IMAGE.rolling stays, and the same command finishes the work.

    If making a new IMAGE is interrupted after the first checkpoint, what was written stays, and the same command with
    --resume goes on with it.
    """
    to_stdout = image == "-"
    if to_stdout and is_terminal():
        raise click.UsageError("an image is not for a terminal: redirect standard output, or name a file")
    check_base(base, base_vdi, base_image)
    named = partial(find_base, base, base_vdi, base_image)
    files, manifests = order_chain(files, manifests, access=access, quiet=quiet, find_base=named)
    chain_options = ChainOptions(dialect, object_size, size, manifests, access=access)
    again = command_that_resumes()

    async def work() -> tuple[ExportSummary, bool]:
        is_piped = to_stdout or await is_fifo(image)
        if is_piped and resume:
            raise click.UsageError("--resume needs a file: what went into a pipe cannot be gone on with")
        opening: AbstractAsyncContextManager[str | PipeTarget] = nullcontext(image)
        if is_piped:
            opening = PipeTarget(1) if to_stdout else open_fifo(image)
        async with (
            telling_progress(name_target(image), wanted=not quiet) as tell,
            opening as target,
            telling_how_to_go_on(lambda: not is_piped and is_unfinished(image), again),
            named_base(base, base_vdi, base_image, connect_any(gateways, client_options)) as under,
        ):
            summary = await export(
                files,
                target,
                base=under,
                assume_base=assume_base,
                allow_incomplete=allow_incomplete,
                replace=force and not is_piped,
                resume=resume,
                checkpoint_bytes=checkpoint_bytes,
                chain_options=chain_options,
                options=options,
                on_progress=tell,
                on_leftover=warn,
            )
            return summary, is_piped

    try:
        summary, is_piped = run_async(work)
    except Interrupted as error:
        raise _interrupted(error, image) from error
    except NotResumable as error:
        raise click.UsageError(f"--resume is not for this: {error}") from error
    say_report(summary.as_dict(), _report(summary, image), as_json=as_json, quiet=quiet, err=is_piped, done=_COMPLETE)


def _interrupted(error: Interrupted, image: str) -> Interrupted:
    """Say so if the image is half rolled."""
    if image == "-" or not marker_path(image).exists():
        return error
    return Interrupted(error.number, f"{image} is half rolled: the same command finishes it")


def _report(summary: ExportSummary, image: str) -> list[str]:
    return [
        (
            f"{text.target(image)}: {text.size(summary.size)} from {text.backups(summary.files)}"
            f"{', in place' if summary.in_place else ''}{'' if summary.checked else ', not checked: no manifest'}"
        ),
        text.wrote(summary.bytes_written, summary.elapsed_s),
        *(
            [f"went on behind {text.objects(summary.objects_resumed)} of an interrupted run"]
            if summary.objects_resumed
            else []
        ),
        *text.assumed(summary.assumed),
        *text.lacking(summary.missing),
    ]
