"""Where pieces of a backup are until they are joined: in a folder beside a file, or beside an object in its store.

A place is plain data, so that it can be handed to any process on any machine. No secret is in it (``Access``).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple, Protocol, Self

from anyio import to_thread

from asyncbackup.engine.window import Slot, Window
from asyncbackup.errors import single_error
from asyncbackup.storage import Access, JoinableTarget, ScratchTarget, Target
from asyncbackup.storage.location import ObjectLocation, find_object
from asyncbackup.storage.object_store import StoredObject, open_object
from asyncbackup.storage.segments import HELD, list_below, open_segments, put, read_segment, remove_below, segment_of
from asyncbackup.storage.target import Layer, StoredTarget, wrap_os_errors

_PIECES: Final = ".pieces"

_READS: Final = 4
"""Segments of a piece that are read at a time."""

_LEAST_SEGMENT: Final = 1 << 20
_MOST_SEGMENT: Final = 8 << 20
"""Bytes of a segment: two that are sent at a time make 100 MB/s or more where a store takes 20 ms for an answer."""

_SHARE: Final = 16
"""A segment gets one byte in so many of a worker's memory. It holds three, and whoever joins holds four."""

_TRIES: Final = 3


class PieceName(NamedTuple):
    """An attempt at a piece. Each has a name of its own: one that is thought dead may still write."""

    first: int
    """The first object of the piece."""
    attempt: str


class Scratch(Protocol):
    """A place for the pieces of one backup. All methods raise TargetError, or SourceError for what cannot be read."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def is_far(self) -> bool:
        """Whether it is in a store, so that what goes there crosses a network."""

    @property
    def held(self) -> int:
        """Bytes that whoever writes a piece holds in memory."""

    @property
    def ahead(self) -> int:
        """Bytes that whoever joins a piece holds in memory."""

    def within(self, memory: int) -> Self:
        """Give the same, for a worker with so many bytes of memory."""

    async def prepare(self) -> None:
        """Make the place, and remove what a run left there that was killed."""

    async def remove(self) -> None:
        """Remove it, with all that is there."""

    def write(self, piece: PieceName, name: str) -> AbstractAsyncContextManager[Target]:
        """Open the data of a piece for writing. ``name`` is what messages call the backup."""

    async def append(self, piece: PieceName, length: int, target: Target) -> None:
        """Append a piece of ``length`` bytes to the backup that this place is of."""

    async def count(self, first: int) -> int:
        """Count the attempts at the piece that begins with this object, whole or not."""

    async def discard(self, piece: PieceName) -> None:
        """Remove a piece, and what can be seen of all other attempts at it."""

    async def mark(self, name: str) -> None:
        """Leave an empty mark of this name for others."""

    def mark_path(self, name: str) -> Path | None:
        """Give the file of a mark, where it costs nothing to look for it again and again; None: there it does."""

    async def sees(self, name: str) -> bool:
        """Tell whether there is a mark of this name. It is asked for by that: a listing may be old."""

    async def unmark(self, name: str) -> None:
        """Remove a mark."""


@dataclass(frozen=True, slots=True)
class FolderScratch:
    """A folder beside a file. Each piece is a file, so that to join it is to copy within one file system."""

    folder: Path
    target: str
    """The name of the backup."""
    is_far = False
    held = 0
    ahead = 0

    @property
    def name(self) -> str:
        return f"the folder {self.folder}"

    def within(self, memory: int) -> Self:  # noqa: ARG002 - a file holds nothing
        return self

    async def prepare(self) -> None:
        with wrap_os_errors(self.target):
            await to_thread.run_sync(self.folder.mkdir, 0o700)

    async def remove(self) -> None:
        await to_thread.run_sync(self._remove)

    def _remove(self) -> None:
        """Remove the folder, again if a worker that was cancelled has begun a file there meanwhile."""
        for _ in range(_TRIES):
            shutil.rmtree(self.folder, ignore_errors=True)
            if not self.folder.exists():
                break

    def path_of(self, piece: PieceName) -> Path:
        """Give the file of a piece."""
        return self.folder / f"{piece.first}.{piece.attempt}"

    @asynccontextmanager
    async def write(self, piece: PieceName, name: str) -> AsyncIterator[Target]:
        with wrap_os_errors(name):
            descriptor = os.open(self.path_of(piece), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            async with ScratchTarget(descriptor, name) as target:
                yield target
        finally:
            os.close(descriptor)

    async def append(self, piece: PieceName, length: int, target: Target) -> None:
        assert isinstance(target, JoinableTarget), "it is beside a file"
        await target.append_file(self.path_of(piece), length)

    async def count(self, first: int) -> int:
        return len(await to_thread.run_sync(self._attempts, first))

    async def discard(self, piece: PieceName) -> None:
        await to_thread.run_sync(self._discard, piece)

    def _discard(self, piece: PieceName) -> None:
        """Remove the piece by its name: where machines share a folder, a listing may be old."""
        for path in {self.path_of(piece), *self._attempts(piece.first)}:
            path.unlink(missing_ok=True)

    def _attempts(self, first: int) -> list[Path]:
        return list(self.folder.glob(f"{first}.*"))

    async def mark(self, name: str) -> None:
        with wrap_os_errors(str(self.folder / name)):
            await to_thread.run_sync((self.folder / name).touch, 0o600)

    def mark_path(self, name: str) -> Path | None:
        return self.folder / name

    async def sees(self, name: str) -> bool:
        return await to_thread.run_sync(os.access, self.folder / name, os.R_OK)

    async def unmark(self, name: str) -> None:
        await to_thread.run_sync((self.folder / name).unlink, True)


@dataclass(frozen=True, slots=True)
class StoreScratch:
    """A folder beside an object. A piece is segments (``storage/segments``), which are read side by side."""

    location: ObjectLocation
    """The folder."""
    access: Access
    segment_size: int = _LEAST_SEGMENT
    is_far = True

    @property
    def name(self) -> str:
        return f"the store at {self.location}"

    @property
    def held(self) -> int:
        return HELD * self.segment_size

    @property
    def ahead(self) -> int:
        return _READS * self.segment_size

    def within(self, memory: int) -> Self:
        size = memory // _SHARE // _LEAST_SEGMENT * _LEAST_SEGMENT
        return replace(self, segment_size=max(_LEAST_SEGMENT, min(size, _MOST_SEGMENT)))

    async def prepare(self) -> None:
        await remove_below(await self._open())

    async def remove(self) -> None:
        await remove_below(await self._open())

    async def _open(self, below: str = "") -> StoredObject:
        return (await to_thread.run_sync(open_object, self.location, self.access)).beside(below)

    async def _open_piece(self, piece: PieceName) -> StoredObject:
        return await self._open(f"/{piece.first}/{piece.attempt}")

    @asynccontextmanager
    async def write(self, piece: PieceName, name: str) -> AsyncIterator[Target]:
        async with open_segments(await self._open_piece(piece), self.segment_size, name) as target:
            yield target

    async def append(self, piece: PieceName, length: int, target: Target) -> None:
        place, size = await self._open_piece(piece), self.segment_size

        async def numbers() -> AsyncGenerator[int, None]:
            for number in range(-(-length // size)):
                yield number

        async def read(number: int, _slot: Slot) -> memoryview:
            return await read_segment(segment_of(place, number), min(size, length - number * size))

        with single_error():
            async with aclosing(numbers()) as items:
                await Window(_READS, [], read, target.append).run(items)

    async def count(self, first: int) -> int:
        keys = await list_below(await self._open(f"/{first}"))
        return len({key.rpartition(".")[0] for key in keys})

    async def discard(self, piece: PieceName) -> None:
        await remove_below(await self._open(f"/{piece.first}"))

    async def mark(self, name: str) -> None:
        await put(await self._open(f"/{name}"), b"", str(self.location))

    def mark_path(self, name: str) -> Path | None:  # noqa: ARG002 - none has a file
        return None

    async def sees(self, name: str) -> bool:
        return await (await self._open(f"/{name}")).state() is not None

    async def unmark(self, name: str) -> None:
        await (await self._open(f"/{name}")).remove()


def find_scratch(target: Target) -> Scratch | None:
    """Give the place for pieces of what goes to ``target``; None: they have none, or would stand there unencrypted."""
    if isinstance(target, JoinableTarget):
        return FolderScratch(target.pieces, target.name)
    while isinstance(target, Layer) and not target.encrypts:
        target = target.inner
    if not isinstance(target, StoredTarget):
        return None
    location = find_object(target.name)
    assert location is not None, "objects are called by their URLs"
    return StoreScratch(location.hidden(_PIECES), (target.stored_at.access or Access()).sharing_stores())
