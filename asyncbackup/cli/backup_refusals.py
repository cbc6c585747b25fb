"""Refuses combinations of the options of ``backup`` before anything is read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import click

from asyncbackup.cli import text
from asyncbackup.cli.files import is_piped
from asyncbackup.cli.options import find_given
from asyncbackup.cli.shard_options import refuse_with_shard
from asyncbackup.cli.split_options import Split
from asyncbackup.engine.cut import Shard
from asyncbackup.storage.location import find_object
from asyncbackup.storage.publication import MANIFEST, manifest_path


class Wanted(NamedTuple):
    """A backup to make: one of those that are made in one pass."""

    file: str
    base: int | str | None
    manifest: str | None = None


def check_source(snapshot: int | str | None, *, live: bool) -> None:
    """Raise UsageError unless it is clear what to back up."""
    if live and snapshot is not None:
        raise click.UsageError("give either -s or --live, not both")
    if snapshot is None and not live:
        raise click.UsageError("name the snapshot to back up with -s, or use --live for the working VDI")


def check_shard(shard: Shard | None, wanted: Sequence[Wanted], *, live: bool, split: Split, no_manifest: bool) -> None:
    """Raise UsageError for what does not go together with a piece."""
    refuse_with_shard(
        shard,
        {
            "--shard needs a snapshot: a working VDI changes, so that pieces of it do not go together": live,
            "--shard makes one piece: leave --also out": len(wanted) > 1,
            f"give either --shard or {split.option}, not both": split.option is not None,
            "--shard needs the manifest, which says which piece it is: leave --no-manifest out": no_manifest,
            "--shard needs the manifest, which says which piece it is: write one with --manifest": (
                is_piped(wanted[0].file) and wanted[0].manifest is None
            ),
        },
    )


def check_files(wanted: Sequence[Wanted], *, split: str | None) -> None:
    """Raise UsageError if two backups are to go to one file, or several processes to what is none."""
    piped = [each.file for each in wanted if is_piped(each.file)]
    if piped and split is not None:
        raise click.UsageError(f"{split} needs files: {text.target(piped[0])} takes bytes of one process alone")
    stored = next((each.file for each in wanted if find_object(each.file) is not None), None)
    if stored is not None and split == "--workers":
        raise click.UsageError(f"{split} needs files: {stored} is in an object store, which takes bytes of one process")
    names: dict[str, list[str]] = {}
    for name in (name for each in wanted for name in _names(each)):
        names.setdefault(str(find_object(name) or os.path.realpath(name)), []).append(name)
    for one, *others in names.values():
        if others:
            same = "is given twice" if others[0] == one else f"and {others[0]} are one file"
            raise click.UsageError(f"{one} {same}: each backup, and its manifest, needs a file of its own")


def _names(wanted: Wanted) -> list[str]:
    """Name the files of a backup. A manifest that is not written counts, because none of another may stand there."""
    if location := find_object(wanted.file):
        return [wanted.file, str(location.beside(MANIFEST))]
    manifest = wanted.manifest if is_piped(wanted.file) else str(manifest_path(os.path.realpath(wanted.file)))
    return [name for name in (wanted.file, manifest) if name is not None and name != "-"]


def check_manifest(wanted: Sequence[Wanted], *, skip_unreadable: bool, no_manifest: bool) -> None:
    """Raise UsageError if nothing could name what is left out."""
    if not skip_unreadable:
        return
    lacking = [each for each in wanted if is_piped(each.file) and each.manifest is None]
    if no_manifest or lacking:
        mend = "leave --no-manifest out" if no_manifest else "write one with --manifest"
        if lacking and lacking[0] is not wanted[0]:
            mend = f"{lacking[0].file} is a pipe, which has none"
        raise click.UsageError(f"--skip-unreadable needs a manifest, which names what is missing: {mend}")


def check_resume(wanted: Sequence[Wanted], *, resume: bool, live: bool, no_manifest: bool) -> None:
    """Raise UsageError if nothing can be kept of what is to be written."""
    option = "--resume" if resume else find_given({"checkpoint_bytes"})
    if option is None:
        return
    for each in wanted:
        if each.file == "-":
            raise click.UsageError(f"{option} needs a file: what went to `-` cannot be gone on with")
        if find_object(each.file) is not None:
            raise click.UsageError(f"{option} needs a file: an object store keeps nothing of an interrupted run")
    if live:
        raise click.UsageError(f"{option} needs a snapshot: a working VDI changes, so that two runs do not go together")
    if no_manifest:
        raise click.UsageError(f"{option} needs the manifest: it proves what was written")
