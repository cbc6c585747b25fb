from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncbackup.errors import BackupDamaged, SourceUnreadable
from asyncbackup.storage import FileSource, Layers
from asyncbackup.storage.zstd import FRAME_SIZE, load_zstd
from asyncbackup.storage.zstd_source import open_zstd
from tests.disks import noise
from tests.layered import read_all, read_layered, write_layered

CONTENT = noise(3, 2 * FRAME_SIZE) + bytes(FRAME_SIZE) + noise(4, 70_000)
FOOTER = struct.Struct("<IBI")


@pytest.fixture
async def file(tmp_path: Path) -> Path:
    await write_layered(tmp_path / "file", CONTENT, Layers(zstd_level=1, threads=2))
    return tmp_path / "file"


def plain(path: Path, content: bytes = CONTENT) -> Path:
    """Write a file as the program zstd does: without a seek table."""
    zstd = load_zstd()
    path.write_bytes(zstd.compress(content, options={zstd.CompressionParameter.checksum_flag: 1}))
    return path


def rewrite(path: Path, change: Callable[[bytearray], bytes | bytearray | None]) -> None:
    """Let ``change`` change the content of a file, or give another one."""
    content = bytearray(path.read_bytes())
    path.write_bytes(change(content) or content)


def flip(content: bytearray) -> None:
    content[100] ^= 1


async def test_what_is_read_in_order_is_the_content(file: Path) -> None:
    assert await read_layered(file) == CONTENT


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.tuples(st.integers(0, len(CONTENT) + 9), st.integers(0, FRAME_SIZE + 9)), min_size=1, max_size=4))
async def test_any_range_is_read(file: Path, ranges: list[tuple[int, int]]) -> None:
    async with FileSource(file) as inner, await open_zstd(inner) as source:
        assert source.size == len(CONTENT)
        for start, length in ranges:
            buffer = memoryview(bytearray(length))
            count = await source.read_into(start, buffer)
            assert bytes(buffer[:count]) == CONTENT[start : start + length]


async def test_many_read_at_a_time(file: Path) -> None:
    async with FileSource(file) as inner, await open_zstd(inner) as source:

        async def read(start: int) -> None:
            buffer = memoryview(bytearray(150_000))
            count = await source.read_into(start, buffer)
            assert bytes(buffer[:count]) == CONTENT[start : start + 150_000]

        async with anyio.create_task_group() as group:
            for start in range(0, len(CONTENT), 97_000):
                group.start_soon(read, start)


async def test_a_few_bytes_are_read_without_the_rest_of_the_file(file: Path) -> None:
    rewrite(file, flip)

    async with FileSource(file) as inner, await open_zstd(inner) as source:
        buffer = memoryview(bytearray(10))
        assert source.read_now(len(CONTENT) - 10, buffer) == 10
        assert buffer == CONTENT[-10:]
        with pytest.raises(BackupDamaged, match="at offset 0: this is no zstd that can be read"):
            source.read_now(0, buffer)


async def test_the_digest_of_a_range_is_taken_in_the_same_hop(file: Path) -> None:
    steps: list[tuple[str, bool]] = []
    loop = threading.get_ident()

    def step(name: str) -> None:
        steps.append((name, threading.get_ident() == loop))

    async with FileSource(file) as inner, await open_zstd(inner) as source:
        view = memoryview(bytearray(10))
        await source.read_into(5, view, before=lambda: step("before"), after=lambda: step("after"))

    assert steps == [("before", False), ("after", False)]


@pytest.mark.parametrize("content", [b"", b"a", CONTENT])
async def test_a_file_without_a_table_is_read_in_order(tmp_path: Path, content: bytes) -> None:
    file = plain(tmp_path / "file", content)

    async with FileSource(file) as inner, await open_zstd(inner) as source:
        assert source.size is None
        assert await source.peek(50) == content[:50]
        assert await read_all(source) == content


async def test_frames_and_skippable_frames_may_follow_one_another(tmp_path: Path) -> None:
    zstd, skipped = load_zstd(), struct.pack("<II", 0x184D2A53, 5) + b"hello"
    (tmp_path / "file").write_bytes(skipped + zstd.compress(b"one") + skipped + zstd.compress(b"two") + skipped)

    assert await read_layered(tmp_path / "file") == b"onetwo"


async def test_threads_read_a_file_without_a_table_as_often_as_they_want(tmp_path: Path) -> None:
    async with FileSource(plain(tmp_path / "file")) as inner, await open_zstd(inner) as source:
        for start in (0, 5, FRAME_SIZE, 3):
            buffer = memoryview(bytearray(1000))
            assert source.read_now(start, buffer) == 1000
            assert buffer == CONTENT[start : start + 1000]


@pytest.mark.parametrize("is_plain", [True, False])
async def test_a_file_that_is_cut_off_anywhere_is_damaged(tmp_path: Path, file: Path, *, is_plain: bool) -> None:
    content = (plain(tmp_path / "plain") if is_plain else file).read_bytes()
    # The table of four frames has 49 bytes. Without any of it the file is complete.
    complete = len(content) if is_plain else len(content) - 49
    cuts = [1, 4, 9, complete // 3, complete - 5, complete - 1]
    if not is_plain:
        cuts += range(complete + 1, len(content), 3)

    for size in cuts:
        cut = tmp_path / "cut"
        cut.write_bytes(content[:size])
        async with FileSource(cut) as inner, await open_zstd(inner) as source:
            with pytest.raises(BackupDamaged, match=f"at offset {size}: the file ends here"):
                await read_all(source)


async def test_the_last_bytes_wait_for_the_end(tmp_path: Path) -> None:
    file = plain(tmp_path / "file", b"short")
    file.write_bytes(file.read_bytes() + b"more")

    async with FileSource(file) as inner, await open_zstd(inner) as source:
        with pytest.raises(BackupDamaged):
            await source.read_into(0, memoryview(bytearray(5)))


async def test_a_changed_byte_anywhere_is_damage(tmp_path: Path) -> None:
    original = plain(tmp_path / "plain", noise(5, 3000)).read_bytes()
    for place in range(0, len(original), 101):
        changed = bytearray(original)
        changed[place] ^= 0x10
        (tmp_path / "changed").write_bytes(changed)
        async with FileSource(tmp_path / "changed") as inner, await open_zstd(inner) as source:
            with pytest.raises(BackupDamaged, match=r"at offset 0: this is no zstd|the file ends here"):
                await read_all(source)


async def test_a_table_that_tells_other_sizes_is_damage(file: Path) -> None:
    rewrite(file, lambda content: struct.pack_into("<I", content, len(content) - FOOTER.size - 4, 70_001))

    async with FileSource(file) as inner, await open_zstd(inner) as source:
        with pytest.raises(BackupDamaged, match="expected a frame of 70001 bytes, as the seek table says"):
            await source.read_into(len(CONTENT) - 5, memoryview(bytearray(5)))


async def test_a_table_of_another_file_is_damage(file: Path) -> None:
    rewrite(file, lambda content: content[10:])

    async with FileSource(file) as inner:
        with pytest.raises(BackupDamaged, match="expected a seek table of the"):
            await open_zstd(inner)


async def test_large_frames_are_read_in_order(tmp_path: Path) -> None:
    frame = load_zstd().compress(bytes(5 << 20))
    table = struct.pack("<IIII", 0x184D2A5E, 17, len(frame), 5 << 20) + FOOTER.pack(1, 0, 0x8F92EAB1)
    (tmp_path / "file").write_bytes(frame + table)

    async with FileSource(tmp_path / "file") as inner, await open_zstd(inner) as source:
        assert source.size is None
        assert await read_all(source) == bytes(5 << 20)


async def test_a_frame_that_asks_for_too_much_memory_is_refused(tmp_path: Path) -> None:
    # While it is made nobody knows how long it gets, so its window is as large as was asked for.
    zstd = load_zstd()
    compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    file = tmp_path / "file"
    file.write_bytes(compressor.compress(b"a few bytes") + compressor.flush())

    with pytest.raises(BackupDamaged, match="too much memory"):
        await read_layered(file)


async def test_a_pipe_is_no_place_for_threads_to_read(tmp_path: Path) -> None:
    async with FileSource(plain(tmp_path / "file")) as inner:
        inner.size = None  # type: ignore[assignment]
        async with await open_zstd(inner) as source:
            with pytest.raises(SourceUnreadable, match="is a pipe"):
                source.read_now(0, memoryview(bytearray(5)))
