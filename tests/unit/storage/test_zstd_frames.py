"""Frames of a file without a table are found again, and a target goes on behind them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbackup.storage import FileSource
from asyncbackup.storage.zstd import FRAME_SIZE, load_zstd
from asyncbackup.storage.zstd_frames import WrittenFrames, read_frame
from asyncbackup.storage.zstd_target import ZstdTarget
from tests.collecting import CollectingTarget
from tests.disks import noise

PARTS = {
    "noise": noise(1, FRAME_SIZE),
    "zeros": bytes(FRAME_SIZE),
    "text": b"a line of text\n" * (FRAME_SIZE // 15) + bytes(FRAME_SIZE % 15),
    "mixed": noise(2, FRAME_SIZE // 2) + bytes(FRAME_SIZE // 4) + noise(3, FRAME_SIZE // 4),
}


async def compress(content: bytes, *, is_whole: bool, level: int = 1) -> tuple[bytes, list[int]]:
    """Give what is written of ``content``, and the lengths of its frames of FRAME_SIZE."""
    written = CollectingTarget()
    async with ZstdTarget(written, level, 2) as target:
        await target.append([content])
        await (target.end() if is_whole else target.sync())
        lengths = [int.from_bytes(target._table._entries[at : at + 4], "little") for at in range(0, 10**6, 8)]
    return bytes(written.data), lengths[: len(content) // FRAME_SIZE]


async def find(path: Path, steps: list[int]) -> tuple[bytes, list[int]]:
    """Read all content in ``steps``, again and again; give it, and the lengths of the frames."""
    content = bytearray()
    async with FileSource(path) as file:
        frames = WrittenFrames(file)
        while True:
            view = memoryview(bytearray(steps[len(content) % len(steps)]))
            count = frames.read_now(len(content), view)
            content += view[:count]
            if count < len(view):
                return bytes(content), frames.lengths.tolist()


@pytest.mark.slow
@given(st.lists(st.sampled_from(list(PARTS)), max_size=4), st.integers(0, 3000), st.data())
async def test_the_frames_that_are_found_are_those_that_were_written(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str], rest: int, data: st.DataObject
) -> None:
    content = b"".join(PARTS[part] for part in parts) + noise(5, rest)
    path = tmp_path_factory.mktemp("frames") / "file"
    is_whole, level = data.draw(st.booleans()), data.draw(st.sampled_from([1, 3, 9]))
    steps = data.draw(st.lists(st.integers(100_000, 3_000_000), min_size=1, max_size=3))
    written, lengths = await compress(content, is_whole=is_whole, level=level)
    path.write_bytes(written)

    assert await find(path, steps) == (content[: len(parts) * FRAME_SIZE], lengths)


@pytest.mark.slow
@given(st.data())
async def test_a_file_that_is_cut_or_damaged_anywhere_gives_whole_frames_before_that(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = PARTS["text"] + PARTS["mixed"] + PARTS["zeros"]
    written, lengths = await compress(content, is_whole=False)
    at = data.draw(st.integers(0, len(written) - 1))
    path = tmp_path_factory.mktemp("frames") / "file"
    path.write_bytes(written[:at] + data.draw(st.sampled_from([b"", bytes([written[at] ^ 1]) + written[at + 1 :]])))

    found, found_lengths = await find(path, [FRAME_SIZE])

    good = sum(at >= sum(lengths[: number + 1]) for number in range(3))
    assert found == content[: good * FRAME_SIZE]
    assert found_lengths == lengths[:good]


@pytest.mark.parametrize("size", [FRAME_SIZE - 1, FRAME_SIZE + 1, 40 * FRAME_SIZE])
async def test_a_frame_of_another_size_is_none(tmp_path: Path, size: int) -> None:
    (tmp_path / "file").write_bytes(load_zstd().compress(bytes(size)))

    async with FileSource(tmp_path / "file") as file:
        assert read_frame(file, 0) is None


@pytest.mark.slow
@given(st.lists(st.sampled_from(list(PARTS)), min_size=1, max_size=3), st.integers(0, 3_500_000))
async def test_what_goes_on_behind_frames_is_what_was_not_interrupted(parts: list[str], at: int) -> None:
    content = b"".join(PARTS[part] for part in parts) + b"the end"
    at = min(at, len(content))
    whole, lengths = await compress(content, is_whole=True)
    frames = at // FRAME_SIZE
    again = CollectingTarget()
    await again.append([whole[: sum(lengths[:frames])]])

    async with ZstdTarget(again, 1, 2) as target:
        target.go_on(lengths[:frames], content[frames * FRAME_SIZE : at])
        await target.append([content[at:]])
        await target.end()

    assert bytes(again.data) == whole


async def test_all_whole_frames_are_written_by_a_sync() -> None:
    content = PARTS["mixed"] * 5 + b"more"

    written, lengths = await compress(content, is_whole=False, level=15)

    assert len(written) == sum(lengths)
    assert load_zstd().decompress(written) == content[:-4]


class Torn(CollectingTarget):
    """Takes only half of the second write, and waits then."""

    def __init__(self) -> None:
        super().__init__()
        self.stands = anyio.Event()
        self.writes = 0

    async def append(self, buffers: Any, **arguments: Any) -> None:
        self.writes += 1
        if self.writes == 2:
            await super().append([bytes(buffers[0][:1000])])
            self.stands.set()
            await anyio.sleep_forever()
        await super().append(buffers, **arguments)


async def test_nothing_follows_a_frame_that_is_torn() -> None:
    disk = Torn()
    async with ZstdTarget(disk, 1, 1) as target:
        async with anyio.create_task_group() as group:
            group.start_soon(target.append, [PARTS["noise"] * 9])
            await disk.stands.wait()
            group.cancel_scope.cancel()
        before = len(disk.data)

        await target.sync()

    assert len(disk.data) == before


async def test_a_sync_after_a_cancellation_writes_the_frames_that_were_waited_for() -> None:
    disk = CollectingTarget()
    async with ZstdTarget(disk, 19, 1) as target:
        with anyio.CancelScope() as scope:
            await target.append([PARTS["mixed"]])
            scope.cancel()
            await target.sync()
        assert scope.cancelled_caught
        assert not disk.data

        await target.sync()

    assert load_zstd().decompress(disk.data) == PARTS["mixed"]
