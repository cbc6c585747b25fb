"""The way to a scheduler of Dask and its workers."""

from __future__ import annotations

import logging
import pkgutil
import secrets
import signal
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import anyio

from asyncbackup.dispatch.facts import FACTS
from asyncbackup.errors import (
    ExtraMissing,
    NoWorkers,
    SchedulerLost,
    SchedulerSilent,
    SchedulerUnreachable,
    WorkerLost,
    WorkersSilent,
    single_error,
)

if TYPE_CHECKING:
    from distributed import Client, Worker

_CONNECT_S: Final = 10
"""Seconds in which a scheduler must accept a connection."""
_GREET_S: Final = 20
"""Seconds in which it must also have answered. Dask waits without a bound for what is no scheduler, or hangs."""
_ANSWER_S: Final = 30
"""Seconds in which each worker must say what it is. Its event loop answers, whatever its threads do."""
_SCHEDULER_S: Final = 30
"""Seconds in which the scheduler must say which workers there are. It does little else than to answer."""
_JOIN_S: Final = 60
"""Seconds to wait for a worker where there is none. One that died is started again by its nanny within a few."""
_LOOK_S: Final = 1.0
_CLOSE_S: Final = 5
_END_S: Final = 10
"""Seconds in which workers must have ended what nobody waits for: a write that is under way gets some of them."""
_RELEASE_S: Final = 0.2
"""Seconds until the scheduler surely knows what nobody waits for. Dask tells it some hundred times a second."""
_LOGGERS: Final = ("distributed", "tornado")


@dataclass(frozen=True, slots=True)
class Pool:
    """Workers of Dask, which do jobs."""

    client: Client
    address: str
    workers: Sequence[str]
    """The addresses of those that were there at the start. What comes later works as well."""
    _seen: dict[str, bool] = field(default_factory=dict)
    """Whether each worker that was there once is there now."""
    _keys: list[str] = field(default_factory=list)
    """What Dask calls each job that was handed out."""

    @property
    def on_one_machine(self) -> int:
        """How many of the workers are on one machine, at most."""
        return max(Counter(urlsplit(worker).hostname for worker in self.workers).values())

    async def ask(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """Have each worker call a function, and give for each what it returned or, if it failed, the exception."""
        with self._naming_what_is_lost():
            answers: dict[str, Any] = await self.client.run(function, *arguments, on_error="return")
        return answers

    async def ask_facts(self) -> dict[str, Any]:
        """Ask each worker what it is, as ``ask`` does. Raises WorkersSilent, which names those that do not answer."""
        # The worker loads the module by its name: one that lacks it could not even read a function of ours.
        question = (pkgutil.resolve_name, "asyncbackup.dispatch.facts:FACTS")
        answers: dict[str, Any] = {}

        async def ask_one(worker: str) -> None:
            with self._naming_what_is_lost():
                answers.update(await self.client.run(*question, workers=[worker], on_error="return"))

        with self._naming_what_is_lost():
            workers = list(await self.client.nthreads())
        with anyio.move_on_after(_ANSWER_S):
            async with anyio.create_task_group() as group:
                for worker in workers:
                    group.start_soon(ask_one, worker)
        if silent := [worker for worker in workers if worker not in answers]:
            raise WorkersSilent(silent, _ANSWER_S)
        return answers

    async def do(
        self, what: str, function: Callable[..., Awaitable[Any]], *arguments: Any, claims: Sequence[Path] = ()
    ) -> Any:
        """Have a worker await ``function``, another one if it dies. ``what`` is how an error calls the job.

        Raises WorkerLost, SchedulerLost, WorkersDiffer, and the expected errors of the function. Cancelled, or when one
        of the files ``claims`` is gone: the worker cancels the function within a second.
        """
        from distributed import KilledWorker  # noqa: PLC0415 - an extra

        from asyncbackup.dispatch.worker import Task, carry_out  # noqa: PLC0415 - needs the extra

        with self._naming_what_is_lost():
            key = f"asyncbackup-{secrets.token_hex(8)}"
            self._keys.append(key)
            future = self.client.submit(carry_out, Task(function, arguments, claims, FACTS), key=key)
            try:
                outcome = await future
            except KilledWorker as error:
                raise WorkerLost(what, error.allowed_failures + 1) from error
            finally:
                # Nobody else wants it, so the worker forgets it.
                future.release()
        if outcome.error is not None:
            raise outcome.error
        return outcome.result

    async def has_ended_all(self) -> bool:
        """Wait a short time until no worker that is there does what nobody waits for. Tell whether that is so."""
        if not self._keys:
            return True
        with anyio.move_on_after(_END_S), suppress(SchedulerLost):
            await anyio.sleep(_RELEASE_S)
            while any((await self.ask(_find_any, self._keys)).values()):  # noqa: ASYNC110 - Dask tells nobody
                await anyio.sleep(_RELEASE_S)
            return True
        return False

    async def find_lost(self) -> list[str]:
        """Find the workers that were there once, and are not any more, as far as the scheduler still says it.

        Where nothing was handed out, none counts.
        """
        if not self._keys:
            return []
        with anyio.move_on_after(_END_S), suppress(SchedulerLost):
            await self._look()
        return [worker for worker, is_there in self._seen.items() if not is_there]

    async def _look(self) -> bool:
        """See which workers are there, and tell whether there are any."""
        with self._naming_what_is_lost():
            there = await self.client.nthreads()
        self._seen.update({worker: worker in there for worker in [*self._seen, *there]})
        return bool(there)

    async def watch(self) -> None:
        """Raise NoWorkers when there was none for a while, and SchedulerLost when the scheduler is gone, or silent."""
        alone_s = 0.0
        while True:
            try:
                with anyio.fail_after(_SCHEDULER_S):
                    alone_s = 0.0 if await self._look() else alone_s + _LOOK_S
            except TimeoutError as error:
                raise SchedulerSilent(self.address, _SCHEDULER_S) from error
            if alone_s >= _JOIN_S:
                raise NoWorkers(self.address)
            await anyio.sleep(_LOOK_S)

    @contextmanager
    def _naming_what_is_lost(self) -> Iterator[None]:
        from distributed.client import FutureCancelledError  # noqa: PLC0415 - an extra

        try:
            yield
        except (OSError, FutureCancelledError) as error:
            raise SchedulerLost(self.address) from error


@asynccontextmanager
async def connect_dask(address: str) -> AsyncIterator[Pool]:
    """Connect to the scheduler at ``address``, such as ``tcp://host:8786``, and compare its workers with this machine.

    How TLS is used is what Dask's configuration says. Leaving the context, also by an error, cancels what the workers
    still do. Raises ExtraMissing, SchedulerUnreachable, NoWorkers, WorkersSilent, WorkersDiffer, and while it is open
    SchedulerLost and NoWorkers.
    """
    _import_distributed()
    from distributed import Client  # noqa: PLC0415 - an extra

    with single_error(), _quiet():
        client = Client(address, asynchronous=True, timeout=_CONNECT_S, set_as_default=False, name="asyncbackup")
        async with _closing(client):
            try:
                with anyio.fail_after(_GREET_S):
                    await client
            except TimeoutError as error:
                raise SchedulerUnreachable(address, f"no answer within {_GREET_S} s") from error
            except (OSError, ValueError, TypeError, ImportError, RuntimeError) as error:
                # Dask raises all of these where TLS is not set up, or a library for the way there is missing.
                raise SchedulerUnreachable(address, _first_line(error)) from error
            async with _pool_of(client, address) as pool:
                yield pool


@asynccontextmanager
async def start_dask(processes: int) -> AsyncIterator[Pool]:
    """Start a scheduler in this process, and so many worker processes on this machine. Leaving the context ends them.

    Nobody else can use them: they talk over TLS, with keys that only they have. Raises what ``connect_dask`` raises.
    """
    _import_distributed()
    from distributed import Client, LocalCluster, Security  # noqa: PLC0415 - an extra

    async with AsyncExitStack() as stack:
        stack.enter_context(single_error())
        stack.enter_context(_quiet())
        try:
            security = Security.temporary()
        except ImportError as error:
            raise ExtraMissing("dask", "cryptography", "protects workers from other users") from error
        with _interrupts_blocked():
            started = await LocalCluster(
                n_workers=processes,
                threads_per_worker=1,
                host="127.0.0.1",
                security=security,
                dashboard_address=None,
                # Our own bounds hold. Dask would end a worker whose files fill the page cache.
                memory_limit=None,
                silence_logs=logging.CRITICAL,
                asynchronous=True,
            )
        await stack.enter_async_context(_closing(started))
        client = await Client(started, asynchronous=True, set_as_default=False)
        await stack.enter_async_context(_closing(client))
        yield await stack.enter_async_context(_pool_of(client, "local"))


@asynccontextmanager
async def _closing(opened: Any) -> AsyncIterator[None]:
    """Close a client or a cluster, within a bound: its other side may be gone."""
    try:
        yield
    finally:
        with anyio.move_on_after(_CLOSE_S, shield=True):
            await opened.close()


@asynccontextmanager
async def _pool_of(client: Client, address: str) -> AsyncIterator[Pool]:
    from asyncbackup.dispatch.worker import refuse_differences  # noqa: PLC0415 - needs the extra

    try:
        joined: Any = client.wait_for_workers(1, timeout=_JOIN_S)  # type: ignore[func-returns-value]
        await joined
    except TimeoutError as error:
        raise NoWorkers(address) from error
    facts = await Pool(client, address, ()).ask_facts()
    refuse_differences(facts, FACTS)
    pool = Pool(client, address, list(facts), dict.fromkeys(facts, True))
    async with anyio.create_task_group() as group:
        group.start_soon(pool.watch)
        yield pool
        group.cancel_scope.cancel()


def _find_any(keys: Sequence[str], dask_worker: Worker) -> bool:
    """Tell whether a worker has a job of these. It forgets one that nobody wants when that has ended."""
    return any(key in dask_worker.state.tasks for key in keys)


def _import_distributed() -> None:
    try:
        import distributed  # noqa: F401, PLC0415 - an extra
    except ImportError as error:
        raise ExtraMissing("dask", "distributed", "hands work out to other machines") from error


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Hold Ctrl-C back. Processes that are started meanwhile never see it: it goes to all of a terminal."""
    # The process that keeps track of semaphores is started with the first other one, and then lets it through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep from the terminal what Dask would say there. What matters of it is an error."""
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        for name in (*_LOGGERS, *logging.root.manager.loggerDict):
            if name.split(".")[0] in _LOGGERS:
                logger = logging.getLogger(name)
                stack.callback(setattr, logger, "disabled", logger.disabled)
                logger.disabled = True
        yield


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
