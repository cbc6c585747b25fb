"""The options that say how a backup is compressed and encrypted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Final, TypeVar, cast

import click

from asyncbackup.cli.options import WholeNumber, find_given
from asyncbackup.storage import Layers
from asyncbackup.storage.age_keys import read_recipients
from asyncbackup.storage.zstd import DEFAULT_LEVEL, LEVELS

_Function = TypeVar("_Function", bound=Callable[..., Any])

_MAX_THREADS: Final = 256
"""The most threads that compress. A larger number is a typing error."""


def layer_options(function: _Function) -> _Function:
    """Add --zstd, --threads and --encrypt. ``function`` gets them as ``layers``."""

    @wraps(function)
    def call(*, zstd_level: int | None, threads: int | None, recipients: tuple[str, ...], **others: Any) -> Any:
        if threads is not None and zstd_level is None:
            raise click.UsageError("--threads says how many threads compress: give --zstd as well")
        return function(layers=Layers(zstd_level, recipients, threads or 0), **others)

    add_level = click.option(
        "--zstd",
        "zstd_level",
        is_flag=False,
        flag_value=str(DEFAULT_LEVEL),
        type=WholeNumber(LEVELS[0], LEVELS[-1]),
        metavar="[=LEVEL]",
        help=f"Compress the backup with zstd, so that ranges of it can still be read. {LEVELS[0]} is fastest, "
        f"{LEVELS[-1]} smallest; without =LEVEL it is {DEFAULT_LEVEL}.",
    )
    add_threads = click.option(
        "--threads",
        type=WholeNumber(1, _MAX_THREADS),
        metavar="COUNT",
        help="Compress in so many threads.  [default: one for each core, as many as fit into little memory]",
    )
    add_recipients = click.option(
        "--encrypt",
        "recipients",
        multiple=True,
        metavar="RECIPIENT",
        callback=_recipients,
        help="Encrypt the backup and its manifest, as age does, for this public key of age or ssh, or for all keys in "
        "this file. You can give several.",
    )
    return add_level(add_threads(add_recipients(cast(_Function, call))))


def _recipients(context: click.Context, _param: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    return () if context.resilient_parsing else read_recipients(values)


def check_layers(layers: Layers, *, is_patched: bool, keeps: bool = False, split: str | None = None) -> None:
    """Raise UsageError if ``layers`` can't be combined with the other options.

    ``is_patched``: the backup is completed at its beginning. ``keeps``: what an interrupted run wrote could be kept.
    ``split``: the option that splits the work over processes.
    """
    if not layers:
        return
    option = "--zstd" if layers.zstd_level is not None else "--encrypt"
    if is_patched:
        raise click.UsageError(
            f"a collie backup is completed at its beginning, and {option} cannot go back there; use --format dog"
        )
    if not layers.recipients:
        return
    if keeps and (other := find_given({"resume", "checkpoint_bytes"})):
        raise click.UsageError(f"{other} cannot be combined with --encrypt: nothing is kept to go on with")
    if split is not None:
        problem = "parts would stand unencrypted beside FILE meanwhile"
        raise click.UsageError(f"{split} cannot be combined with --encrypt: {problem}")
