"""A small file of lines that says how far some work is, so that another run can go on with it."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

import xxhash

from asyncbackup.errors import SourceUnreadable, TargetUnusable
from asyncbackup.storage.lock import NameLock
from asyncbackup.storage.publication import Place, flush_folder
from asyncbackup.storage.serial_file import SerialFile
from asyncbackup.storage.target import wrap_os_errors

_MAX_SIZE: Final = 64 << 20
"""Bytes that are read of it: no work has so many checkpoints."""


class JournalFile(SerialFile):
    """The journal at ``path``, locked while it is open. An empty one goes when it is closed.

    Entering raises TargetBusy and TargetUnusable.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._lock: NameLock | None = None
        self._is_judged = False

    def _open(self) -> None:
        with wrap_os_errors(str(self.path), TargetUnusable):
            lock = NameLock(Place(self.path).lock, str(self.path))
            lock.acquire()
            self._lock = lock
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            self._descriptor = os.open(self.path, flags, 0o600)
            if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
                raise TargetUnusable(str(self.path), "is no regular file, so it is no journal")
            self._is_judged = True

    def _clean_up(self) -> None:
        if self.is_open and self._is_judged:
            with suppress(OSError):
                if not os.fstat(self._descriptor).st_size:
                    self.path.unlink()
        super()._clean_up()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    async def read(self) -> list[bytes]:
        """Give its lines, each with its end; the last one may be torn."""
        return (await self._in_thread(self._read)).splitlines(keepends=True)

    def _read(self) -> bytes:
        with wrap_os_errors(str(self.path), TargetUnusable):
            if os.fstat(self._descriptor).st_size > _MAX_SIZE:
                raise SourceUnreadable(str(self.path), f"expected at most {_MAX_SIZE} bytes of a journal")
            return os.pread(self._descriptor, _MAX_SIZE, 0)

    async def append(self, line: bytes) -> None:
        """Add a line, durably. Raises TargetFull, TargetWriteFailed."""
        await self._in_thread(self._append, line)

    def _append(self, line: bytes) -> None:
        with wrap_os_errors(str(self.path)):
            is_first = not os.fstat(self._descriptor).st_size
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            os.fsync(self._descriptor)
            if is_first:
                flush_folder(self.path.parent)

    async def clear(self) -> None:
        """Take out all lines."""
        await self.resize(0)


def journal_beside(file: str | os.PathLike[str], work: str) -> Path:
    """Name the journal of some ``work`` that reads ``file``: it stands hidden beside that."""
    digest = xxhash.xxh3_64_hexdigest(work.encode(errors="surrogateescape"))
    return Place(Path(os.path.realpath(file))).beside(f".restore-{digest}").partial
