from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asyncbackup.errors import SourceMissing, SourceUnreadable
from asyncbackup.storage import opening
from asyncbackup.storage.opening import open_in_thread, open_regular, open_to_read
from tests.descriptors import open_descriptors


class Server:
    """Answers an opening only when it is told to, as one does that went away."""

    def __init__(self, outcome: Callable[[], Any] = lambda: "opened") -> None:
        self.asked = threading.Event()
        self.answers = threading.Event()
        self.closed: list[Any] = []
        self._outcome = outcome
        self._done = threading.Event()

    def open(self) -> Any:
        self.asked.set()
        self.answers.wait(60)
        return self._outcome()

    def close(self, opened: Any) -> None:
        self.closed.append(opened)
        self._done.set()

    async def start(self) -> asyncio.Task[Any]:
        task = asyncio.create_task(open_in_thread(self.open, self.close))
        await asyncio.to_thread(self.asked.wait, 60)
        return task

    async def wait_closed(self) -> None:
        assert await asyncio.to_thread(self._done.wait, 60)


async def test_what_is_opened_is_given() -> None:
    assert await open_in_thread(lambda: "opened", lambda _: None) == "opened"


async def test_an_error_passes() -> None:
    with pytest.raises(ZeroDivisionError):
        await open_in_thread(lambda: 1 // 0, lambda _: None)


async def test_a_cancellation_does_not_wait_for_a_server_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "GRACE_S", 0)
    server = Server()
    task = await server.start()

    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()
    assert not server.closed
    server.answers.set()
    await server.wait_closed()
    assert server.closed == ["opened"]


async def test_a_cancellation_waits_for_a_server_that_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "GRACE_S", 60)
    server = Server()
    task = await server.start()

    task.cancel()
    server.answers.set()
    await asyncio.wait([task])

    assert task.cancelled()
    assert server.closed == ["opened"]


async def test_a_thread_that_was_left_behind_may_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "GRACE_S", 0)
    failed = threading.Event()

    def fail() -> None:
        try:
            raise OSError(5, "Input/output error")
        finally:
            failed.set()

    server = Server(fail)
    task = await server.start()
    task.cancel()
    await asyncio.wait([task])

    server.answers.set()

    assert await asyncio.to_thread(failed.wait, 60)
    assert not server.closed


async def test_a_thread_that_was_left_behind_does_not_keep_the_process() -> None:
    server = Server()
    task = await server.start()

    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "opening")

    server.answers.set()
    await task


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(b"data")
    os.mkfifo(tmp_path / "fifo")
    return tmp_path


def test_a_fifo_that_nobody_writes_is_opened_at_once(folder: Path) -> None:
    descriptor, _ = open_to_read(folder / "fifo")

    os.close(descriptor)


@pytest.mark.parametrize("open_", [open_to_read, open_regular])
@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("", SourceUnreadable, "an empty name"),
        (".", SourceUnreadable, "is a folder"),
        ("/", SourceUnreadable, "is a folder"),
        ("a\0b", SourceUnreadable, "NUL"),
        ("\ud800", SourceUnreadable, "encoding"),
        ("n" * 256, SourceUnreadable, "File name too long"),
        ("file/file", SourceUnreadable, "Not a directory"),
        ("missing", SourceMissing, "no such file"),
        ("/dev/null", SourceUnreadable, "neither a regular file nor a pipe"),
        ("/dev/zero", SourceUnreadable, "neither a regular file nor a pipe"),
    ],
)
def test_what_cannot_be_read_is_told(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    open_: Callable[[str], object],
    *,
    name: str,
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.chdir(folder)

    with pytest.raises(error, match=message):
        open_(name)


def test_a_socket_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.chdir(folder)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(SourceUnreadable, match="neither a regular file nor a pipe"):
            open_to_read("socket")


def test_a_fifo_is_no_regular_file(folder: Path) -> None:
    with pytest.raises(SourceUnreadable, match="is a pipe, and this is read more than once"):
        open_regular(folder / "fifo")


def test_what_becomes_a_device_meanwhile_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_ = os.open
    monkeypatch.setattr(os, "open", lambda _, flags: open_("/dev/null", flags))
    before = len(open_descriptors())

    with pytest.raises(SourceUnreadable, match="neither"):
        open_to_read(folder / "file")

    assert len(open_descriptors()) == before


def test_no_descriptor_is_left_of_what_is_not_read(folder: Path) -> None:
    before = len(open_descriptors())

    with pytest.raises(SourceUnreadable):
        open_regular(folder / "fifo")

    assert len(open_descriptors()) == before


def test_too_many_open_files_are_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "open", fail)

    with pytest.raises(SourceUnreadable, match="file: Too many open files"):
        open_to_read(folder / "file")
