"""The option that shares work out over several machines."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from asyncbackup.engine.cut import Shard
from asyncbackup.format.piece import MAX_PIECES

_Function = TypeVar("_Function", bound=Callable[..., Any])


def shard_option(what: str) -> Callable[[_Function], _Function]:
    """Add --shard, which gets ``shard``; ``what`` says what a share is, as a sentence."""
    return click.option("--shard", metavar="NUMBER/COUNT", callback=_shard, help=what)


def refuse_with_shard(shard: Shard | None, others: dict[str, bool]) -> None:
    """Raise UsageError if one of ``others`` was given, each an option and why it does not go with --shard."""
    given = next((reason for reason, is_given in others.items() if is_given), None)
    if shard is not None and given is not None:
        raise click.UsageError(given)


def _shard(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Shard | None:
    if value is None:
        return None
    match = re.fullmatch("([0-9]{1,4})/([0-9]{1,4})", value)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count <= MAX_PIECES:
        raise click.BadParameter(f"expected a share such as 3/8, of at most {MAX_PIECES}, got '{value[:20]}'")
    return Shard(number, count)
