"""Raw images. A new image gets its name when it is complete. A standing image is rolled forward in place.

Beside an image stands ``IMAGE.state``, which says what the image equals and when it was written. It never speaks of
other content: an old state is moved away before a new image takes its name, and a new state appears only after the
image is durable.

A standing image is neither old nor new while it is rolled. A marker beside it, ``IMAGE.rolling``, is made durable
before the first byte of the image changes. It is removed only after the last byte and the new state are durable. It
tells which backups are being applied to which image: only the same backups can finish what was interrupted.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from asyncbackup.errors import HalfReplaced, HalfRolled, SourceMissing, SourceUnreadable, StateDamaged, TargetUnusable
from asyncbackup.format.identity import Identity
from asyncbackup.format.image import MAX_MARKER, MAX_STATE, ImageState, Marker, OldMarker, decode_marker
from asyncbackup.storage.file import FileTarget, OnLeftover
from asyncbackup.storage.lock import NameLock
from asyncbackup.storage.partial import Partial
from asyncbackup.storage.publication import (
    JOURNAL,
    MANIFEST,
    NAME_MAX,
    Place,
    Publication,
    exists,
    flush_folder,
)
from asyncbackup.storage.serial_file import SerialFile
from asyncbackup.storage.source import FileSource
from asyncbackup.storage.target import wrap_os_errors

STATE: Final = ".state"
MARKER: Final = ".rolling"
"""The endings that make the names of an image's state and marker from its own name."""

_FICLONE: Final = 0x40049409
"""The ioctl that lets a file share another one's blocks, where the file system can."""

_COPY_SIZE: Final = 32 << 20
"""Bytes to copy in one go. A cancellation waits for them."""

_BUFFER_SIZE: Final = 1 << 20

_NO_COPY_RANGE: Final = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ETXTBSY})
"""Answers of file systems that cannot copy from one to the other."""


class NewImage(FileTarget):
    """An image that gets its name, and its state, only when it is complete. Ranges that are not written are holes.

    With ``replace``, the state and the marker of the old image are removed with it, and the manifest if the old file
    was a backup. With ``resume``, it goes on with an unfinished image that was kept.
    """

    keeper_suffix = JOURNAL

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        replace: bool = False,
        resume: bool = False,
        on_leftover: OnLeftover | None = None,
    ) -> None:
        attached = [MANIFEST, STATE, MARKER]
        super().__init__(path, replace=replace, resume=resume, attached=attached, on_leftover=on_leftover)

    @asynccontextmanager
    async def open_journal(self) -> AsyncIterator[tuple[FileTarget, Partial]]:
        """Open the journal, which says how much of the image is written, and what keeps both after an interruption."""
        async with FileTarget.beside(self, JOURNAL) as journal:
            yield journal, Partial(self, journal)

    def _judge_existing(self) -> None:
        if len(os.fsencode(self.place.beside(MARKER).final.name)) > NAME_MAX:
            raise TargetUnusable(str(self.path), f"has a name that leaves no room for another one with {MARKER}")
        super()._judge_existing()

    def _judge(self, path: Path, name: Path) -> os.stat_result | None:
        if path == self.place.beside(STATE).final and not exists(self.place.final):
            # The image that this state describes does not exist any more.
            return None
        return super()._judge(path, name)

    async def finish(self, identity: Identity | None, *, assumed: bool = False) -> None:
        """Give the image its name, and a state that says that it equals ``identity``. If it is None, there is no state.

        After an error everything is as after an error of ``complete``. A crash in between leaves an image without a
        state.
        """
        await self._in_thread(self._remove_orphan)
        if identity is None:
            await self.complete()
            return
        async with FileTarget.beside(self, STATE) as state:
            line = await self._in_thread(_make_state, self._descriptor, identity, str(self.path), assumed=assumed)
            await state.append([line])
            await self.complete()

    def _remove_orphan(self) -> None:
        with wrap_os_errors(str(self.path)):
            if not exists(self.place.final):
                self.place.beside(STATE).final.unlink(missing_ok=True)

    async def copy_from(self, base: FileSource) -> None:
        """Copy all of ``base``; its holes stay holes. If the file system can share blocks, nothing is copied."""
        if await self._in_thread(_share, base.descriptor, self._descriptor):
            return
        offset = 0
        while offset < base.size:
            offset = await self._in_thread(self._copy_some, base, offset)

    def _copy_some(self, base: FileSource, offset: int) -> int:
        """Copy some bytes from ``offset`` on. Give the offset of the rest."""
        start, end = base.find_data(offset)
        end = min(end, start + _COPY_SIZE)
        if start < end:
            with wrap_os_errors(str(self.path)):
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
    """The image at ``path``, opened for changes. Its lock keeps other runs of this program from changing it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self.marker = marker_path(path)
        self._lock: NameLock | None = None

    def _open(self) -> None:
        with wrap_os_errors(str(self.path), TargetUnusable):
            self._judge(self.path.stat())
            lock = NameLock(Place(Path(os.path.realpath(self.path))).lock, str(self.path))
            lock.acquire()
            self._lock = lock
            _refuse_half_replaced(self.path)
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

    @property
    def inode(self) -> int:
        """The number that tells this image from others in its file system."""
        return os.fstat(self._descriptor).st_ino

    @property
    def is_marked(self) -> bool:
        """Whether a marker says that the image is half changed."""
        return exists(self.marker)

    async def find_marker(self) -> Marker | OldMarker | None:
        """Read the marker, which says that backups were being applied. Raises HalfRolled if it is damaged."""
        line = await _read_small(self.marker, MAX_MARKER)
        try:
            return None if line is None else decode_marker(line)
        except ValueError as error:
            raise HalfRolled(str(self.path), str(self.marker)) from error

    async def mark(self, marker: Marker) -> None:
        """Write a durable marker: the image is half changed until ``finish``."""
        await self._in_thread(_write_durably, self.marker, marker.encode())

    async def finish(self, identity: Identity | None, *, assumed: bool = False) -> None:
        """Make the image durable, write its new state if ``identity`` is known, and then remove the marker."""
        await self._in_thread(self._finish, identity, assumed=assumed)

    def _finish(self, identity: Identity | None, *, assumed: bool) -> None:
        state = state_path(self.path)
        if identity is None:
            with wrap_os_errors(str(self.path)):
                os.fsync(self._descriptor)
                state.unlink(missing_ok=True)
        else:
            line = _make_state(self._descriptor, identity, str(self.path), assumed=assumed)
            with wrap_os_errors(str(self.path)):
                os.fsync(self._descriptor)
            _write_durably(state, line)
        with wrap_os_errors(str(self.path)):
            self.marker.unlink(missing_ok=True)
            flush_folder(self.marker.parent)


def marker_path(image: str | os.PathLike[str]) -> Path:
    """Name the marker of an image. The name is the same for all links to the image."""
    return _place(image).beside(MARKER).final


def state_path(image: str | os.PathLike[str]) -> Path:
    """Name the state of an image. The name is the same for all links to the image."""
    return _place(image).beside(STATE).final


def _place(image: str | os.PathLike[str]) -> Place:
    return Place(Path(os.path.realpath(image)))


def is_unfinished(image: str | os.PathLike[str]) -> bool:
    """Tell whether an interrupted run left an unfinished image that can be resumed. False if we may not look."""
    try:
        return Publication(_place(image)).is_unfinished(JOURNAL)
    except OSError:
        return False


def refuse_half_rolled(image: str | os.PathLike[str]) -> None:
    """Raise HalfRolled if ``image`` has a marker, and HalfReplaced if replacing it was interrupted."""
    marker = marker_path(image)
    with wrap_os_errors(str(image), TargetUnusable):
        if exists(marker):
            raise HalfRolled(str(image), str(marker))
        _refuse_half_replaced(image)


def _refuse_half_replaced(image: str | os.PathLike[str]) -> None:
    place = _place(image)
    due = Publication(place, (place.beside(STATE), place.beside(MARKER))).find_due()
    if due is not None:
        raise HalfReplaced(str(image), str(due.source), str(due.target))


async def read_state(image: str | os.PathLike[str]) -> ImageState | None:
    """Read the state of an image; None if it has none. Raises StateDamaged, SourceUnreadable."""
    path = state_path(image)
    line = await _read_small(path, MAX_STATE)
    try:
        return None if line is None else ImageState.decode(line)
    except ValueError as error:
        raise StateDamaged(str(path), str(error)) from error


async def _read_small(path: Path, limit: int) -> bytes | None:
    """Read a file of at most ``limit`` bytes; None if it does not exist. Of a longer file it reads one byte more."""
    try:
        async with FileSource(path) as source:
            return await source.peek(limit + 1)
    except SourceMissing:
        return None


def _make_state(descriptor: int, identity: Identity, name: str, *, assumed: bool) -> bytes:
    """Give the image a time of modification that it never had before, and make the state that holds this time."""
    with wrap_os_errors(name):
        # The kernel's clock for this moves only every few milliseconds. Without this, writes before and after could
        # have the same time.
        os.utime(descriptor, ns=(os.fstat(descriptor).st_atime_ns, time.time_ns()))
        status = os.fstat(descriptor)
    return ImageState(identity, status.st_size, status.st_mtime_ns, assumed=assumed).encode()


def _write_durably(path: Path, content: bytes) -> None:
    with wrap_os_errors(str(path)):
        # Write it under another name first: a crash could leave an empty file.
        made = Place(path).partial
        try:
            with made.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            made.replace(path)
        finally:
            made.unlink(missing_ok=True)
        flush_folder(path.parent)


def _share(source: int, target: int) -> bool:
    with suppress(OSError):
        fcntl.ioctl(target, _FICLONE, source)
        return True
    return False


def _copy_in_kernel(source: int, target: int, start: int, end: int) -> int:
    """Copy to the same offset. Give the count of bytes; 0 if the kernel cannot copy between these files."""
    try:
        return os.copy_file_range(source, target, end - start, start, start)
    except OSError as error:
        if error.errno in _NO_COPY_RANGE:
            return 0
        raise
