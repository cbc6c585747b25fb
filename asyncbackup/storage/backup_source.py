"""Opens what a backup is read from: a source for its data, and one for its manifest."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from asyncbackup.errors import HalfReplaced, SourceMissing, SourceUnreadable
from asyncbackup.storage.access import Access
from asyncbackup.storage.layers import unwrap_source
from asyncbackup.storage.location import find_object, to_path
from asyncbackup.storage.lock import is_held
from asyncbackup.storage.object_source import open_object_source
from asyncbackup.storage.opening import open_in_thread
from asyncbackup.storage.publication import MANIFEST, Place, Publication, exists, manifest_path
from asyncbackup.storage.source import FileSource, PipeSource, Source, open_path

_STANDARD_INPUT: Final = "-"

_AWAIT_RUN_S: Final = 0.05
"""Seconds between two looks whether a run has given a backup and its manifest their names."""


class BackupSource(NamedTuple):
    """Two sources that were entered."""

    data: Source
    manifest: Source | None
    """None: there is no manifest, or it is not to be read."""


@asynccontextmanager
async def open_source(
    source: str | os.PathLike[str] | Source,
    *,
    manifest: str | os.PathLike[str] | Source | None = None,
    with_manifest: bool = True,
    access: Access | None = None,
) -> AsyncIterator[BackupSource]:
    """Open a backup to read it: the path of a file or a FIFO, a URL, ``-`` for standard input, or an entered source.

    Its manifest is ``manifest``, a path, a URL or an entered source. By default it is what stands beside the backup,
    if there is such. With ``with_manifest`` false no manifest is looked for or opened.

    Both are decompressed and decrypted as they are read; ``access`` names the keys.

    Raises SourceMissing, SourceUnreadable, what ``unwrap_source`` raises, and HalfReplaced if a run was interrupted
    while it replaced both.
    """
    async with AsyncExitStack() as stack:
        source = to_path(source) if isinstance(source, str) else source
        if not isinstance(source, str | os.PathLike):
            data = source
        elif location := find_object(source):
            data = await stack.enter_async_context(open_object_source(location, access))
        elif os.fspath(source) == _STANDARD_INPUT:
            data = await stack.enter_async_context(PipeSource(0))
        else:
            data = await stack.enter_async_context(open_path(source))
        data = await unwrap_source(stack, data, access)
        opened = None
        if with_manifest:
            opened = await stack.enter_async_context(open_manifest(source, manifest=manifest, access=access))
        yield BackupSource(data, opened)


@asynccontextmanager
async def open_manifest(
    source: str | os.PathLike[str] | Source,
    *,
    manifest: str | os.PathLike[str] | Source | None = None,
    access: Access | None = None,
    only_glances: bool = False,
) -> AsyncIterator[Source | None]:
    """Open the manifest of a backup as ``open_source`` does, without the backup. Give None if there is none.

    ``only_glances``: no more is wanted than the beginning. Raises what ``open_source`` raises.
    """
    async with AsyncExitStack() as stack:
        source = to_path(source) if isinstance(source, str) else source
        if manifest is None and (location := find_object(source)):
            beside = str(location.beside(MANIFEST))
            with suppress(SourceMissing):
                manifest = await stack.enter_async_context(open_stored(beside, access, only_glances=only_glances))
        elif manifest is None and isinstance(source, str | os.PathLike) and os.fspath(source) != _STANDARD_INPUT:
            manifest = await _find_manifest(os.fspath(source))
        if isinstance(manifest, str | os.PathLike):
            manifest = await stack.enter_async_context(open_stored(manifest, access, only_glances=only_glances))
        yield manifest


@asynccontextmanager
async def open_stored(
    location: str | os.PathLike[str], access: Access | None, *, only_glances: bool = False
) -> AsyncIterator[Source]:
    """Open what can be read from its beginning as often as wanted, such as a manifest: a file, an object, but no pipe.

    ``only_glances``: no more is wanted than the beginning. Raises SourceMissing, SourceUnreadable, what ``open_object``
    raises, and what ``unwrap_source`` raises.
    """
    location = to_path(location) if isinstance(location, str) else location
    stored = find_object(location)
    opening: AbstractAsyncContextManager[Source] = FileSource(location)
    if stored is not None:
        opening = open_object_source(stored, access, only_glances=only_glances)
    async with AsyncExitStack() as stack:
        yield await unwrap_source(stack, await stack.enter_async_context(opening), access)


async def _find_manifest(backup: str) -> Path | None:
    try:
        return await open_in_thread(lambda: find_manifest(backup), lambda _: None)
    except OSError as error:
        raise SourceUnreadable(backup, error.strerror or str(error)) from error


def find_manifest(backup: str | os.PathLike[str]) -> Path | None:
    """Find the manifest of a backup: beside it, or where a link leads to it, beside what it leads to.

    Raises HalfReplaced if replacing both was interrupted between them, OSError. Blocks: for threads.
    """
    final = Path(os.path.realpath(backup))
    publication = Publication(Place(final), (Place(manifest_path(final)),))
    while (due := publication.find_due()) is not None:
        # A run may be between the two just now. If it has ended meanwhile, nothing is due any more.
        if not is_held(publication.main.lock) and publication.find_due() == due:
            raise HalfReplaced(os.fspath(backup), str(due.source), str(due.target))
        time.sleep(_AWAIT_RUN_S)
    return next((path for path in (manifest_path(backup), manifest_path(final)) if exists(path)), None)
