"""``asyncbackup restore``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Final

import click

from asyncbackup.cli import text
from asyncbackup.cli.access_options import access_options
from asyncbackup.cli.base import find_base, named_base
from asyncbackup.cli.files import find_neighbours, order_chain, refuse_pipes
from asyncbackup.cli.main import CONTEXT, Verb
from asyncbackup.cli.options import (
    LOCAL_PATH,
    PATH,
    WholeNumber,
    base_options,
    check_base,
    cluster_options,
    connection_options,
    file_options,
    find_given,
    incomplete_option,
    json_option,
    new_tag,
    new_vdi_name,
    quiet_option,
    resume_options,
    vdi_size,
    window_options,
)
from asyncbackup.cli.output import say_report
from asyncbackup.cli.progress import progress_option, telling_progress
from asyncbackup.cli.restore_shards import Part, restore_part, shards_options
from asyncbackup.cli.resuming import command_that_resumes, telling_how_to_go_on
from asyncbackup.cli.running import run_async
from asyncbackup.cli.split_options import Split, dask_option, split_with_dask
from asyncbackup.client import Address, ClientOptions, connect_any
from asyncbackup.engine.chain import ChainOptions
from asyncbackup.engine.lineage import find_held
from asyncbackup.engine.opening import BaseSnapshot
from asyncbackup.engine.window import WindowOptions
from asyncbackup.errors import NotResumable
from asyncbackup.format import Dialect
from asyncbackup.format.identity import Identity
from asyncbackup.storage import Access
from asyncbackup.storage.location import find_object
from asyncbackup.verbs.discard import Discarded, discard
from asyncbackup.verbs.follow import follow
from asyncbackup.verbs.restore import RestoreSummary, restore
from asyncbackup.wire.constants import MAX_COPIES

_OF_NEW_VDI: Final = frozenset(
    {"base", "base_vdi", "base_image", "copies", "allow_incomplete", "resume", "checkpoint_bytes", "journal"}
)
"""Parameters that say of a VDI what one that exists says itself."""

_OF_RESTORE: Final = (_OF_NEW_VDI - {"journal"}) | {
    *("to", "is_onto", "snapshot", "size", "assume_base", "dask", "shard", "count"),
    *("manifests", "dialect", "object_size", "in_flight", "memory"),
}
"""Parameters of what writes a VDI."""

_OF_ONE_MACHINE: Final = frozenset({"is_onto", "base_image", "resume", "checkpoint_bytes", "journal"})
"""Parameters of what --dask does not do."""

_COMPLETE: Final = "the VDI itself is complete"
_DISCARDED: Final = "the VDI itself is removed"


@click.command(
    "restore",
    cls=Verb,
    context_settings=CONTEXT,
    examples=[
        "asyncbackup restore /backup@tuesday --to vm1-restored",
        "asyncbackup restore /backup/vm1.wednesday --to vm1-replica --onto --take-snapshot wednesday",
    ],
)
@click.argument("files", type=PATH, metavar="FILE...", nargs=-1)
@click.option(
    "--to",
    metavar="VDI",
    callback=new_vdi_name,
    help="Make a VDI of this name. No VDI may have it yet, unless --onto is given.",
)
@click.option(
    "--onto",
    "is_onto",
    is_flag=True,
    help="Apply FILEs to the VDI that --to names, which equals what the first FILE is the difference to.",
)
@click.option(
    "--take-snapshot",
    "snapshot",
    metavar="TAG",
    callback=new_tag,
    help="Take a snapshot with this tag when the VDI is complete.",
)
@click.option(
    "--discard",
    "left",
    metavar="VDI",
    help="Remove the VDI that an unfinished restore left, and the journal of that restore.",
)
@base_options
@incomplete_option
@click.option(
    "--size",
    metavar="SIZE",
    callback=vdi_size,
    help="Make the VDI this large, such as 10G.  [default: what the manifest says]",
)
@click.option(
    "--copies",
    metavar="COUNT",
    type=WholeNumber(1, MAX_COPIES),
    help="Tell the cluster to keep this many copies of each object.  [default: what the manifest says]",
)
@resume_options
@click.option(
    "--journal",
    type=LOCAL_PATH,
    help="Say in this file how far the VDI is, for --resume.  [default: a hidden file beside the first FILE, but none "
    "beside a URL]",
)
@shards_options
@dask_option
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
    to: str | None,
    is_onto: bool,
    snapshot: str | None,
    left: str | None,
    base: int | str | None,
    base_vdi: str | None,
    base_image: str | None,
    assume_base: bool,
    allow_incomplete: bool,
    size: int | None,
    copies: int | None,
    resume: bool,
    checkpoint_bytes: int,
    journal: str | None,
    part: Part,
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
    """Make a new VDI from FILEs: a full backup and its increments, or increments and their base.

    The base is a snapshot in the cluster (--base): then the new VDI becomes a clone of it. Or it is an image of one
    (--base-image): then everything in it that is not zeros is written as well.

    `FOLDER@SNAPSHOT` in place of FILEs takes those backups in FOLDER that lead to that snapshot with the least to read.
    SNAPSHOT is its tag, its id or its time, or `VDI:SNAPSHOT`; `asyncbackup list FOLDER` shows what is there.
    With a base, or with --onto, they begin there.

    Without --onto, no existing VDI or snapshot is changed. The new VDI has the tag `unfinished restore` until it is
    complete. FILE `-` is standard input. If the restore is interrupted after the first checkpoint, the VDI stays as it
    is, and the same command with --resume goes on with it.

    With --onto, FILEs are increments, and they are applied to the VDI that --to names. So a replica follows its origin.
    The VDI must have been restored with --take-snapshot, and nobody may have written to it since its last snapshot. The
    VDI is changed only after all this was checked. If the command is interrupted, the same command finishes its work.
    If the VDI holds everything already, nothing is written, and this is no error.

    --dask needs --take-snapshot. A worker that was lost may only sleep, and send an old write when it wakes. In the
    snapshot that write changes nothing, and the new VDI stands on the snapshot.

    --shard writes one of several shards of a new VDI, on any machines, in any order, and again where a run failed. The
    first one makes the VDI. When all are written, --join-shards completes it.

    --discard removes a VDI that has exactly this tag, with all its objects. With the FILEs of the restore, or its
    --journal, it removes the journal, too. It watches the VDI for some seconds first,
    and removes nothing if a restore still works on it. It cannot see a restore that waits, for example for a pipe: make
    sure that none is running.
    """
    if left is not None:
        if given := find_given(_OF_RESTORE):
            raise click.UsageError(f"--discard only removes a VDI: leave {given} out")
        backups = run_async(lambda: find_neighbours(files, access), only_reads=True) if journal is None else []
        _discard(left, backups, journal, gateways, client_options, quiet=quiet, as_json=as_json)
        return
    if not files or to is None:
        raise click.UsageError("Missing argument 'FILE...'." if not files else "Missing option '--to'.")
    if is_onto and (given := find_given(_OF_NEW_VDI)):
        raise click.UsageError(f"--onto takes the VDI as it is: leave {given} out")
    if resume and journal is None and find_object(files[0]) is not None:
        raise click.UsageError("--resume needs --journal: no journal stands beside backups in an object store")
    check_base(base, base_vdi, base_image)
    part.check(snapshot, files)
    split = _split(dask, snapshot, files)
    named = partial(find_base, base, base_vdi, base_image)
    held = partial(_find_held, gateways, client_options, to)
    files, manifests = order_chain(files, manifests, access=access, quiet=quiet, find_base=held if is_onto else named)
    chain_options = ChainOptions(dialect, object_size, size, manifests, access=access)

    if part.option is not None:
        restore_part(
            part,
            files,
            to,
            snapshot=snapshot,
            base=lambda cluster: None if base is None else BaseSnapshot(cluster, base, base_vdi),
            copies=copies,
            assume_base=assume_base,
            allow_incomplete=allow_incomplete,
            chain_options=chain_options,
            connect=lambda: connect_any(gateways, client_options),
            options=options,
            quiet=quiet,
            as_json=as_json,
        )
        return

    again, kept = command_that_resumes(), list[bool]()

    async def work() -> RestoreSummary:
        async with (
            telling_progress(to, wanted=not quiet) as tell,
            telling_how_to_go_on(lambda: bool(kept), again),
            connect_any(gateways, client_options) as cluster,
            named_base(base, base_vdi, base_image, nullcontext(cluster)) as under,
            split.fillers() as fillers,
        ):
            if is_onto:
                return await follow(
                    cluster,
                    files,
                    to,
                    snapshot=snapshot,
                    assume_base=assume_base,
                    chain_options=chain_options,
                    options=options,
                    on_progress=tell,
                )
            return await restore(
                cluster,
                files,
                to,
                base=under,
                copies=copies,
                snapshot=snapshot,
                assume_base=assume_base,
                allow_incomplete=allow_incomplete,
                resume=resume,
                checkpoint_bytes=checkpoint_bytes,
                journal=journal,
                on_kept=lambda: kept.append(True),
                fillers=fillers,
                chain_options=chain_options,
                options=options,
                on_progress=tell,
            )

    try:
        summary = run_async(work)
    except NotResumable as error:
        raise click.UsageError(f"--resume is not for this: {error}") from error
    say_report(summary.as_dict(), _report(summary, is_onto=is_onto), as_json=as_json, quiet=quiet, done=_COMPLETE)


def _split(dask: str | None, snapshot: str | None, files: Sequence[str]) -> Split:
    """Say who does the work. Raises UsageError for what workers of Dask do not do, or cannot see."""
    if dask is not None:
        if given := find_given(_OF_ONE_MACHINE):
            raise click.UsageError(f"--dask does not do this: leave {given} out")
        if snapshot is None:
            raise click.UsageError("--dask needs --take-snapshot, which keeps off what a lost worker sends later")
        refuse_pipes(files, "--dask")
    return split_with_dask(dask)


async def _find_held(gateways: Sequence[Address], options: ClientOptions, vdi: str) -> Identity | None:
    async with connect_any(gateways, options) as cluster:
        return await find_held(cluster, vdi)


def _discard(
    vdi: str,
    backups: Sequence[str],
    journal: str | None,
    gateways: Sequence[Address],
    options: ClientOptions,
    *,
    quiet: bool,
    as_json: bool,
) -> None:
    async def work() -> Discarded:
        async with connect_any(gateways, options) as cluster:
            return await discard(cluster, vdi, backups=backups, journal=journal)

    discarded = run_async(work)
    report = [f"{vdi}: discarded, with {text.objects(discarded.objects)} at most"]
    if discarded.journal is not None:
        report.append(f"removed {discarded.journal}")
    say_report(discarded.as_dict(), report, as_json=as_json, quiet=quiet, done=_DISCARDED)


def _report(summary: RestoreSummary, *, is_onto: bool) -> list[str]:
    if summary.already_applied:
        return [f"{summary.vdi}: holds {summary.origin} already; nothing was written"]
    on = ""
    if summary.base:
        on = f", what was applied to {summary.base}" if is_onto else f", a clone of {summary.base}"
    if summary.base_image:
        on = f", made on {summary.base_image}"
    checked = "" if summary.checked else "; not every file has a manifest, so not all data could be checked"
    rate = text.rate(summary.bytes_written, summary.elapsed_s)
    return [
        f"{summary.vdi}: {text.size(summary.size)}{on}",
        (
            f"wrote {text.objects(summary.objects_done)}, {text.size(summary.bytes_written)}, "
            f"in {summary.elapsed_s:.1f} s ({rate}){checked}"
        ),
        *(
            [f"went on behind {text.objects(summary.objects_resumed)} of an interrupted run"]
            if summary.objects_resumed
            else []
        ),
        *([] if summary.snapshot is None else [f"took snapshot {summary.snapshot}"]),
        *_lost(summary),
        *text.assumed(summary.assumed),
        *text.lacking(summary.missing),
        *text.unsaid(summary.origin_missing),
    ]


def _lost(summary: RestoreSummary) -> list[str]:
    lost = ", ".join(summary.workers_lost)
    return [f"lost {lost}: make sure that it ended before you delete snapshot {summary.snapshot}"] if lost else []
