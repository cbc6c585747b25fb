"""Files that appear under their name only complete and durable.

Bytes go to a temporary file beside it. All system calls of one file run in one thread, in order: after a
cancellation, taking back waits for the write under way instead of racing it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, ParamSpec, Self, TypeVar

import aiofiles.os
import anyio

from asyncbackup.errors import TargetExists, TargetUnusable
from asyncbackup.sinks.base import Bytes, Sink, told, unwritten

_IOV_MAX: Final = 1024
"""Buffers that the kernel takes in one gather write."""

_FLUSH_SIZE: Final = 64 << 20
"""Bytes after which the file is flushed, so that the last flush, which delays a Ctrl-C, is short."""

_NAME_MAX: Final = 255
"""Bytes of a file's name, on all the usual file systems."""

_NO_HARD_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class SerialFile(ABC):
    """A file at ``path`` whose system calls all run in one thread, in order. Use it as a context."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="file-sink")
        self._descriptor = -1
        self._unflushed = 0

    async def _in_thread(
        self, function: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> _Result:
        run = aiofiles.os.wrap(function)
        result: _Result = await run(*args, executor=self._thread, **kwargs)
        return result

    async def __aenter__(self) -> Self:
        try:
            await self._in_thread(self._open)
        except BaseException:
            await self._close()
            raise
        return self

    @abstractmethod
    def _open(self) -> None:
        """Set the descriptor. Called in the thread."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        cleaned_up = self._thread.submit(self._clean_up)
        self._thread.shutdown(wait=False)
        await _finished(cleaned_up)

    def _clean_up(self) -> None:
        """Close the descriptor, if there is one. Called in the thread, last."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _append(self, buffers: Sequence[Bytes]) -> None:
        with told(str(self.path)):
            while buffers:
                written = os.writev(self._descriptor, buffers[:_IOV_MAX])
                buffers = unwritten(buffers, written)
                self._count(written)

    def _write_at(self, offset: int, data: Bytes) -> None:
        rest = memoryview(data)
        with told(str(self.path)):
            while rest:
                written = os.pwrite(self._descriptor, rest, offset)
                rest, offset = rest[written:], offset + written
                self._count(written)

    def _count(self, written: int) -> None:
        self._unflushed += written
        if self._unflushed >= _FLUSH_SIZE:
            os.fdatasync(self._descriptor)
            self._unflushed = 0


class AtomicFile(SerialFile):
    """Makes ``path``; with ``replace`` a file there stays as it is until the new one takes its place.

    ``attached`` are paths of files that belong to the one at ``path``: they are in the way like itself, and what is
    replaced goes with them.
    """

    def __init__(self, path: str | os.PathLike[str], *, replace: bool = False, attached: Sequence[Path] = ()) -> None:
        super().__init__(path)
        self._attached = tuple(attached)
        self._replace = replace
        self._final = Path(os.path.realpath(self.path)) if replace else self.path
        self._temporary = self._final.parent / _temporary_name(self._final.name)

    def _open(self) -> None:
        with told(str(self.path), TargetUnusable):
            self._judge_existing()
            self._descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def _clean_up(self) -> None:
        if self._descriptor >= 0:
            super()._clean_up()
            with suppress(FileNotFoundError):
                self._temporary.unlink()

    def _judge_existing(self) -> None:
        for path in (self._final, *self._attached):
            try:
                mode = path.lstat().st_mode
            except FileNotFoundError:
                continue
            if not self._replace:
                raise TargetExists(str(path))
            if not stat.S_ISREG(mode):
                raise TargetUnusable(str(path), "is no regular file, so it is not replaced; `-` writes to a pipe")

    async def commit(self, beginning: bytes, companion: Sink | None = None) -> None:
        if companion is None or isinstance(companion, AtomicFile):
            await _finished(self._thread.submit(self._commit, beginning, companion))
        else:
            await _finished(self._thread.submit(self._commit, beginning, None))
            await companion.commit(b"")

    def _commit(self, beginning: bytes, companion: AtomicFile | None) -> None:
        self._flush(beginning)
        if companion is not None:
            companion._flush(b"")  # noqa: SLF001 - of the same class
        with told(str(self.path)):
            for path in self._attached if self._replace else ():
                path.unlink(missing_ok=True)
        self._publish()
        if companion is not None:
            try:
                companion._publish()  # noqa: SLF001 - of the same class
            except BaseException:
                if not self._replace:
                    self._final.unlink()
                raise

    def _flush(self, beginning: bytes) -> None:
        with told(str(self.path)):
            if beginning:
                os.pwrite(self._descriptor, beginning, 0)
            os.fsync(self._descriptor)

    def _publish(self) -> None:
        """Give the file its name, and make that durable."""
        with told(str(self.path)):
            self._rename()
            flush_folder(self._final.parent)

    def _rename(self) -> None:
        if not self._replace:
            try:
                os.link(self._temporary, self._final)
            except FileExistsError as error:
                raise TargetExists(str(self.path)) from error
            except OSError as error:
                if error.errno not in _NO_HARD_LINKS:
                    raise
                if self._final.exists():
                    raise TargetExists(str(self.path)) from error
            else:
                return
        self._temporary.replace(self._final)


async def _finished(in_thread: Future[None]) -> None:
    """Wait until a thread has done what must not be left half; only then is a cancellation, of any kind, passed on."""
    done = asyncio.wrap_future(in_thread)
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not done.done():
            try:
                await asyncio.wait([done])
            except asyncio.CancelledError as error:
                cancelled = error
    failure = done.exception()
    if cancelled is not None:
        raise cancelled
    if failure is not None:
        raise failure


def flush_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary_name(name: str) -> str:
    """Make a hidden name that tells whose temporary file it is, and is as long as names may be at most."""
    ending = f".{secrets.token_hex(4)}.partial"
    start = os.fsencode(f".{name}")[: _NAME_MAX - len(ending)]
    return start.decode(errors="ignore") + ending
