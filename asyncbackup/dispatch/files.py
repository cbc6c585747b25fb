"""Makes sure that all workers of Dask see the same files and objects as this machine."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from anyio import to_thread

from asyncbackup.dispatch.pool import Pool
from asyncbackup.errors import AsyncBackupError, WorkersDiffer
from asyncbackup.storage import Access
from asyncbackup.storage.location import find_object, to_path
from asyncbackup.storage.object_store import open_object
from asyncbackup.storage.publication import MANIFEST, manifest_path

_Found = dict[str, tuple[object, ...] | None]
"""The state of each file or object; None: it is not to be seen."""


def make_absolute(names: Iterable[str]) -> list[str]:
    """Name files as a process in another folder must. A URL of an object stays as it is."""
    return [name if find_object(name) else str(Path(to_path(name)).absolute()) for name in names]


def name_as_given(error: AsyncBackupError, given: Sequence[str]) -> None:
    """Have an error from a process in another folder call files what the user called them."""
    names = dict(zip(make_absolute(given), given, strict=True))
    names |= {manifest_of(path): manifest_of(name) for path, name in names.items() if find_object(name) is None}
    # The longest goes first: one path may be the beginning of another.
    paths = re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))))

    def rename(value: object) -> object:
        return paths.sub(lambda found: names[found[0]], value) if isinstance(value, str) else value

    error.args = tuple(map(rename, error.args))
    vars(error).update({field: rename(value) for field, value in vars(error).items()})


def manifest_of(name: str) -> str:
    """Name the manifest beside a file or an object."""
    location = find_object(name)
    return str(manifest_path(name) if location is None else location.beside(MANIFEST))


async def refuse_other_files(pool: Pool, names: Sequence[str], access: Access | None) -> None:
    """Raise WorkersDiffer unless each worker sees the same files and objects as this machine."""
    expected = await _look(names, access)
    answers = await pool.ask(_look_in_worker, names, access)
    problems = []
    for worker, found in answers.items():
        if isinstance(found, dict):
            problems += [f"{worker} sees another {name}, or none" for name in names if found[name] != expected[name]]
        else:
            problems.append(f"{worker} cannot look: {found}")
    if problems:
        raise WorkersDiffer(problems)


async def _look_in_worker(names: Sequence[str], access: Access | None) -> _Found | AsyncBackupError:
    from asyncbackup.dispatch.worker import run_in_thread  # noqa: PLC0415 - needs the extra

    try:
        found: _Found = await to_thread.run_sync(run_in_thread, _look, names, access)
    except AsyncBackupError as error:
        return error
    return found


async def _look(names: Sequence[str], access: Access | None) -> _Found:
    """Look at each. Raises SourceUnreadable if a store cannot be asked, and what ``open_object`` raises."""
    found: _Found = {}
    for name in names:
        if location := find_object(name):
            place = await to_thread.run_sync(open_object, location, access)
            found[name] = await place.state()
        else:
            found[name] = await to_thread.run_sync(_state_of_file, name)
    return found


def _state_of_file(path: str) -> tuple[object, ...] | None:
    try:
        state = os.stat(path)  # noqa: PTH116 - an empty name is no path
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns
