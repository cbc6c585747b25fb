"""Reads an object in ranges, each a request of its own. What is read in small steps is fetched ahead, in large ones."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import anyio
from anyio import from_thread, to_thread
from anyio.abc import TaskGroup

from asyncbackup.errors import SourceMissing, SourceUnreadable
from asyncbackup.storage.access import Access
from asyncbackup.storage.location import ObjectLocation
from asyncbackup.storage.object_store import StoredObject, open_object, reading
from asyncbackup.storage.ranged import RangedSource
from asyncbackup.storage.target import BRIEF, Step

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta

_SMALL: Final = 1 << 20
"""Bytes of an object that is fetched as a whole when some of it is wanted: a range of it would take as long."""

_GLANCE: Final = 128 << 10
"""The same where only its beginning is wanted."""

_LARGE: Final = 1 << 20
"""Bytes of a range at least that is always fetched alone: many readers at a time keep the pipe full by themselves."""

_CHUNK: Final = 1 << 20
_AHEAD: Final = 4
"""Bytes in a request that fetches ahead, and how many such are under way: 200 MB/s where an answer takes 20 ms."""

_PIECE: Final = 256 << 10
"""Bytes to copy at a time as they come, so that the event loop is never held for long."""

_REPLACED: Final = "was replaced while it was read"


@dataclass(slots=True)
class _Chunk:
    """A range that is fetched ahead."""

    start: int
    data: memoryview
    done: anyio.Event = field(default_factory=anyio.Event)
    error: Exception | None = None
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    @property
    def end(self) -> int:
        return self.start + len(self.data)


class ObjectSource(RangedSource):
    """An object, as it is when this is entered. If another one takes its place, reading raises SourceUnreadable.

    Reading at any offset fetches just that range, unless it goes on where the last read ended. It holds up to 4 MiB.
    ``only_glances``: no more is wanted than the beginning.
    """

    is_far = True

    def __init__(self, place: StoredObject, *, only_glances: bool = False) -> None:
        super().__init__(place.name)
        self._place = place
        self._small = _GLANCE if only_glances else _SMALL
        self._seen: ObjectMeta | None = None
        self._group: TaskGroup
        self._whole: memoryview | None = None
        self._ahead: deque[_Chunk] = deque()
        self._next = -1
        """Where the last small read ended. -1: none was."""
        self._depth = 1
        """How many chunks may be fetched ahead: more, the longer somebody reads on."""
        self._turn = anyio.Lock()

    async def __aenter__(self) -> Self:
        with reading(self.name):
            self._seen = await self._place.find()
        if self._seen is None:
            raise SourceMissing(self.name)
        self.size = self._seen["size"]
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._group.cancel_scope.cancel()
        # Fetching ahead raises nothing: its errors wait for whoever reads there.
        await self._group.__aexit__(None, None, None)

    async def read_into(
        self, offset: int, view: memoryview, *, before: Step | None = None, after: Step | None = None
    ) -> int:
        await _run(before, len(view))
        count = await self._read(offset, view)
        await _run(after, len(view))
        return count

    def read_now(self, offset: int, view: memoryview) -> int:
        try:
            return from_thread.run(self._read, offset, view)
        except CancelledError:
            from_thread.check_cancelled()
            raise

    async def _read(self, offset: int, view: memoryview) -> int:
        view = view[: max(0, self.size - offset)]
        if not view:
            return 0
        if self.size <= self._small:
            view[:] = (await self._fetch_whole())[offset : offset + len(view)]
        elif len(view) >= _LARGE or not await self._read_on(offset, view):
            await self._fetch(offset, view)
        return len(view)

    async def _fetch_whole(self) -> memoryview:
        async with self._turn:
            if self._whole is None:
                whole = memoryview(bytearray(self.size))
                await self._fetch(0, whole)
                self._whole = whole
            return self._whole

    async def _read_on(self, offset: int, view: memoryview) -> bool:
        """Fill ``view`` from what is fetched ahead, if it goes on where the last read ended. Tell whether it does."""
        async with self._turn:
            if offset != self._next:
                self._next, self._depth = offset + len(view), 1
                return False
            self._next += len(view)
            while view:
                chunk = await self._await_chunk(offset)
                part = chunk.data[offset - chunk.start :][: len(view)]
                view[: len(part)] = part
                offset, view = offset + len(part), view[len(part) :]
            return True

    async def _await_chunk(self, offset: int) -> _Chunk:
        """Give the chunk that ``offset`` is in, and have more fetched behind it."""
        while self._ahead and not self._ahead[0].start <= offset < self._ahead[0].end:
            self._ahead.popleft().scope.cancel()
        while len(self._ahead) < self._depth and (start := self._ahead[-1].end if self._ahead else offset) < self.size:
            chunk = _Chunk(start, memoryview(bytearray(min(_CHUNK, self.size - start))))
            self._ahead.append(chunk)
            self._group.start_soon(self._fetch_chunk, chunk)
        first = self._ahead[0]
        await first.done.wait()
        if first.error is not None:
            raise first.error
        self._depth = min(2 * self._depth, _AHEAD)
        return first

    async def _fetch_chunk(self, chunk: _Chunk) -> None:
        try:
            with chunk.scope:
                await self._fetch(chunk.start, chunk.data)
        except SourceUnreadable as error:
            chunk.error = error
        # If it was cancelled, nobody waits for it: it was passed over, or this source is left.
        chunk.done.set()

    async def _fetch(self, offset: int, view: memoryview) -> None:
        """Fill ``view`` with what is at ``offset``, in one request."""
        from obstore import get_async  # noqa: PLC0415 - few starts need it

        assert self._seen is not None
        options: GetOptions = {"range": (offset, offset + len(view))}
        if self._seen["e_tag"] is not None:
            options["if_match"] = self._seen["e_tag"]
        done = 0
        try:
            with reading(self.name):
                answer = await get_async(self._place.store, self._place.key, options=options)
                self._judge(answer.meta)
                async for piece in answer.stream(min(_PIECE, len(view))):
                    taken = min(len(piece), max(0, len(view) - done))
                    view[done : done + taken] = memoryview(piece)[:taken]
                    done += len(piece)
        except SourceMissing:
            raise SourceUnreadable(self.name, "was removed while it was read") from None
        if done != len(view):
            raise SourceUnreadable(self.name, f"expected {len(view)} bytes from {offset} on, got {done}")

    def _judge(self, got: ObjectMeta) -> None:
        """Raise unless the answer is of the object that was seen first: not all stores heed what is asked of them."""
        assert self._seen is not None
        if self._seen["e_tag"] is None:
            is_same = got["last_modified"] == self._seen["last_modified"]
        else:
            is_same = got["e_tag"] == self._seen["e_tag"]
        if not is_same or got["size"] != self._seen["size"]:
            raise SourceUnreadable(self.name, _REPLACED)


@asynccontextmanager
async def open_object_source(
    location: ObjectLocation, access: Access | None, *, only_glances: bool = False
) -> AsyncIterator[ObjectSource]:
    """Open the object at ``location``. Raises SourceMissing, SourceUnreadable, and what ``open_object`` raises."""
    place = await to_thread.run_sync(open_object, location, access)
    async with ObjectSource(place, only_glances=only_glances) as source:
        yield source


async def _run(step: Step | None, size: int) -> None:
    if step is None:
        return
    if size <= BRIEF:
        step()
    else:
        await to_thread.run_sync(step)
