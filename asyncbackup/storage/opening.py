"""Opens files. A pipe that nobody writes, or a file server that does not answer, does not block the program."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Final, TypeVar

import anyio

from asyncbackup.errors import SourceMissing, SourceUnreadable

_Opened = TypeVar("_Opened")

READ_ONCE: Final = "is a pipe, and this is read more than once: write it to a file first"
"""The fault of a pipe where a file is needed."""

GRACE_S: Final = 1.0
"""Seconds that a cancellation waits for an opening, so that no thread is left behind if the disk is only slow."""


async def open_in_thread(open_: Callable[[], _Opened], close: Callable[[_Opened], object]) -> _Opened:
    """Run ``open_`` in a thread of its own, and give its result.

    If a file server does not answer, to open its file may take forever. A cancellation then leaves the thread behind.
    The thread runs ``close`` if ``open_`` returns later, and does not keep the process from ending.
    """
    running: Future[_Opened] = Future()

    def run() -> None:
        running.set_running_or_notify_cancel()
        try:
            opened = open_()
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is waited for
            running.set_exception(error)
        else:
            running.set_result(opened)

    threading.Thread(target=run, name="opening", daemon=True).start()
    done = asyncio.wrap_future(running)
    try:
        await asyncio.wait([done])
    except BaseException:
        with anyio.move_on_after(GRACE_S, shield=True):
            await asyncio.wait([done])
        done.cancel()
        running.add_done_callback(lambda late: late.exception() or close(late.result()))
        raise
    return done.result()


def fault_of_name(path: str | os.PathLike[str]) -> str | None:
    """Say why no file can have this name; None if a file can."""
    name = os.fspath(path)
    if not name:
        return "an empty name is the name of no file"
    if "\0" in name:
        return "no file has a NUL in its name"
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return "this name cannot be written in the system's encoding"
    return None


def fault_of_target(path: str | os.PathLike[str]) -> str | None:
    """Say why no file with this name can be made; None if one can. It does not look at the disk."""
    name = os.fspath(path)
    is_folder = name.endswith("/") or Path(name).name in {"", ".."}
    return fault_of_name(name) or ("names a folder: name a file in it" if is_folder else None)


def open_to_read(path: str | os.PathLike[str], *, pipes: bool = True) -> tuple[int, os.stat_result]:
    """Open a regular file or a pipe, without waiting for a writer of the pipe. Give its descriptor and its status.

    With ``pipes`` false a pipe is refused, and not opened: its writer would believe that somebody reads.

    Raises SourceMissing and SourceUnreadable. It blocks if a disk or a server is slow, so call it in a thread.
    """
    name = os.fspath(path)
    fault = fault_of_name(name)
    if fault is not None:
        raise SourceUnreadable(name, fault)
    try:
        # Look at the kind first: to open a device may change its state.
        _judge(name, Path(name).stat(), pipes=pipes)
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise SourceMissing(name) from error
    except OSError as error:
        raise SourceUnreadable(name, error.strerror or str(error)) from error
    try:
        status = os.fstat(descriptor)
        _judge(name, status, pipes=pipes)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, status


def open_regular(path: str | os.PathLike[str]) -> int:
    """Open a regular file, and give its descriptor. Raises what ``open_to_read`` raises, also for a pipe."""
    return open_to_read(path, pipes=False)[0]


def _judge(name: str, status: os.stat_result, *, pipes: bool) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise SourceUnreadable(name, "is a folder: name a file in it")
    if stat.S_ISFIFO(status.st_mode) and not pipes:
        raise SourceUnreadable(name, READ_ONCE)
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISFIFO(status.st_mode):
        raise SourceUnreadable(name, "is neither a regular file nor a pipe, so it is not read")
