"""A file whose system calls all run in one thread, in order.

After a cancellation, cleaning up waits for the write under way.
"""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar

import aiofiles.os
import anyio

from asyncbackup.storage.opening import open_in_thread
from asyncbackup.storage.target import Bytes, wrap_os_errors
from asyncbackup.storage.write_behind import start_writing, write_most

_START_SIZE: Final = 8 << 20
"""Bytes after which the kernel is to begin writing them. So the disk works while more is read."""

_MOST_UNWRITTEN: Final = 64 << 20
"""Bytes after which the disk is waited for, so that the last flush, which delays a Ctrl-C, is short."""

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class SerialFile(ABC):
    """A file at ``path`` whose system calls all run in one thread, in order. Use it as a context."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="file-target")
        self._descriptor = -1
        self._unwritten = 0
        self._closing: Future[None] | None = None

    async def _in_thread(
        self, function: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> _Result:
        run = aiofiles.os.wrap(function)
        result: _Result = await run(*args, executor=self._thread, **kwargs)
        return result

    async def __aenter__(self) -> Self:
        await open_in_thread(self._open_or_nothing, lambda _: self._clean_up())
        return self

    def _open_or_nothing(self) -> None:
        try:
            self._open()
        except BaseException:
            self._clean_up()
            raise

    @property
    def is_open(self) -> bool:
        return self._descriptor >= 0

    @abstractmethod
    def _open(self) -> None:
        """Set the descriptor. Called in a thread, before all else."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        if self._closing is None:
            self._closing = self._thread.submit(self._clean_up)
            self._thread.shutdown(wait=False)
        await finished(self._closing)

    def _clean_up(self) -> None:
        """Close the descriptor, if there is one. Called in the thread, last."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    async def write_at(self, offset: int, data: Bytes) -> None:
        """Write ``data``, which is free for other use when this returns. Raises TargetFull or TargetWriteFailed."""
        await self._in_thread(self._write_at, offset, data)

    async def write_places(self, places: Sequence[tuple[int, Bytes]]) -> None:
        """Write to several places, each an offset and its data, as ``write_at`` does, in one hop to the thread."""
        await self._in_thread(self._write_places, places)

    async def resize(self, size: int) -> None:
        """Cut off the end, or add a hole there. Raises TargetFull if the file system has no files so large."""
        await self._in_thread(self._resize, size)

    async def go_back(self, size: int) -> None:
        """Cut off, durably, what stands behind the first ``size`` bytes, and append there from now on."""
        await self._in_thread(self._go_back, size)

    def _go_back(self, size: int) -> None:
        self._resize(size)
        with wrap_os_errors(str(self.path)):
            os.lseek(self._descriptor, size, os.SEEK_SET)
            os.fsync(self._descriptor)

    def _resize(self, size: int) -> None:
        with wrap_os_errors(str(self.path)):
            os.ftruncate(self._descriptor, size)

    def _write_at(self, offset: int, data: Bytes) -> None:
        with wrap_os_errors(str(self.path)):
            self._pwrite(data, offset)

    def _write_places(self, places: Sequence[tuple[int, Bytes]]) -> None:
        for offset, data in places:
            self._write_at(offset, data)

    def _pwrite(self, data: Bytes, offset: int) -> None:
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self._descriptor, rest, offset)
            rest, offset = rest[written:], offset + written
            self._count(written)

    def _count(self, written: int) -> None:
        before, self._unwritten = self._unwritten, self._unwritten + written
        if self._unwritten >= _MOST_UNWRITTEN:
            write_most(self._descriptor)
            self._unwritten = 0
        elif before // _START_SIZE < self._unwritten // _START_SIZE:
            start_writing(self._descriptor)


async def finished(in_thread: Future[None]) -> None:
    """Wait until a thread is done. A cancellation is raised only after that, so that nothing is left half done."""
    await ended(in_thread)
    in_thread.result()


async def ended(in_thread: Future[Any]) -> None:
    """Wait until a thread is done, whatever it gives or raises. A cancellation is raised only after that."""
    done = asyncio.wrap_future(in_thread)
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not done.done():
            try:
                await asyncio.wait([done])
            except asyncio.CancelledError as error:
                cancelled = error
    done.exception()
    if cancelled is not None:
        raise cancelled
