"""Makes sure that all workers of Dask see the same files as this machine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from anyio import to_thread

from asyncbackup.dispatch.pool import Pool
from asyncbackup.errors import WorkersDiffer


def make_absolute(paths: Iterable[str]) -> list[str]:
    """Name files as a process in another folder must."""
    return [str(Path(path).absolute()) for path in paths]


async def refuse_other_files(pool: Pool, paths: Sequence[str]) -> None:
    """Raise WorkersDiffer unless each worker sees the same files as this machine."""
    expected = await to_thread.run_sync(_look, paths)
    answers = await pool.ask(_look, paths)
    if problems := [
        f"{worker} sees another {path}, or none"
        for worker, found in answers.items()
        for path, size in expected.items()
        if not isinstance(found, dict) or found.get(path) != size
    ]:
        raise WorkersDiffer(problems)


def _look(paths: Sequence[str]) -> dict[str, tuple[int, int] | None]:
    """Give size and time of change of each file; None: it is not to be seen."""
    found: dict[str, tuple[int, int] | None] = {}
    for path in paths:
        try:
            state = os.stat(path)  # noqa: PTH116 - an empty name is no path
            found[path] = state.st_size, state.st_mtime_ns
        except OSError:
            found[path] = None
    return found
