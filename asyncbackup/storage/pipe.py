"""A stream that is open already, such as standard output: a pipe, a socket, a device, or a redirected file."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import aiofiles.os
import anyio

from asyncbackup.errors import TargetUnusable
from asyncbackup.storage.opening import fault_of_name, open_in_thread
from asyncbackup.storage.target import IOV_MAX, Bytes, Step, run_before, unwritten, wrap_os_errors

_PIPE_SIZE: Final = 1 << 20
"""Bytes of buffer to ask for in a pipe. With the usual 64 KiB, reader and writer would wake up more often."""

_AWAIT_READER_S: Final = 0.05
"""Seconds between two looks whether somebody reads a FIFO: the kernel wakes only a thread that waits in ``open``."""


class PipeTarget:
    """Writes to ``descriptor``, which stays open. Bytes in a pipe cannot be taken back.

    So an error or a cancellation that ends the context early gets a note (``__notes__``). The note says whether the
    reader got something incomplete.
    """

    can_patch = False

    def __init__(self, descriptor: int, name: str = "standard output") -> None:
        self.name = name
        self._descriptor = descriptor
        self._is_file = False
        self._was_blocking: bool | None = None
        self._is_begun = False
        self._is_complete = False

    async def __aenter__(self) -> Self:
        with wrap_os_errors(self.name, TargetUnusable):
            if fcntl.fcntl(self._descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
                raise TargetUnusable(self.name, "is closed, or open for reading only")
            self._is_file = stat.S_ISREG(os.fstat(self._descriptor).st_mode)
        # If nobody reads, a blocking write in a thread cannot be cancelled. Files never block for long.
        if not self._is_file:
            self._was_blocking = os.get_blocking(self._descriptor)
            os.set_blocking(self._descriptor, False)
            with suppress(OSError):
                fcntl.fcntl(self._descriptor, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.abandon()
        if error is not None and not self._is_complete:
            incomplete = f"what went to {self.name} is incomplete: do not keep it"
            error.add_note(incomplete if self._is_begun else f"nothing went to {self.name}")

    async def append(self, buffers: Sequence[Bytes], *, before: Step | None = None) -> None:
        with wrap_os_errors(self.name):
            if self._is_file:
                # A cancellation does not stop this write.
                self._is_begun = True
                await aiofiles.os.wrap(self._append_now)(buffers, before)
                return
            await run_before(before, buffers)
            while buffers:
                buffers = unwritten(buffers, await self._write_some(buffers[:IOV_MAX]))

    def _append_now(self, buffers: Sequence[Bytes], before: Step | None) -> None:
        if before is not None:
            before()
        while buffers:
            buffers = unwritten(buffers, os.writev(self._descriptor, buffers[:IOV_MAX]))

    async def _write_some(self, buffers: Sequence[Bytes]) -> int:
        try:
            written = os.writev(self._descriptor, buffers)
        except BlockingIOError:
            await anyio.wait_writable(self._descriptor)
            return 0
        self._is_begun = self._is_begun or written > 0
        return written

    async def sync(self) -> None:
        if self._is_file:
            with wrap_os_errors(self.name):
                await aiofiles.os.wrap(os.fsync)(self._descriptor)

    async def complete(self, beginning: bytes = b"") -> None:
        assert not beginning
        await self.sync()
        self._is_complete = True

    async def abandon(self) -> None:
        """Set the descriptor to blocking again if it was so before. Bytes that were written cannot be taken back."""
        was_blocking, self._was_blocking = self._was_blocking, None
        if was_blocking is not None:
            os.set_blocking(self._descriptor, was_blocking)


class ScratchTarget(PipeTarget):
    """A file that is read again soon, and that need not survive a crash: nothing is flushed to the disk."""

    async def sync(self) -> None:
        """Do nothing."""


async def is_fifo(path: str | os.PathLike[str]) -> bool:
    """Tell whether there is a FIFO at ``path``."""
    return fault_of_name(path) is None and await open_in_thread(lambda: _is_fifo(path), lambda _: None)


def _is_fifo(path: str | os.PathLike[str]) -> bool:
    try:
        return Path(path).is_fifo()
    except OSError:  # To open the file later will raise the error.
        return False


@asynccontextmanager
async def open_fifo(path: str | os.PathLike[str]) -> AsyncIterator[PipeTarget]:
    """Open the FIFO at ``path`` for writing, as soon as somebody reads it. Raises TargetUnusable."""
    name = os.fspath(path)
    descriptor = _open_fifo(name)
    while descriptor is None:
        await anyio.sleep(_AWAIT_READER_S)
        descriptor = _open_fifo(name)
    try:
        async with PipeTarget(descriptor, name) as target:
            yield target
    finally:
        os.close(descriptor)


def _open_fifo(name: str) -> int | None:
    """Give a descriptor, or None while nobody reads it."""
    with wrap_os_errors(name, TargetUnusable):
        try:
            descriptor = os.open(name, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return None
            raise
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise TargetUnusable(name, "is no pipe any more")
    return descriptor
