from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncbackup.errors import TargetFull, TargetUnusable, TargetWriteFailed
from asyncbackup.storage import FileTarget, NullTarget, PipeTarget, Target, is_fifo, open_fifo, publish
from tests.descriptors import open_descriptors
from tests.waiting import turn, until

PIPE_SIZE = 1 << 20


class Pipe:
    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def read(self, size: int = 1 << 16) -> bytes:
        return os.read(self.reader, size)

    def close_reader(self) -> None:
        os.close(self.reader)
        self.reader = -1


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    for descriptor in (made.reader, made.writer):
        if descriptor >= 0:
            os.close(descriptor)


async def test_bytes_go_through_in_order(pipe: Pipe) -> None:
    async with PipeTarget(pipe.writer) as target:
        await target.append([b"zero", bytearray(b"one"), memoryview(b"two")])
        await target.append([b"three"])
        await target.complete()

    assert pipe.read() == b"zeroonetwothree"


async def test_a_slow_reader_holds_the_writer_back(pipe: Pipe) -> None:
    data = os.urandom(3 * PIPE_SIZE)

    async def write() -> None:
        async with PipeTarget(pipe.writer) as target:
            await target.append([data[:PIPE_SIZE], data[PIPE_SIZE:]])

    task = asyncio.create_task(write())
    await turn()
    assert not task.done()
    received = bytearray()
    while len(received) < len(data):
        received += await asyncio.to_thread(pipe.read)
    await task

    assert received == data


async def test_a_cancellation_does_not_wait_for_the_reader(pipe: Pipe) -> None:
    async def write() -> None:
        async with PipeTarget(pipe.writer) as target:
            await target.append([bytes(2 * PIPE_SIZE)])

    task = asyncio.create_task(write())
    await turn()
    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()
    assert os.get_blocking(pipe.writer)


async def test_a_reader_that_is_gone_is_told(pipe: Pipe) -> None:
    pipe.close_reader()

    async with PipeTarget(pipe.writer) as target:
        with pytest.raises(TargetWriteFailed, match="standard output: Broken pipe"):
            await target.append([b"data"])


async def test_a_reader_that_goes_while_we_wait_is_told(pipe: Pipe) -> None:
    async with PipeTarget(pipe.writer) as target:
        task = asyncio.create_task(target.append([bytes(2 * PIPE_SIZE)]))
        await turn()
        pipe.close_reader()

        with pytest.raises(TargetWriteFailed, match="Broken pipe"):
            await task


@pytest.mark.parametrize("blocking", [True, False])
async def test_the_blocking_mode_is_as_before(pipe: Pipe, *, blocking: bool) -> None:
    os.set_blocking(pipe.writer, blocking)

    async with PipeTarget(pipe.writer):
        assert not os.get_blocking(pipe.writer)

    assert os.get_blocking(pipe.writer) is blocking


async def test_the_descriptor_stays_open(pipe: Pipe) -> None:
    async with PipeTarget(pipe.writer) as target:
        await target.append([b"ours"])

    os.write(pipe.writer, b" theirs")
    assert pipe.read() == b"ours theirs"


async def test_more_buffers_than_the_kernel_takes_are_written(pipe: Pipe) -> None:
    async with PipeTarget(pipe.writer) as target:
        await target.append([bytes([number % 256]) for number in range(3000)])

    assert pipe.read() == bytes(number % 256 for number in range(3000))


async def test_a_file_is_written_from_where_it_stands(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+b", buffering=0) as file:
        file.write(b"before ")

        async with PipeTarget(file.fileno()) as target:
            await target.append([b"da", b"ta"])
            await target.complete()

        assert (tmp_path / "file").read_bytes() == b"before data"


@pytest.fixture
def device(request: pytest.FixtureRequest) -> Iterator[int]:
    descriptor = os.open(request.param, os.O_WRONLY)
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize("device", ["/dev/full"], indirect=True)
async def test_a_full_device_is_told(device: int) -> None:
    async with PipeTarget(device, "the device") as target:
        with pytest.raises(TargetFull, match="the device: No space left on device"):
            await target.append([b"data"])


@pytest.mark.parametrize("device", ["/dev/null"], indirect=True)
async def test_what_drops_everything_never_waits(device: int) -> None:
    async with PipeTarget(device) as target:
        await target.append([bytes(8 * PIPE_SIZE)])
        await target.complete()


async def test_it_waits_for_room_only_when_there_is_none(pipe: Pipe) -> None:
    async with PipeTarget(pipe.writer) as target:
        await target.append([bytes(PIPE_SIZE)])
        task = asyncio.create_task(target.append([b"x"]))
        await turn()
        assert not task.done()

        pipe.read(PIPE_SIZE)

        await until(task.done)


@pytest.mark.parametrize("kind", [PipeTarget, NullTarget])
async def test_a_manifest_is_completed_after_it(
    pipe: Pipe, tmp_path: Path, kind: type[PipeTarget | NullTarget]
) -> None:
    target: Target = PipeTarget(pipe.writer) if kind is PipeTarget else NullTarget()
    async with target, FileTarget(tmp_path / "proof") as proof:
        await proof.append([b"proof"])
        await publish(target, proof)

    assert (tmp_path / "proof").read_bytes() == b"proof"


async def test_a_descriptor_that_cannot_be_written_is_told_at_once(pipe: Pipe) -> None:
    with pytest.raises(TargetUnusable, match="standard output: is closed, or open for reading only"):
        await PipeTarget(pipe.reader).__aenter__()


async def test_a_closed_descriptor_is_told_at_once(pipe: Pipe) -> None:
    closed = os.dup(pipe.writer)
    os.close(closed)

    with pytest.raises(TargetUnusable, match="standard output: Bad file descriptor"):
        await PipeTarget(closed).__aenter__()


INCOMPLETE = ["what went to standard output is incomplete: do not keep it"]
NOTHING = ["nothing went to standard output"]


@pytest.mark.parametrize(("data", "notes"), [(b"", NOTHING), (b"some", INCOMPLETE)])
async def test_a_failure_notes_whether_something_incomplete_went_out(pipe: Pipe, data: bytes, notes: list[str]) -> None:
    error = ZeroDivisionError()
    target = PipeTarget(pipe.writer)
    await target.__aenter__()
    await target.append([data])
    await target.__aexit__(type(error), error, None)

    assert error.__notes__ == notes


async def test_a_failure_after_all_is_written_notes_nothing(pipe: Pipe) -> None:
    error = ZeroDivisionError()
    target = PipeTarget(pipe.writer)
    await target.__aenter__()
    await target.append([b"all"])
    await target.complete()
    await target.__aexit__(type(error), error, None)

    assert not hasattr(error, "__notes__")


@pytest.mark.parametrize(("size", "notes"), [(0, NOTHING), (PIPE_SIZE, INCOMPLETE)])
async def test_a_cancellation_notes_it_as_well(pipe: Pipe, size: int, notes: list[str]) -> None:
    async def write() -> None:
        async with PipeTarget(pipe.writer) as target:
            await target.append([bytes(2 * PIPE_SIZE)] if size else [])
            await asyncio.Event().wait()

    task = asyncio.create_task(write())
    await turn()
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task

    assert caught.value.__notes__ == notes


async def test_a_write_to_a_file_that_goes_on_when_it_is_cancelled_is_noted(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:

        async def write() -> None:
            async with PipeTarget(file.fileno()) as target:
                await target.append([b"some"])

        task = asyncio.create_task(write())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task

    assert caught.value.__notes__ == INCOMPLETE


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


async def test_a_fifo_is_told_from_all_else(fifo: Path) -> None:
    assert await is_fifo(fifo)
    for other in (fifo.parent, fifo.parent / "missing", "", "a\0b", "n" * 300, "/dev/null"):
        assert not await is_fifo(other)


async def test_a_fifo_is_written_once_somebody_reads_it(fifo: Path) -> None:
    async def write() -> None:
        async with open_fifo(fifo) as target:
            await target.append([b"data"])
            await target.complete()

    task = asyncio.create_task(write())
    await turn()
    assert not task.done()
    assert await asyncio.to_thread(fifo.read_bytes) == b"data"
    await task


async def test_waiting_for_who_reads_a_fifo_can_be_cancelled(fifo: Path) -> None:
    task = asyncio.create_task(open_fifo(fifo).__aenter__())
    await turn()
    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()


async def test_what_is_no_fifo_any_more_is_not_written_as_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"theirs")
    before = len(open_descriptors())

    with pytest.raises(TargetUnusable, match="is no pipe any more"):
        async with open_fifo(tmp_path / "file"):
            pytest.fail("entered")

    assert (tmp_path / "file").read_bytes() == b"theirs"
    assert len(open_descriptors()) == before


async def test_a_fifo_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    with pytest.raises(TargetUnusable, match="missing: No such file"):
        async with open_fifo(tmp_path / "missing"):
            pytest.fail("entered")
