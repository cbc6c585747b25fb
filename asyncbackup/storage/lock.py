"""Keeps two runs from writing one file: the second one is refused with an error that names the first one.

The lock is on a separate file, because the file that is written changes its name. The lock ends with the process that
holds it, even if that is killed. A lock file that is left behind locks nothing.
"""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from asyncbackup.errors import TargetBusy, TargetUnusable

_OWNER_SIZE: Final = 512
"""Bytes of what a lock file says of its holder, at most."""

_SINCE: Final = "%Y-%m-%dT%H:%M:%SZ"
"""How the time is written at which the lock was taken."""


class NameLock:
    """The right to write ``target``, by the lock file ``path``. Its calls block only if a disk or a server is slow."""

    def __init__(self, path: Path, target: str) -> None:
        self._path = path
        self._target = target
        self._descriptor = -1

    def acquire(self) -> None:
        """Take the lock. Raises TargetBusy if somebody has it, TargetUnusable, OSError."""
        while self._descriptor < 0:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(self._path, flags, 0o666)
            try:
                if self._take(descriptor):
                    self._descriptor = descriptor
            finally:
                if self._descriptor < 0:
                    os.close(descriptor)

    def _take(self, descriptor: int) -> bool:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise TargetUnusable(str(self._path), "is no regular file, so it cannot be used as a lock: remove it")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TargetBusy(self._target, *_read_owner(descriptor)) from error
        # The last holder may have removed the file before we locked it. Then others lock another file.
        try:
            if not os.path.samestat(status, self._path.lstat()):
                return False
        except FileNotFoundError:
            return False
        # The holder names itself if there is room. If the disk is full, a later write reports it.
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()} {os.uname().nodename} {datetime.now(UTC):{_SINCE}}\n".encode())
        return True

    def release(self) -> None:
        """Give the lock back, if it was taken."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with suppress(OSError):
                self._path.unlink()
            os.close(descriptor)


def is_held(path: Path) -> bool:
    """Tell whether somebody holds the lock with the file ``path``. False if the file cannot be opened."""
    return find_holder(path) is not None


def find_holder(path: Path) -> tuple[str, str | None] | None:
    """Name who holds the lock with the file ``path``, and since when; None if nobody does, or it cannot be opened."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _read_owner(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _read_owner(descriptor: int) -> tuple[str, str | None]:
    """Name the holder of a lock by its process id and its machine, and tell since when it has it, if known."""
    pid, machine, since, *_ = [*os.pread(descriptor, _OWNER_SIZE, 0).decode(errors="replace").split(), "", "", ""]
    if not pid.isascii() or not pid.isdecimal():
        return "another process", None
    return f"process {pid} on {machine or 'some machine'}", since or None
