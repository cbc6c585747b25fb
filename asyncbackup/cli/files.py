"""Decides which of the named FILEs are backups, and in which order they are used; opens the FILE that is written."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path
from typing import Final

import click
from anyio import to_thread

from asyncbackup.cli import text
from asyncbackup.cli.base import FindBase, no_base
from asyncbackup.cli.options import check_manifests
from asyncbackup.cli.output import is_terminal, say, warn
from asyncbackup.cli.running import run_async
from asyncbackup.engine.arrange import find_backups, find_order, is_there
from asyncbackup.engine.catalog import below
from asyncbackup.storage import Access, Layers, open_standard_output, open_target
from asyncbackup.storage.backup_target import BackupTarget
from asyncbackup.storage.listing import list_files
from asyncbackup.storage.location import find_object, to_path
from asyncbackup.verbs.list_backups import find_chain

_LISTED: Final = 3
"""How many of the files that are left out to name."""


def order_chain(
    files: Sequence[str],
    manifests: Sequence[str],
    *,
    access: Access | None,
    quiet: bool,
    find_base: FindBase = no_base,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Give the backups that ``files`` name in the order of their chain, and their ``manifests``, if they were named.

    Raises what ``find_files`` raises, and ChainBroken if there is no order.
    """
    backups = find_files(files, manifests, access=access, quiet=quiet, find_base=find_base)
    return arrange(backups, manifests, access=access, quiet=quiet)


def find_files(
    files: Sequence[str],
    manifests: Sequence[str],
    *,
    access: Access | None,
    quiet: bool,
    find_base: FindBase = no_base,
) -> tuple[str, ...]:
    """Give the backups that ``files`` name, and print which these are, if that is not what was typed.

    ``FOLDER@SNAPSHOT`` names those in a folder that lead to a snapshot: from a full backup on, or from what
    ``find_base`` finds. Raises UsageError, BackupMissing, and what ``find_chain`` raises.
    """
    places = run_async(lambda: _split_folders(files, access), only_reads=True) if "@" in "".join(files) else []
    if not places:
        backups = leave_out(files, access=access, quiet=quiet)
        check_manifests(manifests, backups)
        return backups
    if len(files) > 1 or manifests:
        raise click.UsageError("FOLDER@SNAPSHOT stands for all FILEs and their manifests: name no others")
    [(folder, snapshot)] = places

    async def find() -> list[str]:
        return await find_chain(folder, snapshot, base=await find_base(), access=access)

    found = tuple(run_async(find, only_reads=True))
    if not quiet:
        say(f"used, oldest first: {', '.join(found)}", err=True)
    return found


async def find_neighbours(files: Sequence[str], access: Access | None) -> list[str]:
    """Give the files beside which the journal of a restore of ``files`` may stand: of FOLDER@SNAPSHOT, any in FOLDER.

    What was the first backup there depends on the base, which nobody names any more. Raises what ``list_files`` raises.
    """
    found = []
    for file in files:
        place = await _split_folder(file, access)
        if place is None:
            found += [file] if file != "-" else []
        elif find_object(place[0]) is None:  # No journal stands beside an object.
            async with aclosing(list_files(place[0], access)) as batches:
                found += [below(place[0], entry.name) async for batch in batches for entry in batch]
    return found


async def _split_folders(files: Sequence[str], access: Access | None) -> list[tuple[str, str]]:
    return [place for file in files if (place := await _split_folder(file, access)) is not None]


async def _split_folder(file: str, access: Access | None) -> tuple[str, str] | None:
    """Split ``FOLDER@SNAPSHOT``; None if it is none. What exists under the whole name is a file."""
    if "@" not in file or await is_there(file, access):
        return None
    if find_object(file) is not None:
        folder, _, snapshot = file.rpartition("@")
        return folder, snapshot
    return await to_thread.run_sync(_split_path, to_path(file))


def _split_path(path: str) -> tuple[str, str] | None:
    # A tag and a folder may have this sign in their names. The longest name of a folder counts.
    ends = [place for place, character in enumerate(path) if character == "@"]
    return next(((path[:end], path[end + 1 :]) for end in reversed(ends) if Path(path[:end]).is_dir()), None)


def leave_out(files: Sequence[str], *, access: Access | None, quiet: bool) -> tuple[str, ...]:
    """Give the backups among ``files``, and print which files are none.

    Raises UsageError if there is no backup, or if standard input is named twice, and BackupMissing.
    """
    if files.count("-") > 1:
        raise click.UsageError("standard input can be read only once")
    found = run_async(lambda: find_backups(files, access), only_reads=True)
    if found.left_out and not quiet:
        others = len(found.left_out) - _LISTED
        more = f" and {others} more" if others > 0 else ""
        say(f"left out, because they only belong to other files: {', '.join(found.left_out[:_LISTED])}{more}", err=True)
    if not found.backups:
        raise click.UsageError("none of the files is a backup")
    return found.backups


def arrange(
    backups: Sequence[str], manifests: Sequence[str] = (), *, access: Access | None, quiet: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Put ``backups`` in the order of their chain, and their ``manifests`` with them; print the order if it changed.

    Raises ChainBroken if there is no order.
    """
    order = run_async(lambda: find_order(backups, manifests, access), only_reads=True)
    arranged = tuple(backups[place] for place in order)
    if order != sorted(order) and not quiet:
        say(f"used in the order that their manifests say: {', '.join(arranged)}", err=True)
    return arranged, tuple(manifests[place] for place in order) if manifests else ()


def is_piped(file: str) -> bool:
    """Tell whether what is written to FILE goes to a pipe: to standard output, or to a FIFO."""
    try:
        return file == "-" or Path(file).is_fifo()
    except OSError:  # Opening it says what is wrong.
        return False


def refuse_pipes(files: Sequence[str], option: str) -> None:
    """Raise UsageError if one of FILEs is a pipe: with ``option`` other processes read FILEs as well."""
    piped = next(filter(is_piped, files), None)
    if piped is not None:
        raise click.UsageError(f"{option} needs files that all machines see: {text.source(piped)} is none")


def check_output(*files: str, is_patched: bool) -> None:
    """Raise UsageError if a backup cannot go to ``files``: it ``is_patched`` at its beginning, or one is a terminal."""
    place = next(filter(None, map(_place_without_way_back, files)), None)
    if is_patched and place is not None:
        problem = f"it cannot go to {place}; use --format dog"
        raise click.UsageError(f"a collie backup is completed at its beginning: {problem}")
    if "-" in files and is_terminal():
        raise click.UsageError("a backup is not for a terminal: redirect standard output, or name a file")


def _place_without_way_back(file: str) -> str | None:
    """Say what FILE is if what was written there cannot be changed any more."""
    if find_object(file) is not None:
        return "an object store"
    return ("`-`" if file == "-" else "a pipe") if is_piped(file) else None


def open_output(
    file: str,
    *,
    replace: bool,
    resume: bool = False,
    manifest: str | None = None,
    with_manifest: bool = True,
    inputs: Sequence[str] = (),
    access: Access | None = None,
    layers: Layers | None = None,
) -> AbstractAsyncContextManager[BackupTarget]:
    """Open what a backup goes to, ``-`` for standard output, as ``open_target`` does. Leftovers are warned of."""
    if file == "-":
        return open_standard_output(manifest, replace=replace, on_leftover=warn, layers=layers)
    return open_target(
        file,
        replace=replace,
        resume=resume,
        manifest=manifest,
        with_manifest=with_manifest,
        inputs=inputs,
        on_leftover=warn,
        access=access,
        layers=layers,
    )
