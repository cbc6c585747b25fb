"""A bounded window of workers whose results leave in the order in which their items came.

Each worker takes one item at a time, and has a slot, which owns the buffers that it works in. The slot is free for the
next item only when the result was delivered. So memory is constant, and a slow receiver stops the workers. The window
bounds memory and nothing else: how many requests are in flight is decided where they are sent.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Generic, TypeVar, cast

import anyio

from asyncbackup.engine.compact import MAX_LENGTH
from asyncbackup.errors import MemoryTooSmall

Item = TypeVar("Item")
Result = TypeVar("Result")

MIN_MEMORY: Final = 1 << 20
"""Bytes: fewer would cut objects into portions so short that each costs more than it brings."""

_LEAST_WORKERS: Final = 4
"""They keep a server on the same machine busy, and both cores of a small machine."""
_MOST_WORKERS: Final = 256


@dataclass(frozen=True, slots=True)
class WindowOptions:
    """How many workers a window has, and how much memory they share. Raises ValueError for less than one of each."""

    workers: int | None = None
    """Tasks that read, compare or write data objects (portions of large ones), each one at a time.

    None: as many as keep under way what the cluster takes. More of them would keep no server busier, and their buffers
    would fall out of the processor's cache before they are compared.
    """
    memory: int = 128 << 20
    """Bytes of buffers for all of them together, at most."""

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"expected at least 1 worker, got {self.workers}")
        if self.memory < MIN_MEMORY:
            raise ValueError(f"expected at least {MIN_MEMORY} bytes of memory, got {self.memory}")

    def without(self, held: int) -> WindowOptions:
        """Give the same with so many bytes less, because others hold them. Raises MemoryTooSmall."""
        if self.memory - held < MIN_MEMORY:
            raise MemoryTooSmall(held + MIN_MEMORY, self.memory)
        return replace(self, memory=self.memory - held)

    def portion_size(self, object_size: int) -> int:
        """Give the bytes of an object to work on at a time: all, or a power of two of which memory holds two pairs."""
        fitting = 1 << (self.memory // 4).bit_length() - 1
        return min(object_size, MAX_LENGTH, fitting)

    def slots(self, portion_size: int, buffers: int = 2) -> int:
        """Give how many slots, each of so many buffers of ``portion_size``, there is memory for: a worker each.

        Raises MemoryTooSmall if there is not memory for one.
        """
        if buffers * portion_size > self.memory:
            raise MemoryTooSmall(buffers * portion_size, self.memory)
        return min(self.workers or _MOST_WORKERS, self.memory // (buffers * portion_size))

    def active(self, limit: Callable[[], int] | None, each: int) -> Callable[[], int]:
        """Give what says how many workers may take an item now.

        ``limit`` gives the bytes that the cluster takes at a time, None without one; ``each`` is what a worker has
        under way. One more worker compares meanwhile.
        """
        if self.workers is not None or limit is None:
            fixed = self.workers or _LEAST_WORKERS
            return lambda: fixed
        return lambda: max(_LEAST_WORKERS, limit() // each + 1)


class Slot:
    """The buffers of a worker, of ``sizes`` bytes each. They cost memory only where they are used."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.buffers = [memoryview(mmap.mmap(-1, size)) for size in sizes]


@dataclass(slots=True)
class _Entry(Generic[Result]):
    """An item that a worker took, until its result is delivered."""

    done: anyio.Event = field(default_factory=anyio.Event)
    delivered: anyio.Event = field(default_factory=anyio.Event)
    result: Result | None = None


class Window(Generic[Item, Result]):
    """Does ``work(item, slot)`` with up to ``workers`` items at a time; ``deliver`` gets the results in order.

    Each slot has a buffer for each of ``sizes``, in bytes. ``deliver`` gets the results of as many neighbouring items
    as are ready, and never none. ``active`` says how many workers may take an item now: at least one does. It is asked
    again when results were delivered. A window runs once.
    """

    def __init__(
        self,
        workers: int,
        sizes: Sequence[int],
        work: Callable[[Item, Slot], Awaitable[Result]],
        deliver: Callable[[list[Result]], Awaitable[None]],
        active: Callable[[], int] | None = None,
    ) -> None:
        self._active = active or (lambda: workers)
        self._workers = workers
        self._sizes = sizes
        self._work = work
        self._deliver = deliver
        self._entries: deque[_Entry[Result]] = deque()
        self._taking = anyio.Lock(fast_acquire=True)
        self._taken = anyio.Event()
        """Set when an item was taken, or when there is none left."""
        self._resting: dict[int, anyio.Event] = {}
        """What wakes each worker that may not take an item now."""
        self._no_more_items = False

    async def run(self, items: AsyncIterable[Item]) -> None:
        """Work on all ``items``. Returns when all results are delivered.

        The first error, or a cancellation, ends all workers. Errors arrive in an exception group.
        """
        source = aiter(items)
        async with anyio.create_task_group() as group:
            group.start_soon(self._deliver_in_order)
            for number in range(self._workers):
                group.start_soon(self._run_worker, number, source)

    async def _run_worker(self, number: int, source: AsyncIterator[Item]) -> None:
        """Work on one item after the other, in a slot of its own."""
        slot: Slot | None = None
        while True:
            # The first worker always works, so that results are delivered, and the others are woken.
            while number and number >= self._active() and not self._no_more_items:
                self._resting[number] = woken = anyio.Event()
                await woken.wait()
            async with self._taking:
                try:
                    item = await anext(source)
                except StopAsyncIteration:
                    break
                entry: _Entry[Result] = _Entry()
                self._entries.append(entry)
                self._taken.set()
            slot = slot or Slot(self._sizes)
            entry.result = await self._work(item, slot)
            entry.done.set()
            await entry.delivered.wait()
        self._no_more_items = True
        self._taken.set()
        self._wake(self._workers)

    async def _deliver_in_order(self) -> None:
        while True:
            while not self._entries:
                if self._no_more_items:
                    return
                self._taken = anyio.Event()
                await self._taken.wait()
            await self._entries[0].done.wait()
            ready = self._ready()
            await self._deliver([cast("Result", entry.result) for entry in ready])
            for entry in ready:
                self._entries.popleft()
                entry.delivered.set()
            self._wake(self._active())

    def _ready(self) -> list[_Entry[Result]]:
        ready = []
        for entry in self._entries:
            if not entry.done.is_set():
                break
            ready.append(entry)
        return ready

    def _wake(self, active: int) -> None:
        """Wake the workers that may take an item now, and no others: each of many would cost time at each item."""
        for number in [number for number in self._resting if number < active]:
            self._resting.pop(number).set()
