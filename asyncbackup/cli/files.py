"""Decides which of the named FILEs are backups, and in which order they are used; opens the FILE that is written."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

import click

from asyncbackup.cli.options import check_manifests
from asyncbackup.cli.output import say, warn
from asyncbackup.engine.arrange import find_backups, find_order
from asyncbackup.storage import Access, open_standard_output, open_target
from asyncbackup.storage.backup_target import BackupTarget

_LISTED: Final = 3
"""How many of the files that are left out to name."""


def find_chain(
    files: Sequence[str], manifests: Sequence[str], *, quiet: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Give the backups among ``files`` in the order of their chain, and their ``manifests``, if they were named.

    Raises UsageError, BackupMissing, and ChainBroken if there is no order.
    """
    backups = leave_out(files, quiet=quiet)
    return arrange(backups, check_manifests(manifests, backups), quiet=quiet)


def leave_out(files: Sequence[str], *, quiet: bool) -> tuple[str, ...]:
    """Give the backups among ``files``, and print which files are none.

    Raises UsageError if there is no backup, or if standard input is named twice, and BackupMissing.
    """
    if files.count("-") > 1:
        raise click.UsageError("standard input can be read only once")
    found = find_backups(files)
    if found.left_out and not quiet:
        others = len(found.left_out) - _LISTED
        more = f" and {others} more" if others > 0 else ""
        say(f"left out, because they only belong to other files: {', '.join(found.left_out[:_LISTED])}{more}", err=True)
    if not found.backups:
        raise click.UsageError("none of the files is a backup")
    return found.backups


def arrange(
    backups: Sequence[str], manifests: Sequence[str] = (), *, quiet: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Put ``backups`` in the order of their chain, and their ``manifests`` with them; print the order if it changed.

    Raises ChainBroken if there is no order.
    """
    order = find_order(backups, manifests)
    arranged = tuple(backups[place] for place in order)
    if order != sorted(order) and not quiet:
        say(f"used in the order that their manifests say: {', '.join(arranged)}", err=True)
    return arranged, tuple(manifests[place] for place in order) if manifests else ()


def open_output(
    file: str,
    *,
    replace: bool,
    resume: bool = False,
    manifest: str | None = None,
    with_manifest: bool = True,
    inputs: Sequence[str] = (),
    access: Access | None = None,
) -> AbstractAsyncContextManager[BackupTarget]:
    """Open what a backup goes to, ``-`` for standard output, as ``open_target`` does. Leftovers are warned of."""
    if file == "-":
        return open_standard_output(manifest, replace=replace, on_leftover=warn)
    return open_target(
        file,
        replace=replace,
        resume=resume,
        manifest=manifest,
        with_manifest=with_manifest,
        inputs=inputs,
        on_leftover=warn,
        access=access,
    )
