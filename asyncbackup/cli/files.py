"""Which of the FILEs that were named are backups, and in which order they are taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

from asyncbackup.cli.output import say
from asyncbackup.engine.arrange import find_backups, find_order

_LISTED: Final = 3
"""Files to name of those that are left out."""


def leave_out(files: Sequence[str], *, quiet: bool) -> tuple[str, ...]:
    """Give the backups among ``files``, and say which are none.

    Raises UsageError without one, or with standard input more than once, and BackupMissing.
    """
    if files.count("-") > 1:
        raise click.UsageError("standard input can be read only once")
    found = find_backups(files)
    if found.left_out and not quiet:
        others = len(found.left_out) - _LISTED
        more = f" and {others} more" if others > 0 else ""
        say(f"left out, as they only belong to others: {', '.join(found.left_out[:_LISTED])}{more}", err=True)
    if not found.backups:
        raise click.UsageError("none of the files is a backup")
    return found.backups


def arrange(
    backups: Sequence[str], manifests: Sequence[str] = (), *, quiet: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Put ``backups``, and with them their ``manifests`` if those were named, in the order of their chain; say so.

    Raises ChainBroken where there is none.
    """
    order = find_order(backups, manifests)
    arranged = tuple(backups[place] for place in order)
    if order != sorted(order) and not quiet:
        say(f"taken in this order, as their manifests say: {', '.join(arranged)}", err=True)
    return arranged, tuple(manifests[place] for place in order) if manifests else ()
