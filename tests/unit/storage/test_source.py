from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncbackup.errors import SourceMissing, SourceUnreadable
from asyncbackup.storage.source import FileSource, PipeSource, open_path
from asyncbackup.storage.target import BRIEF
from tests.descriptors import open_descriptors
from tests.waiting import turn


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(b"0123456789")
    return tmp_path / "file"


async def test_a_file_is_read_anywhere(file: Path) -> None:
    buffer = bytearray(4)
    async with FileSource(file) as source:
        assert source.size == 10
        assert await source.peek(3) == b"012"
        assert await source.read_into(5, memoryview(buffer)) == 4
        assert buffer == b"5678"


async def test_a_file_gives_less_only_at_its_end(file: Path) -> None:
    buffer = bytearray(4)
    async with FileSource(file) as source:
        assert await source.read_into(8, memoryview(buffer)) == 2
        assert await source.peek(100) == b"0123456789"


async def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="missing"):
        async with FileSource(tmp_path / "missing"):
            pytest.fail("entered")


async def test_a_file_below_a_file_is_told(file: Path) -> None:
    with pytest.raises(SourceUnreadable, match="Not a directory"):
        async with FileSource(file / "file"):
            pytest.fail("entered")


async def test_a_folder_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(SourceUnreadable, match="is a folder: name a file in it"):
        async with FileSource(tmp_path):
            pytest.fail("entered")


async def test_a_disk_that_fails_is_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    async with FileSource(file) as source:
        monkeypatch.setattr(os, "preadv", fail)
        with pytest.raises(SourceUnreadable, match="Input/output error"):
            await source.read_into(0, memoryview(bytearray(1)))


async def test_what_the_kernel_has_at_hand_is_read_without_a_thread(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preadv = os.preadv

    def at_hand(descriptor: int, buffers: list[memoryview], offset: int, flags: int) -> int:
        assert flags == os.RWF_NOWAIT
        return preadv(descriptor, buffers, offset)

    buffer = bytearray(4)
    async with FileSource(file) as source:
        monkeypatch.setattr(os, "preadv", at_hand)
        assert await source.read_into(5, memoryview(buffer)) == 4

    assert buffer == b"5678"


async def test_what_the_kernel_has_to_fetch_is_read_in_a_thread(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preadv = os.preadv
    threads = []

    def far_away(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        if flags:
            raise BlockingIOError
        threads.append(threading.current_thread())
        return preadv(descriptor, buffers, offset)

    buffer = bytearray(4)
    async with FileSource(file) as source:
        monkeypatch.setattr(os, "preadv", far_away)
        assert await source.read_into(5, memoryview(buffer)) == 4

    assert buffer == b"5678"
    assert threading.main_thread() not in threads


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    if writer >= 0:
        os.close(writer)


def piped(data: bytes) -> int:
    """Make a pipe that holds ``data`` and ends; give the end to read from."""
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    return reader


async def test_a_pipe_is_read_in_order() -> None:
    reader = piped(b"0123456789")
    buffer = bytearray(4)
    async with PipeSource(reader) as source:
        assert source.size is None
        assert await source.peek(6) == b"012345"
        assert [await source.read_into(at, memoryview(buffer)) for at in (0, 4)] == [4, 4]
        assert buffer == b"4567"
        assert await source.read_into(8, memoryview(buffer)) == 2
    os.close(reader)


async def test_a_pipe_is_waited_for(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    buffer = bytearray(4)
    async with PipeSource(reader) as source:
        task = asyncio.create_task(source.read_into(0, memoryview(buffer)))
        await turn()
        os.write(writer, b"01")
        await turn()
        assert not task.done()
        os.write(writer, b"23")
        assert await task == 4
    assert buffer == b"0123"


async def test_a_reader_of_later_bytes_waits_for_the_earlier_ones(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    first, second = bytearray(2), bytearray(2)
    async with PipeSource(reader) as source:
        later = asyncio.create_task(source.read_into(2, memoryview(second)))
        os.write(writer, b"0123")
        await turn()
        assert not later.done()
        await source.read_into(0, memoryview(first))
        await later
    assert first + second == b"0123"


async def test_waiting_for_a_pipe_can_be_cancelled(pipe: tuple[int, int]) -> None:
    reader, _ = pipe
    async with PipeSource(reader) as source:
        task = asyncio.create_task(source.read_into(0, memoryview(bytearray(1))))
        await turn()
        task.cancel()
        await asyncio.wait([task])

    assert task.cancelled()
    assert os.get_blocking(reader)


async def test_a_descriptor_that_fails_is_told(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        async with PipeSource(folder) as source:
            with pytest.raises(SourceUnreadable, match="standard input: Is a directory"):
                await source.read_into(0, memoryview(bytearray(1)))
    finally:
        os.close(folder)


async def test_a_descriptor_that_cannot_be_read_is_told_at_once(pipe: tuple[int, int]) -> None:
    _, writer = pipe
    with pytest.raises(SourceUnreadable, match="standard input: is closed, or open for writing only"):
        await PipeSource(writer).__aenter__()


async def test_a_closed_descriptor_is_told_at_once(pipe: tuple[int, int]) -> None:
    closed = os.dup(pipe[0])
    os.close(closed)

    with pytest.raises(SourceUnreadable, match="standard input: Bad file descriptor"):
        await PipeSource(closed).__aenter__()


async def test_several_readers_wait_for_one_pipe_each_for_its_turn(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    parts = [bytearray(2) for _ in range(4)]
    async with PipeSource(reader) as source:
        waiting = [
            asyncio.create_task(source.read_into(2 * place, memoryview(part)))
            for place, part in reversed(list(enumerate(parts)))
        ]
        await turn()
        os.write(writer, b"01234567")
        assert [await task for task in waiting] == [2, 2, 2, 2]

    assert b"".join(parts) == b"01234567"


async def test_no_descriptor_stays_open_of_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    async with open_path(tmp_path / "fifo"):
        pass
    before = len(open_descriptors())

    for path in (tmp_path, tmp_path / "fifo"):
        with pytest.raises(SourceUnreadable):
            async with FileSource(path):
                pytest.fail("entered")
    async with open_path(tmp_path / "fifo"):
        pass

    assert len(open_descriptors()) == before


async def test_a_file_is_opened_as_a_file(file: Path) -> None:
    async with open_path(file) as source:
        assert source.size == 10
        assert await source.peek(3) == b"012"


async def test_a_fifo_is_read_once_somebody_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    async with open_path(path) as source:
        assert source.size is None
        task = asyncio.create_task(source.peek(10))
        await turn()
        assert not task.done()

        await asyncio.to_thread(path.write_bytes, b"0123")

        assert await task == b"0123"


async def test_a_fifo_where_a_file_is_needed_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    awaited = asyncio.get_running_loop().run_in_executor(None, os.open, path, os.O_WRONLY)

    with pytest.raises(SourceUnreadable, match="is a pipe"):
        async with FileSource(path):
            pass

    await turn()
    assert not awaited.done()
    async with open_path(path):
        os.close(await awaited)


async def test_a_fifo_that_is_closed_unwritten_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    async with open_path(path) as source:
        task = asyncio.create_task(source.peek(10))
        await turn()
        await asyncio.to_thread(path.write_bytes, b"")

        assert await task == b""


async def test_waiting_for_who_writes_a_fifo_can_be_cancelled(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    async with open_path(tmp_path / "fifo") as source:
        task = asyncio.create_task(source.peek(1))
        await turn()
        task.cancel()
        await asyncio.wait([task])

    assert task.cancelled()


async def test_the_end_of_a_pipe_that_the_shell_made_is_read_by_its_name() -> None:
    reader = piped(b"0123")
    async with open_path(f"/dev/fd/{reader}") as source:
        assert await source.peek(10) == b"0123"
    os.close(reader)


@pytest.mark.parametrize("size", [4, BRIEF + 1], ids=["brief", "long"])
async def test_a_file_is_digested_in_the_thread_that_reads_it(tmp_path: Path, size: int) -> None:
    (tmp_path / "large").write_bytes(b"new" * size)
    view = memoryview(bytearray(b"old!" * size)[:size])
    seen: list[bytes] = []
    threads: list[bool] = []

    def see() -> None:
        seen.append(bytes(view[:3]))
        threads.append(threading.current_thread() is threading.main_thread())

    async with FileSource(tmp_path / "large") as source:
        assert await source.read_into(0, view, before=see, after=see) == size

    assert seen == [b"old", b"new"]
    assert threads == 2 * [size <= BRIEF]


async def test_what_is_done_before_and_after_a_pipe_is_read_sees_old_and_new() -> None:
    reader = piped(b"new")
    buffer = bytearray(b"old")
    seen: list[bytes] = []
    async with PipeSource(reader) as source:
        await source.read_into(
            0, memoryview(buffer), before=lambda: seen.append(bytes(buffer)), after=lambda: seen.append(bytes(buffer))
        )
    os.close(reader)

    assert seen == [b"old", b"new"]


async def test_a_pipe_cannot_be_read_in_a_thread(pipe: tuple[int, int]) -> None:
    async with PipeSource(pipe[0]) as source:
        with pytest.raises(SourceUnreadable, match="standard input: is a pipe, and this is read more than once"):
            source.read_now(0, memoryview(bytearray(1)))
