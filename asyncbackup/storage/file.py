"""Files that appear under their name only complete and durable.

Bytes go to a temporary file beside it, whose name follows from the file's own. ``publication`` gives it its name.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from asyncbackup.errors import HalfReplaced, TargetBusy, TargetExists, TargetUnfinished, TargetUnusable
from asyncbackup.storage.lock import NameLock, find_holder
from asyncbackup.storage.opening import fault_of_target, open_in_thread
from asyncbackup.storage.publication import JOURNAL, MANIFEST, Place, Publication, exists
from asyncbackup.storage.serial_file import SerialFile, finished
from asyncbackup.storage.target import IOV_MAX, Bytes, Step, unwritten, wrap_os_errors

_log = logging.getLogger(__package__)

OnLeftover = Callable[[str], None]
"""Called in the event loop with what an interrupted run left and what became of it, in words."""


_COPIED_SIZE: Final = 64 << 20
"""Bytes to copy in one call: a cancellation waits for it."""
_UNSHARED: Final = frozenset({errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS})
"""Errors of copy_file_range where a file system, or a kernel, cannot do it."""


class FileTarget(SerialFile):
    """Writes a new file at ``path``. With ``replace``, a file there stays as it is until the new one takes its place.

    The new file gets the owner and permissions of the file that it replaces. ``attached`` has the suffixes of files
    that belong to this one: they are refused, or replaced, like the file itself. Entering finishes or removes what an
    interrupted run left of the same file, and tells ``on_leftover``.

    Another run can go on with what ``keep`` kept. If there is such, entering raises TargetUnfinished. With ``resume``
    it opens what is there, and ``is_begun`` is true. Without ``resume`` and with ``replace`` it removes what is there.
    """

    can_patch = True

    keeper_suffix = MANIFEST
    """The ending of the file beside this one that says whether another run can go on with this one."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        replace: bool = False,
        resume: bool = False,
        attached: Sequence[str] = (),
        on_leftover: OnLeftover | None = None,
    ) -> None:
        super().__init__(path)
        self._given_name = os.fspath(path)
        self.replaces = replace
        self._resumes = resume
        self.is_begun = False
        """Whether an earlier run wrote some of it, and this run opened that."""
        self.is_kept = False
        """Whether what was written stays if it is not completed, so that another run can go on with it."""
        self._suffixes = tuple(attached)
        self._on_leftover = on_leftover
        self._leftover: str | None = None
        self.place = Place(self.path)
        """Where the file goes. Entering follows links first."""
        self._follows_links = True
        self._replaced: os.stat_result | None = None
        self._lock: NameLock | None = None
        self._is_half = False
        self._is_published = False
        self._attached: FileTarget | None = None
        self._keeper: FileTarget | None = None
        """The target beside this one that has the ``keeper_suffix``."""

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def _publication(self) -> Publication:
        return Publication(self.place, tuple(map(self.place.beside, self._suffixes)))

    async def __aenter__(self) -> Self:
        try:
            return await super().__aenter__()
        finally:
            if self._leftover is not None and self._on_leftover is not None:
                self._on_leftover(self._leftover)

    def _open(self) -> None:
        with wrap_os_errors(str(self.path), TargetUnusable):
            publication = self._find_place()
            if not publication.find_leftovers():
                self._judge_existing()
            lock = NameLock(self.place.lock, str(self.path))
            lock.acquire()
            self._lock = lock
            shutil.rmtree(self.pieces, ignore_errors=True)
            leftovers = publication.find_leftovers()
            if leftovers:
                self._recover(publication, leftovers)
            # Look again: no other run can leave one while we hold the lock.
            if publication.is_unfinished():
                self._take_unfinished(publication)
            self._judge_existing()
            self._open_written()

    async def check(self) -> None:
        """Raise what entering would raise. This creates and changes nothing, and what exists may change after it."""
        await open_in_thread(self._check, lambda _: None)

    def _check(self) -> None:
        with wrap_os_errors(str(self.path), TargetUnusable):
            publication = self._find_place()
            if not publication.find_leftovers():
                self._judge_existing()
            _check_folder(self.place.final.parent)
            if holder := find_holder(self.place.lock):
                raise TargetBusy(str(self.path), *holder)
            if publication.is_unfinished():
                self._can_go_on(publication)
            self._judge_existing()

    def _find_place(self) -> Publication:
        """Follow links, and say where the file and those that belong to it go."""
        fault = fault_of_target(self._given_name)
        if fault is not None:
            raise TargetUnusable(self._given_name, fault)
        if self._follows_links:
            self.place = Place(Path(os.path.realpath(self.path)))
            self._judge_links()
        return self._publication

    def _take_unfinished(self, publication: Publication) -> None:
        """Go on with what an earlier run left, or remove it, or raise TargetUnfinished."""
        if self._can_go_on(publication):
            self.is_begun = self.is_kept = True
        else:
            publication.discard()
            left = self.place.partial.name
            self._leftover = f"{self.path}: this is begun anew; the unfinished one in {left} is removed"

    def _can_go_on(self, publication: Publication) -> bool:
        """Tell whether to go on with what an earlier run left. Raise TargetUnfinished if it is in the way."""
        if self._resumes and publication.is_unfinished(self.keeper_suffix):
            return True
        if not self.replaces:
            partial = self.place.partial
            raise TargetUnfinished(str(self.path), str(partial), partial.lstat().st_size)
        return False

    def _open_written(self) -> None:
        if self.is_begun:
            self._descriptor = os.open(self.written, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
                raise TargetUnusable(str(self.written), "is no regular file: remove it")
            os.lseek(self._descriptor, 0, os.SEEK_END)
        else:
            # Who could not read the old file must not read the new one either.
            mode = 0o666 if self._replaced is None else 0o600
            self._descriptor = os.open(self.written, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        if self._replaced is not None:
            _take_over(self._descriptor, self._replaced)

    @property
    def written(self) -> Path:
        """What is being written."""
        return self.place.kept if self.is_kept else self.place.partial

    @property
    def written_size(self) -> int:
        """Bytes of that, until it is completed or abandoned."""
        return os.fstat(self._descriptor).st_size if self.is_open else 0

    def _recover(self, publication: Publication, leftovers: list[Path]) -> None:
        due = publication.find_due()
        try:
            publication.recover()
        except OSError as error:
            if due is None:
                raise
            raise HalfReplaced(str(self.path), str(due.source), str(due.target)) from error
        if due is not None:
            self._leftover = f"{self.path}: a run was interrupted while it replaced this; {due.target} was put right"
        elif gone := [path.name for path in leftovers if not exists(path)]:
            names = ", ".join(gone)
            self._leftover = f"{self.path}: a run was interrupted before; what it left is removed: {names}"

    def _clean_up(self) -> None:
        was_open = self._descriptor >= 0
        super()._clean_up()
        if was_open and not self._is_half and not self.is_kept:
            # If it cannot be removed any more, the next run finds it.
            with suppress(OSError):
                self.written.unlink()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _judge_existing(self) -> None:
        """Raise if what exists is in the way. Otherwise take note of the file to replace, if there is one."""
        if not self.replaces and self.path.is_symlink():
            raise TargetExists(str(self.path))
        status = self._judge(self.place.final, self.path)
        if status is not None and stat.S_ISREG(status.st_mode):
            self._replaced = status
        for place in self._publication.attached:
            if exists(place.final):
                self._judge(place.final, place.final)

    def _judge_links(self) -> None:
        """Raise if a file beside a link to this file would be taken for one that belongs to this file."""
        for suffix in self._suffixes:
            beside, place = Place(self.path).beside(suffix).final, self.place.beside(suffix)
            if exists(beside) and os.path.realpath(beside) != os.path.realpath(place.final):
                raise TargetUnusable(
                    str(beside), f"stands beside a link to {self.place.final}, and would be of another file: remove it"
                )

    def _judge(self, path: Path, name: Path) -> os.stat_result | None:
        try:
            status = path.lstat()
        except FileNotFoundError:
            return None
        if stat.S_ISDIR(status.st_mode):
            raise TargetUnusable(str(name), "is a folder: name a file in it")
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISLNK(status.st_mode):
            raise TargetUnusable(str(name), "is no regular file, so it is not replaced")
        if not self.replaces:
            raise TargetExists(str(name))
        return status

    @classmethod
    def beside(cls, main: FileTarget, suffix: str) -> FileTarget:
        """Make the target of what belongs to ``main``, which was entered.

        Unless it is abandoned, it becomes visible together with ``main``, when that is completed. If it replaces
        nothing, it gets the owner and permissions of the file that ``main`` replaces. A journal never becomes visible.
        """
        place = main.place.beside(suffix)
        target = FileTarget(place.final, replace=main.replaces)
        target.place = place
        target._follows_links = False
        target.is_begun = target.is_kept = main.is_begun and suffix == main.keeper_suffix
        target._replaced = main._replaced
        if suffix == main.keeper_suffix:
            main._keeper = target
        if suffix != JOURNAL:
            assert main._attached is None
            main._attached = target
        return target

    async def append(self, buffers: Sequence[Bytes], *, before: Step | None = None) -> None:
        await self._in_thread(self._append, buffers, before)

    def _append(self, buffers: Sequence[Bytes], before: Step | None) -> None:
        if before is not None:
            before()
        with wrap_os_errors(str(self.path)):
            while buffers:
                written = os.writev(self._descriptor, buffers[:IOV_MAX])
                buffers = unwritten(buffers, written)
                self._count(written)

    @property
    def pieces(self) -> Path:
        """The name of a folder for files that are to be appended: beside the file, also where a link leads there."""
        return self.place.pieces

    async def append_file(self, source: str | os.PathLike[str], length: int, start: int = 0) -> None:
        """Append ``length`` bytes of another file, from ``start`` on; the file system shares them where it can.

        A cancellation waits until all of them are copied. Raises TargetFull, TargetWriteFailed.
        """
        await self._in_thread(self._append_file, source, length, start)

    def _append_file(self, source: str | os.PathLike[str], length: int, start: int) -> None:
        with wrap_os_errors(str(self.path)), Path(source).open("rb", buffering=0) as file:
            file.seek(start)
            while length:
                copied = _copy(file.fileno(), self._descriptor, min(length, _COPIED_SIZE))
                if not copied:
                    raise OSError(errno.EIO, f"{source} is shorter than expected")
                length -= copied
                self._count(copied)

    async def sync(self) -> None:
        await self._in_thread(self._flush)

    async def keep(self) -> None:
        """Let what was written, here and beside it, stay even if it is not completed. The caller flushed all of it.

        After a cancellation all of it stays, or nothing. Raises TargetWriteFailed.
        """
        if not self.is_kept:
            await finished(self._thread.submit(self._keep))

    async def drop(self) -> None:
        """Remove what was written, here and beside it, and let nothing of it stay. Raises TargetWriteFailed."""
        if self.is_kept:
            await finished(self._thread.submit(self._drop))

    def _drop(self) -> None:
        with wrap_os_errors(str(self.path)):
            Publication(self.place).discard()
        self.is_kept = False

    def _keep(self) -> None:
        keeper = self._keeper
        assert keeper is not None
        with wrap_os_errors(str(self.path)):
            Publication(self.place).keep(keeper.place)
        self.is_kept = keeper.is_kept = True

    async def complete(self, beginning: bytes = b"") -> None:
        if not self._is_published:
            await finished(self._thread.submit(self._complete, beginning))
            beside = self._attached is not None and self._attached._is_published  # noqa: SLF001 - of the same class
            _log.info("%s: is complete%s", self.path, ", with what belongs to it" if beside else "")

    async def abandon(self) -> None:
        await self._close()

    def _complete(self, beginning: bytes) -> None:
        self._flush(beginning)
        places = dict.fromkeys(self._publication.attached)
        attached = self._attached if self._attached is not None and self._attached.is_open else None
        if attached is not None:
            attached._flush()  # noqa: SLF001 - of the same class
            places[attached.place] = None
        try:
            with wrap_os_errors(str(self.path)):
                Publication(self.place, tuple(places)).publish(
                    attached.place if attached else None,
                    replace=self.replaces,
                    is_kept=attached is not None and attached.is_kept,
                )
        except HalfReplaced:
            # The next run knows by what is left what to do.
            self._is_half = True
            raise
        self._is_published, self.is_kept = True, False
        for other in (self._attached, self._keeper):
            if other is not None:
                other.is_kept = False
        if attached is not None:
            attached._is_published = True  # noqa: SLF001 - of the same class

    def _flush(self, beginning: bytes = b"") -> None:
        with wrap_os_errors(str(self.path)):
            if beginning:
                self._pwrite(beginning, 0)
            os.fsync(self._descriptor)
            self._unwritten = 0


def _copy(source: int, target: int, length: int) -> int:
    """Copy bytes from where one descriptor stands to where the other does. Give how many."""
    try:
        return os.copy_file_range(source, target, length)
    except OSError as error:
        if error.errno not in _UNSHARED:
            raise
        return os.sendfile(target, source, None, length)


def _check_folder(folder: Path) -> None:
    """Raise the OSError that making a file in ``folder`` would raise."""
    code = 0
    if not stat.S_ISDIR(folder.stat().st_mode):
        code = errno.ENOTDIR
    elif not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        code = errno.EROFS if os.statvfs(folder).f_flag & os.ST_RDONLY else errno.EACCES
    if code:
        raise OSError(code, os.strerror(code))


def _take_over(descriptor: int, replaced: os.stat_result) -> None:
    """Give a new file the owner and permissions of the one that it replaces, as far as we may, and never more."""
    mode = stat.S_IMODE(replaced.st_mode) & 0o777
    try:
        os.fchown(descriptor, replaced.st_uid, replaced.st_gid)
    except OSError:
        try:
            os.fchown(descriptor, -1, replaced.st_gid)
        except OSError:
            # Our group is not theirs: it gets what everybody gets.
            others = mode & 0o007
            mode &= 0o707 | others << 3
    os.fchmod(descriptor, mode)
