"""A bounded window of concurrent jobs whose results leave in the order the jobs came.

Each job has a slot, which owns the buffers it works in; a slot is free again only when its job's result was
delivered. So memory is constant, and a slow receiver stops the jobs.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable
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
    slot: Slot
    done: anyio.Event = field(default_factory=anyio.Event)
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
        self._work = work
        self._deliver = deliver
        self._slot_size = slot_size
        self._unmade = slots
        self._free: deque[Slot] = deque()
        self._entries: deque[_Entry[Result]] = deque()
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
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._deliver_in_order)
                async for job in jobs:
                    entry: _Entry[Result] = _Entry(await self._acquire())
                    self._entries.append(entry)
                    self._notify()
                    group.start_soon(self._do, job, entry)
                self._no_more_jobs = True
                self._notify()
        finally:
            self._entries.clear()

    async def _do(self, job: Job, entry: _Entry[Result]) -> None:
        entry.result = await self._work(job, entry.slot)
        entry.done.set()

    async def _acquire(self) -> Slot:
        while not self._free:
            if self._unmade:
                self._unmade -= 1
                return Slot(self._slot_size)
            await self._change()
        return self._free.popleft()

    async def _deliver_in_order(self) -> None:
        while True:
            while not self._entries:
                if self._no_more_jobs:
                    return
                await self._change()
            await self._entries[0].done.wait()
            ready = self._ready()
            await self._deliver([cast("Result", entry.result) for entry in ready])
            for entry in ready:
                self._entries.popleft()
                self._free.append(entry.slot)
            self._notify()

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

    async def _change(self) -> None:
        await self._changed.wait()
