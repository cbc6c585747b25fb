"""The part of ``asyncbackup restore`` that writes one shard of a VDI, or completes a VDI of which all are written."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final, TypeVar, cast

import click

from asyncbackup.cli import text
from asyncbackup.cli.files import refuse_pipes
from asyncbackup.cli.main import typed_command
from asyncbackup.cli.options import WholeNumber, find_given
from asyncbackup.cli.output import say_report
from asyncbackup.cli.progress import telling_progress
from asyncbackup.cli.resuming import telling_how_to_go_on
from asyncbackup.cli.running import run_async
from asyncbackup.cli.shard_options import shard_option
from asyncbackup.client import Cluster
from asyncbackup.engine.chain import ChainOptions
from asyncbackup.engine.cut import Shard
from asyncbackup.engine.opening import BaseSnapshot
from asyncbackup.engine.window import WindowOptions
from asyncbackup.errors import ChangedMeanwhile
from asyncbackup.format.piece import MAX_PIECES
from asyncbackup.verbs.join_shards import join_shards
from asyncbackup.verbs.restore import RestoreSummary
from asyncbackup.verbs.restore_shard import ShardSummary, restore_shard

_Function = TypeVar("_Function", bound=Callable[..., Any])

_OF_ONE_RUN: Final = frozenset({"is_onto", "base_image", "resume", "checkpoint_bytes", "journal", "dask"})
"""Parameters of what several runs do not do."""

_WRITTEN: Final = "the shard itself is written"
_COMPLETE: Final = "the VDI itself is complete"


@dataclass(frozen=True, slots=True)
class Part:
    """Which part of a restore in shards this run does."""

    shard: Shard | None
    """One shard."""
    count: int | None
    """The end, when so many shards are written."""

    @property
    def option(self) -> str | None:
        """The option that was given; None: the run restores all by itself."""
        return "--shard" if self.shard is not None else "--join-shards" if self.count is not None else None

    def check(self, snapshot: str | None, files: Sequence[str]) -> None:
        """Raise UsageError for what does not go with the part."""
        if self.option is None:
            return
        if self.shard is not None and self.count is not None:
            raise click.UsageError("give either --shard or --join-shards, not both")
        if given := find_given(_OF_ONE_RUN):
            raise click.UsageError(f"{self.option} does not do this: leave {given} out")
        if self.shard is not None and snapshot is not None:
            raise click.UsageError("--shard takes no snapshot: give --take-snapshot with --join-shards")
        if self.count is not None and snapshot is None:
            raise click.UsageError("--join-shards needs --take-snapshot, which keeps off what a lost run sends later")
        refuse_pipes(files, self.option)


def shards_options(function: _Function) -> _Function:
    """Add --shard and --join-shards. ``function`` gets both as ``part``."""

    @wraps(function)
    def call(*, shard: Shard | None, count: int | None, **others: Any) -> Any:
        return function(part=Part(shard, count), **others)

    add_shard = shard_option(
        "Write shard NUMBER of COUNT, such as 2/3, of the VDI. All of them together write all objects."
    )
    add_join = click.option(
        "--join-shards",
        "count",
        metavar="COUNT",
        type=WholeNumber(1, MAX_PIECES),
        help="Complete the VDI of which all COUNT shards are written, and take the snapshot of --take-snapshot.",
    )
    return add_shard(add_join(cast(_Function, call)))


def restore_part(
    part: Part,
    files: Sequence[str],
    to: str,
    *,
    snapshot: str | None,
    base: Callable[[Cluster], BaseSnapshot | None],
    copies: int | None,
    assume_base: bool,
    allow_incomplete: bool,
    chain_options: ChainOptions,
    connect: Callable[[], AbstractAsyncContextManager[Cluster]],
    options: WindowOptions,
    quiet: bool,
    as_json: bool,
) -> None:
    """Do the part of the restore, and print the report."""
    again = typed_command()

    async def write(shard: Shard) -> ShardSummary:
        kept = list[bool]()
        async with (
            telling_progress(f"{to}, shard {shard}", wanted=not quiet) as tell,
            _telling_what_stays(to, lambda: bool(kept), again),
            connect() as cluster,
        ):
            return await restore_shard(
                cluster,
                files,
                to,
                shard,
                base=base(cluster),
                copies=copies,
                assume_base=assume_base,
                allow_incomplete=allow_incomplete,
                on_kept=lambda: kept.append(True),
                chain_options=chain_options,
                options=options,
                on_progress=tell,
            )

    async def join(count: int, tag: str) -> RestoreSummary:
        async with telling_how_to_go_on(lambda: True, again), connect() as cluster:
            return await join_shards(
                cluster,
                files,
                to,
                count,
                tag,
                base=base(cluster),
                copies=copies,
                assume_base=assume_base,
                allow_incomplete=allow_incomplete,
                chain_options=chain_options,
            )

    if part.shard is not None:
        written = run_async(lambda: write(cast(Shard, part.shard)))
        say_report(written.as_dict(), _report_shard(written), as_json=as_json, quiet=quiet, done=_WRITTEN)
        return
    count, tag = part.count, snapshot
    assert count is not None
    assert tag is not None, "this was checked"
    joined = run_async(lambda: join(count, tag))
    say_report(joined.as_dict(), _report(joined, count), as_json=as_json, quiet=quiet, done=_COMPLETE)


@asynccontextmanager
async def _telling_what_stays(vdi: str, is_kept: Callable[[], bool], again: str) -> AsyncIterator[None]:
    """Add to what ends the block early how to go on, and how to give up, if the VDI is there and nobody discards it."""
    try:
        yield
    except ChangedMeanwhile:
        raise
    except BaseException as error:
        if is_kept():
            discard = shlex.join(["asyncbackup", "restore", "--discard", vdi])
            error.add_note(
                f"VDI '{vdi}' stays, for the other shards: `{again}` writes this one again, and `{discard}` gives all "
                "of them up"
            )
        raise


def _report_shard(summary: ShardSummary) -> list[str]:
    count = summary.shard.partition("/")[2]
    name = f"{summary.vdi}, shard {summary.shard}"
    what_next = f"when all {count} shards are written, --join-shards {count} completes the VDI"
    if summary.already_written:
        return [f"{name}: was written before; nothing was written", what_next]
    rate = text.rate(summary.bytes_written, summary.elapsed_s)
    return [
        (
            f"{name}: wrote {text.objects(summary.objects_done)}, {text.size(summary.bytes_written)}, "
            f"in {summary.elapsed_s:.1f} s ({rate})"
        ),
        *text.assumed(summary.assumed),
        *text.lacking(summary.missing),
        what_next,
    ]


def _report(summary: RestoreSummary, count: int) -> list[str]:
    if summary.already_applied:
        return [f"{summary.vdi}: is complete already, as snapshot {summary.snapshot} says; nothing was written"]
    on = f", a clone of {summary.base}" if summary.base else ""
    return [
        f"{summary.vdi}: {text.size(summary.size)}{on}",
        f"joined {count} shards: {text.objects(summary.objects_done)}, {text.size(summary.bytes_written)}",
        f"took snapshot {summary.snapshot}",
        *text.assumed(summary.assumed),
        *text.lacking(summary.missing),
        *text.unsaid(summary.origin_missing),
    ]
