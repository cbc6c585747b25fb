"""Has the kernel write a file to its disk while more of it is made, so that the flush at the end is short.

Flushing in between would do that too, but then the disk is waited for, with its cache and the file system's journal.
Nothing here makes anything durable. All functions block.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final

_SYNC_FILE_RANGE: Final = getattr(ctypes.CDLL(None, use_errno=True), "sync_file_range", None)
"""The function of Linux; None elsewhere. Python has no name for it."""

_WAIT_BEFORE: Final = 1
_WRITE: Final = 2

_UNKNOWN: Final = frozenset({errno.ENOSYS, errno.EINVAL, errno.ESPIPE, errno.EOPNOTSUPP})


def start_writing(descriptor: int) -> None:
    """Begin to write all that was not written yet, where the kernel can. Raises OSError."""
    _sync(descriptor, _WRITE)


def write_most(descriptor: int) -> None:
    """Wait until all is written that was begun before, and begin with the rest. Raises OSError.

    Where the kernel can't do that, flush the file.
    """
    if not _sync(descriptor, _WAIT_BEFORE | _WRITE):
        os.fdatasync(descriptor)


def _sync(descriptor: int, flags: int) -> bool:
    """Do so for the whole file. Tell whether the kernel can."""
    if _SYNC_FILE_RANGE is None:
        return False
    if _SYNC_FILE_RANGE(descriptor, ctypes.c_int64(0), ctypes.c_int64(0), ctypes.c_uint(flags)) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNKNOWN:
        return False
    raise OSError(code, os.strerror(code))
