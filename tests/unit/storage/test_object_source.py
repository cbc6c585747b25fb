"""Objects are read in ranges, ahead where that helps, and never as a mix of two."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import anyio
import obstore
import pytest
from anyio import to_thread
from obstore.store import MemoryStore

from asyncbackup.errors import SourceMissing, SourceUnreadable
from asyncbackup.storage.access import Access
from asyncbackup.storage.location import find_object
from asyncbackup.storage.object_source import ObjectSource
from asyncbackup.storage.object_store import StoredObject, open_object
from asyncbackup.storage.source import Source
from tests.object_stores import Exchange, Request, S3Server, always, cut_after_half, fail, forbid, lengthen, times

MIB = 1 << 20
KEY = "vm1"


def content_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def memory_place(content: bytes) -> StoredObject:
    place = StoredObject(MemoryStore(), f"box/{KEY}", f"memory://box/{KEY}")
    obstore.put(place.store, place.key, content)
    return place


def s3_place(s3: S3Server, content: bytes) -> StoredObject:
    location = find_object(f"s3://{s3.new_bucket()}/{KEY}")
    assert location is not None
    place = open_object(location, Access({**s3.options, "max_retries": "2"}))
    obstore.put(place.store, place.key, content)
    s3.requests.clear()
    return place


@asynccontextmanager
async def reading(place: StoredObject) -> AsyncIterator[Source]:
    async with ObjectSource(place) as source:
        yield source


async def read(source: Source, offset: int, size: int) -> bytes:
    buffer = bytearray(size)
    return bytes(buffer[: await source.read_into(offset, memoryview(buffer))])


def read_all_now(source: Source, size: int) -> bytes:
    found, buffer = bytearray(), memoryview(bytearray(size))
    while count := source.read_now(len(found), buffer):
        found += buffer[:count]
    return bytes(found)


def _start(request: Request) -> int:
    return int(request.range.removeprefix("bytes=").partition("-")[0] or 0)


def ranges(s3: S3Server) -> list[str]:
    return [request.range.removeprefix("bytes=") for request in s3.requests if request.method == "GET"]


@pytest.mark.parametrize("size", [0, 1, MIB, MIB + 1, 5 * MIB + 77])
@pytest.mark.parametrize("step", [64 << 10, 3 * MIB])
async def test_all_that_is_read_is_all_there_is(size: int, step: int) -> None:
    content = content_of(size)
    async with reading(memory_place(content)) as source:
        assert source.size == size
        assert await to_thread.run_sync(read_all_now, source, step) == content


async def test_any_range_is_what_stands_there() -> None:
    content, chances = content_of(3 * MIB), random.Random(3)
    async with reading(memory_place(content)) as source:
        for _ in range(50):
            start, size = chances.randrange(len(content) + 10), chances.randrange(1, 2 * MIB)
            assert await read(source, start, size) == content[start : start + size]


async def test_the_beginning_is_peeked_at_and_read_again() -> None:
    content = content_of(2 * MIB)
    async with reading(memory_place(content)) as source:
        assert await source.peek(32) == content[:32]
        assert await read(source, 0, 64) == content[:64]


async def test_steps_are_taken_before_and_after() -> None:
    async with reading(memory_place(b"new")) as source:
        seen, view = [], memoryview(bytearray(b"old"))
        await source.read_into(0, view, before=lambda: seen.append(bytes(view)), after=lambda: seen.append(bytes(view)))
    assert seen == [b"old", b"new"]


async def test_a_small_object_is_fetched_once(s3: S3Server) -> None:
    async with reading(s3_place(s3, content_of(100_000))) as source:
        for _ in range(2):
            await to_thread.run_sync(read_all_now, source, 64 << 10)
    assert len(ranges(s3)) == 1


async def test_a_random_read_fetches_only_its_range(s3: S3Server) -> None:
    async with reading(s3_place(s3, content_of(4 * MIB))) as source:
        await read(source, 3 * MIB, 16)
        await read(source, 1 * MIB, 16)
        await read(source, 2 * MIB, 16)
    assert ranges(s3) == ["3145728-3145743", "1048576-1048591", "2097152-2097167"]


async def test_reading_on_fetches_ahead(s3: S3Server) -> None:
    async with reading(s3_place(s3, content_of(8 * MIB))) as source:
        await to_thread.run_sync(read_all_now, source, 64 << 10)
    assert len(ranges(s3)) < 12


async def test_several_ranges_are_under_way_at_a_time(s3: S3Server) -> None:
    content = content_of(16 * MIB)
    place = s3_place(s3, content)
    together = threading.Barrier(3, timeout=10)

    def meet(exchange: Exchange) -> Iterable[bytes]:
        """Answer when three are asked for at the same time."""
        together.wait()
        return exchange.answer()

    s3.faults.append(times(3, meet, lambda request: _start(request) >= 8 * MIB))
    async with reading(place) as source:
        assert await to_thread.run_sync(read_all_now, source, 64 << 10) == content
    assert not together.broken


async def test_an_object_that_is_not_there_is_missing() -> None:
    with pytest.raises(SourceMissing, match="memory://box/none"):
        async with ObjectSource(StoredObject(MemoryStore(), "box/none", "memory://box/none")):
            pass


@pytest.mark.parametrize("size", [100, 3 * MIB])
async def test_an_object_that_was_replaced_is_not_read(s3: S3Server, size: int) -> None:
    place = s3_place(s3, content_of(size))
    async with reading(place) as source:
        obstore.put(place.store, place.key, content_of(size + 1))
        with pytest.raises(SourceUnreadable, match="was replaced"):
            await read(source, 10, 20)


async def test_an_object_that_was_replaced_while_it_was_read_is_no_mix(s3: S3Server) -> None:
    place = s3_place(s3, bytes(4 * MIB))
    async with reading(place) as source:
        await read(source, 0, 2 * MIB)
        obstore.put(place.store, place.key, b"x" * 4 * MIB)
        with pytest.raises(SourceUnreadable, match="was replaced"):
            await read(source, 2 * MIB, 2 * MIB)


async def test_a_store_that_answers_with_another_version_is_noticed(s3: S3Server) -> None:
    """Some stores do not heed the condition that a request has."""
    place = s3_place(s3, bytes(2 * MIB))

    def ignore_condition(exchange: Exchange) -> object:
        del exchange.environment["HTTP_IF_MATCH"]
        return exchange.answer()

    s3.faults.append(always(ignore_condition, lambda request: request.method == "GET"))  # type: ignore[arg-type]
    async with reading(place) as source:
        obstore.put(place.store, place.key, b"x" * 2 * MIB)
        with pytest.raises(SourceUnreadable, match="was replaced while it was read"):
            await read(source, MIB, 100)


async def test_an_object_that_was_removed_is_unreadable(s3: S3Server) -> None:
    place = s3_place(s3, bytes(2 * MIB))
    async with reading(place) as source:
        obstore.delete(place.store, place.key)
        with pytest.raises(SourceUnreadable, match="was removed while it was read"):
            await read(source, 0, 100)


def is_get(request: Request) -> bool:
    return request.method == "GET"


async def test_a_read_that_fails_once_is_repeated(s3: S3Server) -> None:
    content = content_of(2 * MIB)
    place = s3_place(s3, content)
    s3.faults.append(times(1, fail, is_get))
    s3.faults.append(times(1, cut_after_half, is_get))
    async with reading(place) as source:
        assert await read(source, 0, 2 * MIB) == content


async def test_a_read_that_always_fails_is_an_error(s3: S3Server) -> None:
    place = s3_place(s3, bytes(2 * MIB))
    s3.faults.append(always(fail, is_get))
    async with reading(place) as source:
        with pytest.raises(
            SourceUnreadable, match="the store answered 500 Internal Server Error, and it was asked 3 times"
        ):
            await read(source, 0, MIB)


async def test_more_bytes_than_asked_for_are_an_error(s3: S3Server) -> None:
    place = s3_place(s3, bytes(2 * MIB))
    s3.faults.append(always(lengthen, is_get))
    async with reading(place) as source:
        with pytest.raises(SourceUnreadable, match="expected 100 bytes from 10 on, got 104"):
            await read(source, 10, 100)


async def test_a_failure_to_fetch_ahead_is_the_error_of_who_reads_there(s3: S3Server) -> None:
    place = s3_place(s3, content_of(4 * MIB))
    async with reading(place) as source:
        await read(source, 0, 1000)
        s3.faults.append(always(forbid, is_get))
        with pytest.raises(SourceUnreadable, match="the store does not permit this"):
            await read(source, 1000, 1000)


async def test_a_store_that_cannot_be_reached_is_unreadable() -> None:
    location = find_object("s3://backups/vm1")
    assert location is not None
    options = {"endpoint": "http://127.0.0.1:9", "access_key_id": "a", "secret_access_key": "b", "max_retries": "1"}
    with pytest.raises(
        SourceUnreadable, match="s3://backups/vm1: the store cannot be reached, and it was asked 2 times"
    ):
        async with ObjectSource(open_object(location, Access(options))):
            pass


async def test_a_cancelled_read_in_a_thread_ends(s3: S3Server) -> None:
    place = s3_place(s3, bytes(2 * MIB))
    answering = anyio.Event()

    async with reading(place) as source:
        loop_time = anyio.current_time

        def hang(exchange: Exchange) -> object:
            loop.call_soon_threadsafe(answering.set)
            released.wait(10)
            return exchange.answer()

        released, loop = threading.Event(), asyncio.get_running_loop()
        s3.faults.append(always(hang, is_get))  # type: ignore[arg-type]
        before = loop_time()
        async with anyio.create_task_group() as group:
            group.start_soon(to_thread.run_sync, source.read_now, 0, memoryview(bytearray(100)))
            await answering.wait()
            group.cancel_scope.cancel()
        assert loop_time() - before < 5
        released.set()
