"""Lists the files below a folder: their names and sizes, a bounded number at a time."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Generator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from anyio import to_thread

from asyncbackup.errors import AsyncBackupError, FolderNeeded, SourceMissing, SourceUnreadable
from asyncbackup.storage.access import Access
from asyncbackup.storage.location import MEMORY, ObjectLocation, fault_of_url, find_object, to_path
from asyncbackup.storage.object_store import open_store, reading, show_location, was_cut
from asyncbackup.storage.opening import fault_of_name

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_BATCH: Final = 1000
"""Files to list in one hop to a thread."""

_LISTINGS: Final = 3
"""Times to list the objects of a folder at most, if the connection is cut in the middle of an answer."""


class Entry(NamedTuple):
    """A file below the folder, with ``/`` between the folders in its ``name``; or a folder that cannot be read."""

    name: str
    size: int
    """Bytes."""
    problem: str | None = None
    """Why the folder of this name cannot be read."""


async def list_files(folder: str, access: Access | None = None) -> AsyncGenerator[list[Entry], None]:
    """List the files below ``folder``, a path or a URL, and below the folders in it, in no order, some at a time.

    Neither hidden folders nor links to folders are entered. What is no file, such as a pipe, is left out. Raises
    SourceMissing, FolderNeeded, SourceUnreadable, and what opening an object store raises. Of a
    store that has the bucket, any folder can be listed, and may be empty. A cancellation waits for some files.
    """
    folder = to_path(folder)
    location = find_object(folder)
    if fault := fault_of_url(folder) or fault_of_name(folder):
        raise SourceUnreadable(folder if location is None else show_location(location), fault)
    found = _walk(folder) if location is None else _list_objects(location, access)
    try:
        while batch := await to_thread.run_sync(list, islice(found, _BATCH)):
            yield batch
    finally:
        found.close()


def _list_objects(location: ObjectLocation, access: Access | None) -> Generator[Entry, None, None]:
    """Go through the objects of a folder. Blocks: threads of a store's own would hand results to an event loop."""
    from obstore import exceptions  # noqa: PLC0415 - few starts need it

    store = open_store(location, access or Access())
    key = location.key.rstrip("/")
    prefix = f"{location.bucket}/{key}".rstrip("/") if location.scheme == MEMORY else key
    # A listing that is cut begins anew: not all stores list in an order that tells where to go on.
    given: set[str] = set()
    with reading(str(location)):
        for left in reversed(range(_LISTINGS)):
            try:
                for path, size in _list_once(store, prefix or None):
                    name = path.removeprefix(f"{prefix}/")
                    if name not in given and not any(part.startswith(".") for part in name.split("/")[:-1]):
                        given.add(name)
                        yield Entry(name, size)
            except exceptions.BaseError as error:
                if not (left and was_cut(error)):
                    raise
            else:
                return


def _list_once(store: ObjectStore, prefix: str | None) -> Generator[tuple[str, int], None, None]:
    from obstore import list as list_store  # noqa: PLC0415 - few starts need it

    for batch in list_store(store, prefix=prefix, chunk_size=_BATCH):
        for found in batch:
            yield found["path"], found["size"]


def _walk(top: str) -> Generator[Entry, None, None]:
    """Go through the folders, one after the other. Blocks."""
    left = [""]
    while left:
        folder = left.pop()
        try:
            with os.scandir(os.path.join(top, folder)) as entries:  # noqa: PTH118 - a Path would take twice as long
                for entry in entries:
                    name = folder + entry.name
                    if entry.is_dir(follow_symlinks=False):
                        if not entry.name.startswith("."):
                            left.append(f"{name}/")
                    elif (size := _size_of_file(entry)) is not None:
                        yield Entry(name, size)
        except OSError as error:
            if not folder:
                raise _why(top, error) from error
            yield Entry(folder.rstrip("/"), 0, error.strerror or str(error))


def _size_of_file(entry: os.DirEntry[str]) -> int | None:
    """Give the size of a file, or of the file that a link leads to; None if it is neither, or was removed."""
    try:
        return entry.stat().st_size if entry.is_file() else None
    except OSError:
        return None


def _why(folder: str, error: OSError) -> AsyncBackupError:
    if isinstance(error, FileNotFoundError):
        return SourceMissing(folder)
    file = folder.rstrip("/")
    if isinstance(error, NotADirectoryError) and Path(file).exists():  # and not below a file
        return FolderNeeded(file)
    return SourceUnreadable(folder, error.strerror or str(error))
