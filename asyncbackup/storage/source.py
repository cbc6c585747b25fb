"""The sources of the bytes of backups: files, which are read at any offset, and pipes, which are read once in order."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self, runtime_checkable

import anyio
from anyio import to_thread

from asyncbackup.errors import BackupDamaged, SourceUnreadable
from asyncbackup.format.decoder import Damage
from asyncbackup.storage.onward import OnwardSource
from asyncbackup.storage.opening import open_in_thread, open_regular, open_to_read
from asyncbackup.storage.ranged import RangedSource
from asyncbackup.storage.target import BRIEF, Step

STANDARD_INPUT: Final = "standard input"
"""What messages call it."""


class BlockingSource(Protocol):
    """Gives bytes by offset to threads."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def size(self) -> int | None:
        """Bytes in all. None: it is not known before the end, and offsets must come in order and without gaps."""

    def read_now(self, offset: int, view: memoryview) -> int:
        """Fill ``view`` from ``offset`` on without an event loop, for threads that read more than once in one hop.

        Gives the count of bytes, which is less than the size of ``view`` only if the source ends. Raises
        SourceUnreadable. A ``Source`` without a ``size`` always does.
        """


class Source(BlockingSource, Protocol):
    """Gives bytes by offset while its context is entered. To enter it raises SourceMissing or SourceUnreadable."""

    @property
    def is_far(self) -> bool:
        """Whether each read takes a journey there and back. Then a few large reads at a time are best."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def peek(self, size: int) -> bytes:
        """Give the first ``size`` bytes, or all of them if there are fewer. Call it before anything else is read."""

    async def read_into(
        self, offset: int, view: memoryview, *, before: Step | None = None, after: Step | None = None
    ) -> int:
        """Call ``before``, fill ``view`` from ``offset`` on, call ``after``.

        Gives the count of bytes, which is less than the size of ``view`` only if the source ends. Both functions block,
        so they run in the thread that reads, in the same hop. If no thread reads, they run on the event loop. Raises
        SourceUnreadable.
        """


@runtime_checkable
class PlainSource(Source, Protocol):
    """A source whose bytes are those of a file, as they stand there, so that a target can take over the file."""

    @property
    def path(self) -> Path:
        """Where the file is."""


@runtime_checkable
class SourceLayer(Source, Protocol):
    """A source of what it makes of ``inner``, such as decompressed content."""

    @property
    def inner(self) -> Source:
        """What it reads."""

    @property
    def layer(self) -> str:
        """What it is called in what people read."""


class FileSource(RangedSource):
    """A file on disk."""

    is_far = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(os.fspath(path))
        self.modified_ns = 0
        """The time of the last change before it was opened, in nanoseconds since 1970."""
        self._descriptor = -1

    @property
    def path(self) -> Path:
        return Path(self.name)

    @property
    def descriptor(self) -> int:
        """The descriptor of the open file, for calls that copy from file to file in the kernel."""
        return self._descriptor

    async def __aenter__(self) -> Self:
        self.take(await open_in_thread(lambda: open_regular(self.name), os.close))
        return self

    def take(self, descriptor: int) -> None:
        """Read from ``descriptor``, which must be open. It is closed when the context is left."""
        status = os.fstat(descriptor)
        self._descriptor, self.size, self.modified_ns = descriptor, status.st_size, status.st_mtime_ns

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def was_changed(self) -> bool:
        """Tell whether somebody wrote to the file since it was opened."""
        status = os.fstat(self._descriptor)
        return (status.st_size, status.st_mtime_ns) != (self.size, self.modified_ns)

    def close(self) -> None:
        """Close the descriptor."""
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)

    async def read_into(
        self, offset: int, view: memoryview, *, before: Step | None = None, after: Step | None = None
    ) -> int:
        if len(view) > BRIEF:
            return await super().read_into(offset, view, before=before, after=after)
        if before is not None:
            before()
        count = self._read_cached(offset, view)
        if count < len(view):
            count = await to_thread.run_sync(self.read_now, offset, view)
        if after is not None:
            after()
        return count

    def _read_cached(self, offset: int, view: memoryview) -> int:
        """Read bytes that the kernel has in memory, without waiting for the disk. Give the count of bytes."""
        try:
            return os.preadv(self._descriptor, [view], offset, os.RWF_NOWAIT)
        except OSError:  # Nothing is in memory, or the file system cannot tell.
            return 0

    def find_data(self, offset: int) -> tuple[int, int]:
        """Find the first range of data from ``offset`` on: its start and end, both ``size`` if there is only a hole.

        Blocks. Raises SourceUnreadable.
        """
        try:
            start = os.lseek(self._descriptor, offset, os.SEEK_DATA)
            end = os.lseek(self._descriptor, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return self.size, self.size
            if error.errno != errno.EINVAL:
                raise SourceUnreadable(self.name, error.strerror or str(error)) from error
            return offset, self.size  # The file system knows no holes.
        return min(start, self.size), min(end, self.size)

    def read_now(self, offset: int, view: memoryview) -> int:
        done = 0
        try:
            while done < len(view):
                count = os.preadv(self._descriptor, [view[done:]], offset + done)
                if not count:
                    break
                done += count
        except OSError as error:
            raise SourceUnreadable(self.name, error.strerror or str(error)) from error
        return done


class PipeSource(OnwardSource):
    """An open descriptor that is read once: a pipe or a socket. It stays open.

    ``has_name``: it is a FIFO that was opened by its name. Until somebody opens it to write, it looks as if it had
    ended.
    """

    def __init__(self, descriptor: int, name: str = STANDARD_INPUT, *, has_name: bool = False) -> None:
        super().__init__(name)
        self._awaits_writer = has_name
        self._descriptor = descriptor

    async def __aenter__(self) -> Self:
        try:
            if fcntl.fcntl(self._descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
                raise SourceUnreadable(self.name, "is closed, or open for writing only")
            self._was_blocking = os.get_blocking(self._descriptor)
            os.set_blocking(self._descriptor, False)
        except OSError as error:
            raise SourceUnreadable(self.name, error.strerror or str(error)) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            os.set_blocking(self._descriptor, self._was_blocking)

    async def _read_some(self, view: memoryview) -> int:
        if self._awaits_writer:
            await anyio.wait_readable(self._descriptor)
            self._awaits_writer = False
        while True:
            try:
                return os.readv(self._descriptor, [view])
            except BlockingIOError:
                await anyio.wait_readable(self._descriptor)
            except OSError as error:
                raise SourceUnreadable(self.name, error.strerror or str(error)) from error


@asynccontextmanager
async def open_path(path: str | os.PathLike[str]) -> AsyncIterator[Source]:
    """Open ``path``, which may be a file or a pipe. Raises SourceMissing or SourceUnreadable."""
    name = os.fspath(path)
    descriptor, status = await open_in_thread(lambda: open_to_read(name), lambda opened: os.close(opened[0]))
    if stat.S_ISREG(status.st_mode):
        source = FileSource(name)
        source.take(descriptor)
        try:
            yield source
        finally:
            source.close()
    else:
        try:
            async with PipeSource(descriptor, name, has_name=True) as pipe:
                yield pipe
        finally:
            os.close(descriptor)


@contextmanager
def located(source: str) -> Iterator[None]:
    """Say of which file damage is."""
    try:
        yield
    except Damage as damage:
        raise BackupDamaged(source, damage.offset, damage.problem) from damage
