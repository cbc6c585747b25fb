"""A bounded window of concurrent jobs whose results leave in the order the jobs came.

Each job has a slot, which owns the buffers it works in; a slot is free again only when its job's result was
delivered. So memory is constant, and a slow receiver stops the jobs.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar, cast

import anyio

Job = TypeVar("Job")
Result = TypeVar("Result")


class Slot:
    """Two buffers of ``size`` bytes, which cost memory from their first use on."""

    def __init__(self, size: int) -> None:
        self.to = memoryview(mmap.mmap(-1, size))
        self.base = memoryview(mmap.mmap(-1, size))


@dataclass(slots=True)
class _Entry(Generic[Result]):
    done: anyio.Event = field(default_factory=anyio.Event)
    delivered: anyio.Event = field(default_factory=anyio.Event)
    result: Result | None = None


class Window(Generic[Job, Result]):
    """Runs ``work(job, slot)`` for up to ``slots`` jobs at a time; ``deliver`` gets the results in order.

    ``deliver`` gets those of as many neighbouring jobs as are ready, never none.
    """

    def __init__(
        self,
        slots: int,
        slot_size: int,
        work: Callable[[Job, Slot], Awaitable[Result]],
        deliver: Callable[[list[Result]], Awaitable[None]],
    ) -> None:
        self._slots = slots
        self._slot_size = slot_size
        self._work = work
        self._deliver = deliver
        self._entries: deque[_Entry[Result]] = deque()
        self._taking = anyio.Lock(fast_acquire=True)
        self._changed = anyio.Event()
        self._no_more_jobs = False

    @property
    def in_use(self) -> int:
        """Slots that hold a job."""
        return len(self._entries)

    async def run(self, jobs: AsyncIterable[Job]) -> None:
        """Do all ``jobs``. Returns when all results are delivered; the first error, or a cancellation, ends the rest.

        Errors arrive in an exception group.
        """
        source = aiter(jobs)
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._deliver_in_order)
                for _ in range(self._slots):
                    group.start_soon(self._do_jobs, source)
        finally:
            self._entries.clear()

    async def _do_jobs(self, source: AsyncIterator[Job]) -> None:
        """Do one job after the other, in a slot of its own."""
        slot: Slot | None = None
        while True:
            async with self._taking:
                try:
                    job = await anext(source)
                except StopAsyncIteration:
                    break
                entry: _Entry[Result] = _Entry()
                self._entries.append(entry)
                self._notify()
            slot = slot or Slot(self._slot_size)
            entry.result = await self._work(job, slot)
            entry.done.set()
            await entry.delivered.wait()
        self._no_more_jobs = True
        self._notify()

    async def _deliver_in_order(self) -> None:
        while True:
            while not self._entries:
                if self._no_more_jobs:
                    return
                await self._changed.wait()
            await self._entries[0].done.wait()
            ready = self._ready()
            await self._deliver([cast("Result", entry.result) for entry in ready])
            for entry in ready:
                self._entries.popleft()
                entry.delivered.set()

    def _ready(self) -> list[_Entry[Result]]:
        ready = []
        for entry in self._entries:
            if not entry.done.is_set():
                break
            ready.append(entry)
        return ready

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
