from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbackup.errors import TargetFull
from asyncbackup.format.seekable import FOOTER_SIZE, SeekTable, decode_footer
from asyncbackup.storage import FileTarget
from asyncbackup.storage.zstd import FRAME_SIZE, load_zstd
from asyncbackup.storage.zstd_target import ZstdTarget
from tests.collecting import CollectingTarget
from tests.disks import noise
from tests.folders import left_in


async def compress(*parts: bytes, threads: int = 2, level: int = 1) -> bytes:
    memory = CollectingTarget()
    async with ZstdTarget(memory, level, threads) as target:
        for part in parts:
            await target.append([part])
        await target.complete()
    assert memory.is_complete
    return bytes(memory.data)


@pytest.mark.parametrize("size", [0, 1, FRAME_SIZE - 1, FRAME_SIZE, 3 * FRAME_SIZE + 5])
async def test_the_content_comes_back(size: int) -> None:
    content = noise(1, size)

    compressed = await compress(content)

    assert load_zstd().decompress(compressed) == content


@given(st.binary(max_size=2000), st.lists(st.integers(0, 2000), max_size=6), st.integers(1, 4))
async def test_what_is_written_depends_on_the_content_alone(content: bytes, cuts: list[int], threads: int) -> None:
    ends = sorted({min(cut, len(content)) for cut in cuts} | {len(content)})
    parts = [content[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    assert await compress(*parts, threads=threads) == await compress(content, threads=1)


async def test_cuts_across_frames_change_nothing() -> None:
    content = noise(1, 3 * FRAME_SIZE + 7)
    parts = [content[at : at + 700_001] for at in range(0, len(content), 700_001)]

    assert await compress(*parts, threads=3) == await compress(content, threads=1)


async def test_the_file_ends_with_a_table_of_its_frames() -> None:
    compressed = await compress(noise(1, 2 * FRAME_SIZE + 1))
    footer = decode_footer(compressed[-FOOTER_SIZE:], len(compressed))

    assert footer is not None
    table = SeekTable.decode(compressed[-footer.size :], len(compressed))
    assert (table.frames, table.size, table.largest) == (3, 2 * FRAME_SIZE + 1, FRAME_SIZE)


async def test_zeros_take_next_to_nothing() -> None:
    assert len(await compress(bytes(16 * FRAME_SIZE))) < 16 * 100


@pytest.mark.skipif(shutil.which("zstd") is None, reason="needs the program zstd")
def test_the_program_zstd_reads_it(tmp_path: Path) -> None:
    content = noise(2, FRAME_SIZE + 9) + bytes(FRAME_SIZE)
    (tmp_path / "file").write_bytes(asyncio.run(compress(content)))

    assert subprocess.run(["zstd", "-dc", tmp_path / "file"], check=True, capture_output=True).stdout == content


async def test_the_caller_can_use_its_buffers_again() -> None:
    memory, buffer = CollectingTarget(), bytearray(b"first")
    async with ZstdTarget(memory, 1, 1) as target:
        await target.append([buffer])
        buffer[:] = b"other"
        await target.complete()

    assert load_zstd().decompress(memory.data) == b"first"


async def test_little_memory_makes_the_threads_fewer_and_the_frames_that_wait() -> None:
    async with ZstdTarget(CollectingTarget(), 19, 4, may_be_fewer=True) as target:
        held = target.reserve(None, 64 << 20)
        await target.append([noise(number, FRAME_SIZE) for number in range(6)])

        assert held == 32 << 20
        assert len(target._threads._threads) <= 2
        assert len(target._running) <= 4


async def test_a_full_disk_shows_while_frames_are_in_flight() -> None:
    async with ZstdTarget(CollectingTarget(room=FRAME_SIZE), 1, 2) as target:
        with pytest.raises(TargetFull):
            await target.append([noise(number, FRAME_SIZE) for number in range(20)])


async def test_no_thread_outlives_a_cancellation(tmp_path: Path) -> None:
    with anyio.CancelScope() as scope:
        async with FileTarget(tmp_path / "file") as file, ZstdTarget(file, 19, 2) as target:
            await target.append([noise(1, 6 * FRAME_SIZE)])
            scope.cancel()
            await target.complete()

    assert scope.cancelled_caught
    assert not left_in(tmp_path)
    assert target._threads._shutdown
    assert not any(thread.is_alive() for thread in target._threads._threads)
