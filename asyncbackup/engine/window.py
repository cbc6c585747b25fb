"""A bounded window of concurrent jobs whose results leave in the order the jobs came.

Each job has a slot, which owns the buffers it works in; a slot is free again only when its job's result was
delivered. So memory is constant, and a slow receiver stops the jobs.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar, cast

import anyio

from asyncbackup.engine.compact import MAX_LENGTH

Job = TypeVar("Job")
Result = TypeVar("Result")


MIN_MEMORY: Final = 1 << 20
"""Bytes: fewer would cut objects into portions so short that each costs more than it brings."""


@dataclass(frozen=True, slots=True)
class WindowOptions:
    """How many workers a window has, and how much memory they share. Raises ValueError for less than one of each."""

    workers: int = 4
    """Tasks that read, compare or write data objects (portions of large ones), one at a time each.

    More keep no server busier, and their buffers fall out of the processor's cache before they are compared.
    """
    memory: int = 128 << 20
    """Bytes of buffers for all of them together, at most."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"expected at least 1 worker, got {self.workers}")
        if self.memory < MIN_MEMORY:
            raise ValueError(f"expected at least {MIN_MEMORY} bytes of memory, got {self.memory}")

    def portion_size(self, object_size: int) -> int:
        """Give the bytes of an object to work on at a time: all, or a power of two of which memory holds two pairs."""
        fitting = 1 << (self.memory // 4).bit_length() - 1
        return min(object_size, MAX_LENGTH, fitting)

    def slots(self, portion_size: int) -> int:
        """Give how many slots, each of two buffers of ``portion_size``, there is memory for: a worker each."""
        return min(self.workers, self.memory // (2 * portion_size))


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
