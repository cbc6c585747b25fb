"""Layers that are cancelled at every step, and on disks that get full: nothing stays, and no thread."""

from __future__ import annotations

import threading
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from asyncbackup.errors import TargetFull
from asyncbackup.storage import Access, Layers, open_source, open_target, publish
from tests.collecting import CollectingTarget
from tests.disks import noise
from tests.faults.steps import WAYS, Cancel, run_cancelled
from tests.folders import left_in
from tests.keys import Key, make_key
from tests.layered import read_all

CONTENT = noise(8, 2_500_000)
LAYERS = ["zstd", "age", "both"]


@pytest.fixture
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return make_key(tmp_path_factory.mktemp("keys"))


def layers_for(name: str, key: Key) -> Layers:
    recipients = () if name == "zstd" else (key.recipient,)
    return Layers(zstd_level=None if name == "age" else 1, recipients=recipients, threads=2)


def left_running() -> list[str]:
    ours = ("compression", "encryption", "decryption")
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(ours)]


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("cancel", WAYS)
async def test_writing_that_is_cancelled_leaves_all_or_nothing(
    tmp_path: Path, key: Key, cancel: Cancel, name: str
) -> None:
    layers = layers_for(name, key)

    async def write() -> None:
        async with open_target(tmp_path / "file", layers=layers) as (data, manifest, _):
            assert manifest is not None
            for start in range(0, len(CONTENT), 700_000):
                await data.append([CONTENT[start : start + 700_000]])
                await manifest.append([b"a line\n"])
            await publish(data, manifest)

    step, was_cancelled = 0, True
    while was_cancelled:
        was_cancelled = await run_cancelled(cancel, write, step)
        assert left_in(tmp_path) in ([], ["file", "file.manifest"])
        assert not left_running()
        if left_in(tmp_path):
            break
        step += 1
    assert step > 5
    async with open_source(tmp_path / "file", access=Access(identities=(str(key.identity),))) as (source, manifest):
        assert manifest is not None
        assert await read_all(source) == CONTENT
        lines = memoryview(bytearray(100))
        assert bytes(lines[: manifest.read_now(0, lines)]) == b"a line\n" * 4


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("cancel", WAYS)
async def test_reading_that_is_cancelled_leaves_no_thread(tmp_path: Path, key: Key, cancel: Cancel, name: str) -> None:
    async with open_target(tmp_path / "file", with_manifest=False, layers=layers_for(name, key)) as (data, _, _):
        await data.append([CONTENT])
        await publish(data)

    async def read() -> None:
        access = Access(identities=(str(key.identity),))
        async with open_source(tmp_path / "file", with_manifest=False, access=access) as (source, _):
            assert await read_all(source) == CONTENT

    step = 0
    while await run_cancelled(cancel, read, step):
        assert not left_running()
        step += 1
    assert step > 5


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("room", [0, 300, 1_000_000, 2_400_000])
async def test_a_disk_that_gets_full_at_any_time_is_told(key: Key, name: str, room: int) -> None:
    disk = CollectingTarget(room)

    async def write() -> None:
        async with AsyncExitStack() as stack:
            target = await layers_for(name, key).wrap_target(stack, disk)
            for start in range(0, len(CONTENT), 700_000):
                await target.append([CONTENT[start : start + 700_000]])
            await target.complete()

    with pytest.raises(TargetFull):
        await write()
    assert not disk.is_complete
    assert not left_running()
