"""Finds out what is stored in a folder: lists it, and reads the first line of each manifest, and nothing else."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import Final

from asyncbackup.client.fan_out import for_each
from asyncbackup.engine.catalog import Catalog, State, Stored, below, group_files
from asyncbackup.engine.manifest import read_subject
from asyncbackup.errors import BackupDamaged, SourceError, SourceMissing, SourceUnreadable
from asyncbackup.storage import Access
from asyncbackup.storage.backup_source import open_stored
from asyncbackup.storage.listing import list_files

_MOST_FILES: Final = 200_000
"""Files of one folder. Their names take 100 MiB of memory, and to read the manifests takes minutes."""


async def survey(folder: str, access: Access | None = None) -> Catalog:
    """Make the catalog of ``folder``, and of the folders in it.

    A manifest that cannot be read, or is none, is noted in the catalog. Raises SourceMissing, and SourceUnreadable if
    the folder cannot be listed, or holds too many files.
    """
    sizes: dict[str, int] = {}
    found: list[Stored] = []
    async with aclosing(list_files(folder, access)) as batches:
        async for batch in batches:
            for name, size, problem in batch:
                if problem is None:
                    sizes[name] = size
                else:
                    found.append(Stored(name, 0, State.UNREADABLE, problem=problem))
            if len(sizes) > _MOST_FILES:
                raise SourceUnreadable(folder, f"holds more than {_MOST_FILES:,} files: name a folder in it")

    async def look_at(stored: Stored) -> None:
        if stored.manifest is None:
            found.append(stored)
            return
        try:
            async with open_stored(below(folder, stored.manifest), access) as manifest:
                found.append(replace(stored, subject=await read_subject(manifest)))
        except SourceMissing:
            # It was there a moment ago. So a run has completed or replaced it, or somebody removed it.
            found.extend(_without_manifest(stored))
        except BackupDamaged as damage:
            found.append(_with_damage(stored, sizes[stored.manifest], damage.problem))
        except SourceError as error:
            found.append(replace(stored, state=State.UNREADABLE, problem=str(error)))

    await for_each(group_files(sizes), look_at)
    return Catalog.of(folder, found)


def _without_manifest(stored: Stored) -> list[Stored]:
    if stored.state is State.NO_DATA:
        return []
    return [replace(stored, manifest=None, state=State.NO_MANIFEST if stored.state is State.GOOD else stored.state)]


def _with_damage(stored: Stored, manifest_size: int, problem: str) -> Stored:
    if stored.state is State.NO_DATA and stored.manifest is not None:
        # Only its name says that it is a manifest.
        return Stored(stored.manifest, manifest_size, State.NO_MANIFEST)
    return replace(stored, state=State.DAMAGED if stored.state is State.GOOD else stored.state, problem=problem)
