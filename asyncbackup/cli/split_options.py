"""The options that split the work of one command over processes, on this machine or on many."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import click

from asyncbackup.cli.options import WholeNumber
from asyncbackup.cli.process import import_nothing_from_folder
from asyncbackup.engine.fill_shares import Fillers
from asyncbackup.engine.pieces import Workers

if TYPE_CHECKING:
    from asyncbackup.dispatch.pool import Pool

_Function = TypeVar("_Function", bound=Callable[..., Any])

_LOCAL: Final = "local"
_MOST_PROCESSES: Final = 64


@dataclass(frozen=True, slots=True)
class Split:
    """Over how many processes the work is split, and who starts them."""

    processes: int = 1
    dask: str | None = None
    """The address of a scheduler, or ``local``; None: this program starts the processes by itself."""

    @property
    def option(self) -> str | None:
        """The option that splits the work; None: nothing does."""
        return "--dask" if self.dask else "--workers" if self.processes > 1 else None

    @asynccontextmanager
    async def pool(self) -> AsyncIterator[Pool | None]:
        """Connect to Dask, if --dask says so. Raises what ``connect_dask`` raises."""
        if self.dask is None:
            yield None
            return
        # It takes a second to import.
        from asyncbackup.dispatch.pool import connect_dask, start_dask  # noqa: PLC0415

        async with start_dask(self.processes) if self.dask == _LOCAL else connect_dask(self.dask) as pool:
            yield pool

    @asynccontextmanager
    async def workers(self) -> AsyncIterator[Workers | None]:
        """Connect to what makes pieces; None: processes that this program starts by itself."""
        async with self.pool() as pool:
            if pool is None:
                yield None
                return
            from asyncbackup.dispatch.pieces import DaskWorkers  # noqa: PLC0415 - as above

            yield DaskWorkers(pool)

    @asynccontextmanager
    async def fillers(self) -> AsyncIterator[Fillers | None]:
        """Connect to what writes shares of a restore; None: this process does it alone."""
        async with self.pool() as pool:
            if pool is None:
                yield None
                return
            from asyncbackup.dispatch.restore import DaskFillers  # noqa: PLC0415 - as above

            yield DaskFillers(pool)


def dask_option(function: _Function) -> _Function:
    """Add --dask."""
    return click.option(
        "--dask",
        metavar="ADDRESS",
        help="Hand the work out to the workers of the Dask scheduler at this address, such as tcp://host:8786. They "
        "need the same versions, and the folder of FILE under the same path, or keys of their own for the store of its "
        "URL. `local` starts workers on this machine.",
    )(function)


def split_options(function: _Function) -> _Function:
    """Add --workers and --dask. ``function`` gets both as ``split``."""

    @wraps(function)
    def call(*, processes: int | None, dask: str | None, **others: Any) -> Any:
        return function(split=_split(processes, dask), **others)

    add_workers = click.option(
        "--workers",
        "processes",
        type=WholeNumber(1, _MOST_PROCESSES),
        metavar="COUNT",
        help="Split the work over so many processes. It pays where this machine's processor is the limit.  "
        "[default: 1; with --dask local one for each processor]",
    )
    return add_workers(dask_option(cast(_Function, call)))


def split_with_dask(dask: str | None) -> Split:
    """Say how the work is split where --dask alone can split it."""
    return _split(None, dask)


def _split(processes: int | None, dask: str | None) -> Split:
    if dask not in (None, _LOCAL) and processes is not None:
        raise click.UsageError("--workers is for this machine: the scheduler of --dask knows its own workers")
    if dask == _LOCAL:
        processes = processes or min(_MOST_PROCESSES, os.cpu_count() or 1)
    split = Split(processes or 1, dask)
    if split.option is not None:
        import_nothing_from_folder()
    return split
