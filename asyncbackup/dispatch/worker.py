"""What runs in a worker of Dask: a job in the thread that the worker gives it, until it is done or nobody wants it.

Dask does not stop what runs. So each job looks by itself whether it is still wanted: Dask's worker forgets a job whose
client cancelled it or is gone, and a worker that lost its scheduler closes. Where even that is not seen, a file that
the client removes at its end tells it (a *claim*).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
from anyio import to_thread
from dask.typing import Key
from distributed import Worker, get_worker
from distributed.core import Status

from asyncbackup.dispatch.facts import FACTS
from asyncbackup.errors import AsyncBackupError, WorkersDiffer, single_error

_PAUSE_S: Final = 0.1
"""Seconds between two looks at what the worker knows. A tenth of what a cancellation may take."""
_WORKING: Final = frozenset({Status.running, Status.paused, Status.closing_gracefully})


@dataclass(frozen=True, slots=True)
class Task:
    """A job: what to do, and which files show that it is wanted."""

    function: Callable[..., Awaitable[Any]]
    arguments: Sequence[Any]
    claims: Sequence[Path]
    facts: Mapping[str, str]
    """``FACTS`` of the client. A worker that came later than the others was not asked for its own."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job. An error that is expected comes back as a value: Dask would log it as a failure."""

    result: Any = None
    error: AsyncBackupError | None = None


def carry_out(task: Task) -> Outcome:
    """Do a job, in a thread of a worker of Dask. It ends within a second when nobody wants it any more."""
    worker = get_worker()
    try:
        refuse_differences({worker.address: FACTS}, task.facts)
        return Outcome(run_in_thread(_run_while_wanted, task, worker, worker.get_current_task()))
    except AsyncBackupError as error:
        return Outcome(error=error)


def run_in_thread(function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
    """Run a coroutine function in an event loop of its own: that of the worker is Dask's."""
    uvloop = importlib.util.find_spec("uvloop") is not None
    with single_error():
        return anyio.run(partial(function, *arguments), backend_options={"use_uvloop": uvloop})


def refuse_differences(facts: Mapping[str, Mapping[str, str] | Exception], expected: Mapping[str, str]) -> None:
    """Raise WorkersDiffer, which names each worker whose facts are not ``expected``, or that has none."""
    differences = []
    for worker, found in facts.items():
        if isinstance(found, Exception):
            differences.append(f"{worker} has no asyncbackup that can do this ({found})")
        else:
            differences += [
                f"{worker} has {name} {found.get(name)}, and this machine {value}"
                for name, value in expected.items()
                if found.get(name) != value
            ]
    if differences:
        raise WorkersDiffer(differences)


async def _run_while_wanted(task: Task, worker: Worker, key: Key) -> Any:
    result: Any = None
    async with anyio.create_task_group() as group:
        group.start_soon(_cancel_when_unwanted, group.cancel_scope, task.claims, worker, key)
        result = await task.function(*task.arguments)
        group.cancel_scope.cancel()
        return result
    raise WorkersDiffer([f"{worker.address} sees no {' and '.join(map(str, task.claims))}"])


async def _cancel_when_unwanted(scope: anyio.CancelScope, claims: Sequence[Path], worker: Worker, key: Key) -> None:
    while _is_wanted(worker, key) and await to_thread.run_sync(_are_there, claims):  # noqa: ASYNC110 - Dask tells nobody
        await anyio.sleep(_PAUSE_S)
    scope.cancel()


def _is_wanted(worker: Worker, key: Key) -> bool:
    state = worker.state.tasks.get(key)
    return worker.status in _WORKING and state is not None and state.state == "executing"


def _are_there(claims: Sequence[Path]) -> bool:
    return all(claim.exists() for claim in claims)
