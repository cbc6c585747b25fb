"""Finds out what is stored in a folder: lists it, and reads the first line of each manifest.

Where it matters which of several backups is whole, it compares their sizes with the last lines of their manifests.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import replace
from typing import Final

from anyio import to_thread

from asyncbackup.client.fan_out import for_each
from asyncbackup.engine.catalog import Backup, Catalog, State, Stored, below, group_files
from asyncbackup.engine.manifest import read_data_length, read_subject
from asyncbackup.errors import BackupDamaged, NotDecrypted, SourceError, SourceMissing, SourceUnreadable
from asyncbackup.storage import Access
from asyncbackup.storage.age_keys import read_identities
from asyncbackup.storage.backup_source import open_source, open_stored
from asyncbackup.storage.listing import Entry, list_files
from asyncbackup.storage.location import to_path

_MOST_FILES: Final = 200_000
"""Files of one folder. Their names take 100 MiB of memory, and to read the manifests takes minutes."""


async def survey(folder: str, access: Access | None = None) -> Catalog:
    """Make the catalog of ``folder``, and of the folders in it.

    A manifest that cannot be read or decrypted, or is none, is noted in the catalog. Raises SourceMissing and
    FolderNeeded; SourceUnreadable if the folder cannot be listed, or holds too many files; KeyUnusable and
    ExtraMissing.
    """
    access = (access or Access()).sharing_stores()
    if access.identities:
        # A key that is missing is told here, so that below only what is stored can be missing.
        await to_thread.run_sync(read_identities, access.identities)
    folder = to_path(folder)
    entries = await _list_all(folder, access)
    sizes = {each.name: each.size for each in entries if each.problem is None}
    unread = [each for each in entries if each.problem is not None]
    found = [Stored(each.name, 0, State.UNREADABLE, problem=each.problem) for each in unread]

    async def look_at(stored: Stored) -> None:
        known = stored if stored.manifest is None else await _look_at(folder, stored, stored.manifest, access)
        if known.state is State.NO_MANIFEST:
            # Perhaps only its name says that it is a manifest.
            known = replace(known, size=sizes[known.name])
        if known.state is not State.NO_DATA or known.manifest is not None:
            found.append(known)

    await for_each(group_files(sizes), look_at)
    return Catalog.of(folder, found)


async def find_damaged(folder: str, backups: Iterable[Backup], access: Access | None = None) -> set[str]:
    """Give the names of those ``backups`` that have more or fewer bytes than their manifests say.

    What is read only in order, as what is encrypted, has no size that could be compared. Raises SourceMissing,
    SourceUnreadable, and what opening a backup raises otherwise.
    """
    access = (access or Access()).sharing_stores()
    damaged: set[str] = set()

    async def judge(backup: Backup) -> None:
        try:
            async with open_source(below(folder, backup.name), access=access) as (data, manifest):
                length = None if manifest is None else await read_data_length(manifest)
                is_whole = length is None or data.size is None or data.size == length
        except BackupDamaged:
            is_whole = False
        if not is_whole:
            damaged.add(backup.name)

    await for_each(backups, judge)
    return damaged


async def _list_all(folder: str, access: Access | None) -> list[Entry]:
    entries: list[Entry] = []
    async with aclosing(list_files(folder, access)) as batches:
        async for batch in batches:
            entries += batch
            if len(entries) > _MOST_FILES:
                raise SourceUnreadable(folder, f"holds more than {_MOST_FILES:,} files: name a folder in it")
    return entries


async def _look_at(folder: str, stored: Stored, manifest: str, access: Access | None) -> Stored:
    """Read what a manifest says. What is unfinished, or lacks its data, is so whatever the manifest says."""
    is_good = stored.state is State.GOOD
    try:
        async with open_stored(below(folder, manifest), access, only_glances=True) as opened:
            return replace(stored, subject=await read_subject(opened))
    except SourceMissing:
        # It was there a moment ago. So a run has completed or replaced it, or somebody removed it.
        return replace(stored, manifest=None, state=State.NO_MANIFEST if is_good else stored.state)
    except NotDecrypted as error:
        return replace(stored, state=State.ENCRYPTED if is_good else stored.state, problem=error.problem)
    except BackupDamaged as damage:
        if stored.state is State.NO_DATA:
            return Stored(manifest, 0, State.NO_MANIFEST)
        return replace(stored, state=State.DAMAGED if is_good else stored.state, problem=damage.problem)
    except SourceError as error:
        return replace(stored, state=State.UNREADABLE if is_good else stored.state, problem=error.problem)
