"""Keeps bytes in an object store for a while, in *segments*: small objects of one size, each written in one request.

Each of them is there whole, or not at all. Whoever is killed leaves nothing that cannot be listed and removed: an
upload in parts would stay, unseen.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Final, Self

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup

from asyncbackup.errors import SourceMissing, SourceUnreadable
from asyncbackup.storage.object_store import StoredObject, reading, writing
from asyncbackup.storage.part_buffer import PartBuffer
from asyncbackup.storage.target import Bytes, Step

_UNDER_WAY: Final = 2
"""Segments of one target that are sent at a time."""

HELD: Final = _UNDER_WAY + 1
"""Segments of one target that are in memory: one is being filled."""

_TRIES: Final = 3
_BATCH: Final = 1000
"""Objects that S3 removes in one request, at most."""


class SegmentsTarget:
    """Writes segments of ``size`` bytes, the last one shorter, whose names begin as ``place`` says.

    Leaving without a ``complete`` leaves what was written. ``name`` is what messages call it.
    """

    can_patch = False

    def __init__(self, place: StoredObject, size: int, name: str, group: TaskGroup) -> None:
        self.name = name
        self._place = place
        self._group = group
        self._buffer = PartBuffer(size)
        self._free = anyio.Semaphore(_UNDER_WAY)
        self._sent = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._buffer.take()

    async def append(self, buffers: Sequence[Bytes], *, before: Step | None = None) -> None:
        await self._buffer.append(buffers, self._send, before)

    async def _send(self) -> None:
        await self._free.acquire()
        self._group.start_soon(self._put, segment_of(self._place, self._sent), self._buffer.take())
        self._sent += 1

    async def _put(self, place: StoredObject, content: memoryview) -> None:
        await put(place, content, self.name)
        self._free.release()

    async def sync(self) -> None:
        """Do nothing."""

    async def complete(self, beginning: bytes = b"") -> None:
        """Wait until the store has all segments. An error of one of them cancels whoever waits here."""
        assert not beginning, "what was sent is not patched"
        if self._buffer.filled:
            await self._send()
        for _ in range(_UNDER_WAY):
            await self._free.acquire()

    async def abandon(self) -> None:
        """Do nothing: ``remove_below`` removes the segments."""


@asynccontextmanager
async def open_segments(place: StoredObject, size: int, name: str) -> AsyncIterator[SegmentsTarget]:
    """Open a SegmentsTarget. Its errors, TargetFull and TargetWriteFailed, arrive in an exception group."""
    async with anyio.create_task_group() as group, SegmentsTarget(place, size, name, group) as target:
        yield target


def segment_of(place: StoredObject, number: int) -> StoredObject:
    """Give the place of a segment; the first one is number 0."""
    return place.beside(f".{number}")


async def put(place: StoredObject, content: Bytes, name: str) -> None:
    """Write an object in one request. Raises TargetFull or TargetWriteFailed of ``name``."""
    from obstore import put_async  # noqa: PLC0415 - few starts need it

    with writing(name):
        await put_async(place.store, place.key, content, use_multipart=False)


async def read_segment(place: StoredObject, size: int) -> memoryview:
    """Read a whole segment, which has ``size`` bytes. Raises SourceUnreadable."""
    from obstore import get_async  # noqa: PLC0415 - few starts need it

    try:
        with reading(place.name):
            content = memoryview(await (await get_async(place.store, place.key)).bytes_async())
    except SourceMissing:
        raise SourceUnreadable(place.name, "was removed meanwhile, as another run of the same backup does") from None
    if len(content) != size:
        raise SourceUnreadable(place.name, f"expected {size} bytes, got {len(content)}")
    return content


async def list_below(place: StoredObject) -> list[str]:
    """List the keys of all objects in the folder ``place``. Raises TargetWriteFailed."""
    return await to_thread.run_sync(_list, place)


async def remove_below(place: StoredObject) -> None:
    """Remove all objects in the folder ``place``. Raises TargetWriteFailed. A cancellation waits for it."""
    await to_thread.run_sync(_remove, place)


def _list(place: StoredObject) -> list[str]:
    from obstore import list as list_store  # noqa: PLC0415 - few starts need it

    with writing(place.name):
        found = list_store(place.store, prefix=place.key, chunk_size=_BATCH)
        return [each["path"] for batch in found for each in batch]


def _remove(place: StoredObject) -> None:
    """Remove, and again if somebody else removes the same, or writes there meanwhile."""
    from obstore import delete  # noqa: PLC0415 - few starts need it

    for _ in range(_TRIES):
        keys = _list(place)
        if not keys:
            return
        with writing(place.name):
            try:
                for start in range(0, len(keys), _BATCH):
                    delete(place.store, keys[start : start + _BATCH])
            except FileNotFoundError:
                continue
