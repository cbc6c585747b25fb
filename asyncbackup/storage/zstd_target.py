"""Compresses what goes to another target, in threads beside the work of the caller."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Final, NamedTuple

from asyncbackup.errors import TargetWriteFailed
from asyncbackup.format.seekable import SeekTableEncoder
from asyncbackup.storage.layer_target import LayerTarget
from asyncbackup.storage.serial_file import ended
from asyncbackup.storage.source import FileSource
from asyncbackup.storage.target import Bytes, JoinableTarget, Step, Target, run_before
from asyncbackup.storage.zstd import FRAME_SIZE, make_compressor
from asyncbackup.storage.zstd_memory import plan_threads

_AHEAD: Final = 2
"""Frames for each thread that may be compressed, or wait for that or for their turn, at a time."""


class _Compressing(NamedTuple):
    size: int
    frame: Future[bytes]


class ZstdTarget(LayerTarget):
    """Writes what is appended to ``inner``, which was entered, as zstd in frames of FRAME_SIZE, with a seek table.

    ``threads`` threads compress. Each frame waits for its turn, and ``append`` waits while too many do. So memory is
    bounded: for each thread a few frames, and what zstd needs at that ``level``. What is written depends on the content
    and the level alone, not on how it was cut into buffers, nor on the threads.

    If threads ``may_be_fewer``, ``reserve`` may make them so.

    The content is complete with ``end``. Until then the last bytes, which fill no frame, are not in ``inner``, also
    after a ``sync``. A ``sync`` may follow an error or a cancellation. Then what was not interrupted is durable.
    """

    def __init__(self, inner: Target, level: int, threads: int, *, may_be_fewer: bool = False) -> None:
        super().__init__(inner)
        self._level = level
        self._may_be_fewer = may_be_fewer
        self._most = _AHEAD * threads
        self._threads = ThreadPoolExecutor(threads, "compression")
        self._compressors: SimpleQueue[Callable[[memoryview], bytes]] = SimpleQueue()
        self._spare = [memoryview(bytearray(FRAME_SIZE)) for _ in range(self._most + 1)]
        """Buffers that no frame is made of. Memory that is used again costs no page faults."""
        self._filling = self._spare.pop()
        self._filled = 0
        self._running: deque[_Compressing] = deque()
        self._table = SeekTableEncoder()
        self._is_torn = False
        """Whether writing frames was interrupted: some of them are perhaps not there, so none may follow."""

    def go_on(self, lengths: Iterable[int], content: bytes) -> None:
        assert not self._running, "it begins with what is there"
        for length in lengths:
            self._table.add(length, FRAME_SIZE)
        self._filled = len(content)
        self._filling[: self._filled] = content

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A frame takes milliseconds, or a second at the highest levels. No thread outlives this.
        self._threads.shutdown(wait=False, cancel_futures=True)
        begun = [compressing.frame for compressing in self._running if not compressing.frame.cancelled()]
        try:
            for frame in begun:
                await ended(frame)
        finally:
            self._threads.shutdown()

    def reserve(self, size: int | None, memory: int, *, may_be_less: bool = False) -> int:  # noqa: ARG002 - any size
        assert not self._running, "nothing was appended yet"
        threads, held = plan_threads(self._level, self._most // _AHEAD, memory, may_be_fewer=self._may_be_fewer)
        self._threads = ThreadPoolExecutor(threads, "compression")
        self._most = _AHEAD * threads
        del self._spare[self._most :]
        return held

    async def append(self, buffers: Sequence[Bytes], *, before: Step | None = None) -> None:
        await run_before(before, buffers)
        for buffer in buffers:
            await self._fill(memoryview(buffer))

    async def _fill(self, content: memoryview) -> None:
        """Copy ``content``, which others use again. A frame takes as long to copy as going to a thread and back."""
        while content:
            part = content[: FRAME_SIZE - self._filled]
            self._filling[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            content = content[len(part) :]
            if self._filled == FRAME_SIZE:
                await self._begin_frame()

    async def _begin_frame(self) -> None:
        """Have what was gathered compressed, and go on with another buffer."""
        await self._write_frames(self._most - 1)
        size, filled = self._filled, self._filling
        self._running.append(_Compressing(size, self._threads.submit(self._compress, filled, size)))
        self._filling, self._filled = self._spare.pop(), 0

    def _compress(self, buffer: memoryview, size: int) -> bytes:
        try:
            compress = self._compressors.get_nowait()
        except Empty:
            compress = make_compressor(self._level)
        frame = compress(buffer[:size])
        self._compressors.put(compress)
        self._spare.append(buffer)
        return frame

    async def _write_frames(self, left: int) -> None:
        """Write frames that are ready, in order, and wait for others while more than ``left`` are not written."""
        while self._running and (len(self._running) > left or self._running[0].frame.done()):
            # A cancellation must not cancel the frame: a ``sync`` may want it.
            await asyncio.shield(asyncio.wrap_future(self._running[0].frame))
            self._is_torn = True
            await self.inner.append(self._take_ready())
            self._is_torn = False

    def _take_ready(self) -> list[bytes]:
        """Take the frames whose turn it is, as far as they are compressed, into the table."""
        ready: list[bytes] = []
        while self._running and self._running[0].frame.done():
            size, compressing = self._running.popleft()
            ready.append(compressing.result())
            self._table.add(len(ready[-1]), size)
        return ready

    async def sync(self) -> None:
        if not self._is_torn:
            await self._write_frames(0)
        await self.inner.sync()

    async def _write_rest(self) -> None:
        if self._filled:
            await self._begin_frame()
        await self._write_frames(0)
        await self.inner.append([self._table.encode()])


class ZstdFileTarget(ZstdTarget):
    """The same before a file: it takes over what stands in other files, which it reads and compresses."""

    def __init__(self, inner: JoinableTarget, level: int, threads: int, *, may_be_fewer: bool = False) -> None:
        super().__init__(inner, level, threads, may_be_fewer=may_be_fewer)
        self.pieces = inner.pieces

    async def append_file(self, source: str | os.PathLike[str], length: int, start: int = 0) -> None:
        buffer = memoryview(bytearray(FRAME_SIZE))
        async with FileSource(source) as file:
            for offset in range(start, start + length, len(buffer)):
                part = buffer[: start + length - offset]
                if await file.read_into(offset, part) < len(part):
                    raise TargetWriteFailed(self.name, f"{source} is shorter than expected")
                await self.append([part])
