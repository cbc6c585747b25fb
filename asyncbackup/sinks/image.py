"""Raw images: written anywhere, new ones published at once, standing ones rolled forward in place.

A standing image is in pieces while it is rolled. Beside it a marker, ``IMAGE.rolling``, is made durable before the
first byte of the image changes, and goes only after the last one is durable. It holds what names the backups that are
being applied, so that the same ones, and no others, can finish what was interrupted.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from asyncbackup.errors import HalfRolled, SourceMissing, SourceUnreadable, TargetUnusable
from asyncbackup.sinks.atomic import AtomicFile, SerialFile
from asyncbackup.sinks.base import Bytes, told
from asyncbackup.sinks.lock import NameLock
from asyncbackup.sinks.opening import open_regular
from asyncbackup.sinks.publication import Place, exists, flush_folder
from asyncbackup.sinks.source import FileSource

_FICLONE: Final = 0x40049409
"""The ioctl that lets a file share another one's blocks, where the file system can."""

_COPY_SIZE: Final = 32 << 20
"""Bytes to copy in one go: a cancellation waits for them."""

_BUFFER_SIZE: Final = 1 << 20
_MARKER_LIMIT: Final = 1 << 20

_NO_COPY_RANGE: Final = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ETXTBSY})
"""What file systems answer that cannot copy among themselves."""


class NewImage(AtomicFile):
    """An image of ``size`` bytes that appears under its name only complete; what is not written is a hole."""

    async def resize(self, size: int) -> None:
        """Cut off or add a hole at the end. Raises TargetFull if the file system has no files so large."""
        await self._in_thread(_resize, self._descriptor, size, str(self.path))

    async def write_at(self, offset: int, data: Bytes) -> None:
        """Write ``data``, which is free for other use when this returns. Raises TargetFull or TargetWriteFailed."""
        await self._in_thread(self._write_at, offset, data)

    async def copy_from(self, base: FileSource) -> None:
        """Take over all that ``base`` holds, holes as holes; without copying where the file system can share."""
        if await self._in_thread(_share, base.descriptor, self._descriptor):
            return
        offset = 0
        while offset < base.size:
            offset = await self._in_thread(self._copy_some, base, offset)

    def _copy_some(self, base: FileSource, offset: int) -> int:
        """Copy from ``offset`` on, and give where to go on."""
        start, end = _next_data(base, offset)
        if start < end:
            with told(str(self.path)):
                copied = _copy_in_kernel(base.descriptor, self._descriptor, start, end)
            if not copied:
                copied = self._copy_through_memory(base, start, end)
            self._count(copied)
            return start + copied
        return end

    def _copy_through_memory(self, base: FileSource, start: int, end: int) -> int:
        buffer = memoryview(bytearray(min(_BUFFER_SIZE, end - start)))
        count = base.read_now(start, buffer)
        if not count:
            raise SourceUnreadable(base.name, f"expected {base.size} bytes, got {start}: it was cut off meanwhile")
        self._write_at(start, buffer[:count])
        return count


class StandingImage(SerialFile):
    """The image at ``path``, opened for changes; nobody else of us changes it meanwhile."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self.marker = marker_path(path)
        self._lock: NameLock | None = None

    def _open(self) -> None:
        with told(str(self.path), TargetUnusable):
            self._judge(self.path.stat())
            lock = NameLock(Place(Path(os.path.realpath(self.path))).lock, str(self.path))
            lock.acquire()
            self._lock = lock
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
            self._judge(os.fstat(self._descriptor))

    def _judge(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise TargetUnusable(str(self.path), "is no regular file, so it is not rolled")

    def _clean_up(self) -> None:
        super()._clean_up()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    async def begin(self, names: str) -> bool:
        """Tell whether the backups called ``names`` were being applied before, and were interrupted.

        Raises HalfRolled if others were.
        """
        return await self._in_thread(self._begin, names)

    def _begin(self, names: str) -> bool:
        with told(str(self.path), TargetUnusable):
            try:
                descriptor = open_regular(self.marker)
            except SourceMissing:
                return False
            with os.fdopen(descriptor, "rb") as marker:
                found = marker.read(_MARKER_LIMIT)
        if found != names.encode():
            raise HalfRolled(str(self.path), str(self.marker))
        return True

    async def mark(self, names: str) -> None:
        """Say durably that the image is in pieces from now on, until ``finish``."""
        await self._in_thread(self._mark, names)

    def _mark(self, names: str) -> None:
        with told(str(self.marker)):
            # Under another name first: a marker that a crash left empty would belong to no backups at all.
            made = self.marker.with_name(self.marker.name + ".new")
            try:
                with made.open("wb") as file:
                    file.write(names.encode())
                    file.flush()
                    os.fsync(file.fileno())
                made.replace(self.marker)
            finally:
                made.unlink(missing_ok=True)
            flush_folder(self.marker.parent)

    async def resize(self, size: int) -> None:
        """Cut off the end, or add a hole there."""
        await self._in_thread(_resize, self._descriptor, size, str(self.path))

    async def write_at(self, offset: int, data: Bytes) -> None:
        """Write ``data``, which is free for other use when this returns. Raises TargetFull or TargetWriteFailed."""
        await self._in_thread(self._write_at, offset, data)

    async def finish(self) -> None:
        """Make all of it durable, and then say that the image is whole again."""
        await self._in_thread(self._finish)

    def _finish(self) -> None:
        with told(str(self.path)):
            os.fsync(self._descriptor)
            self.marker.unlink(missing_ok=True)
            flush_folder(self.marker.parent)


def marker_path(image: str | os.PathLike[str]) -> Path:
    """Name the marker of an image, the same one whatever links lead to the image."""
    return Place(Path(os.path.realpath(image))).beside(".rolling").final


def refuse_half_rolled(image: str | os.PathLike[str]) -> None:
    """Raise HalfRolled if there is a marker beside ``image``."""
    marker = marker_path(image)
    with told(str(image), TargetUnusable):
        is_half = exists(marker)
    if is_half:
        raise HalfRolled(str(image), str(marker))


def _resize(descriptor: int, size: int, name: str) -> None:
    with told(name):
        os.ftruncate(descriptor, size)


def _share(source: int, target: int) -> bool:
    with suppress(OSError):
        fcntl.ioctl(target, _FICLONE, source)
        return True
    return False


def _next_data(source: FileSource, offset: int) -> tuple[int, int]:
    """Find the first data from ``offset`` on, _COPY_SIZE bytes of it at most; empty at the end if there is none."""
    try:
        start = os.lseek(source.descriptor, offset, os.SEEK_DATA)
        end = os.lseek(source.descriptor, start, os.SEEK_HOLE)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return source.size, source.size
        if error.errno != errno.EINVAL:
            raise SourceUnreadable(source.name, error.strerror or str(error)) from error
        start, end = offset, source.size
    return min(start, source.size), min(end, source.size, start + _COPY_SIZE)


def _copy_in_kernel(source: int, target: int, start: int, end: int) -> int:
    """Copy at the same offset; give the count of bytes, 0 if the kernel cannot."""
    try:
        return os.copy_file_range(source, target, end - start, start, start)
    except OSError as error:
        if error.errno in _NO_COPY_RANGE:
            return 0
        raise
