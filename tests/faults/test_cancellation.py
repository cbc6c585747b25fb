"""A backup cancelled at every single step: nothing is left of it, and the cluster goes on."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
import struct
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncbackup import (
    ClientOptions,
    Cluster,
    Dialect,
    FileTarget,
    Layers,
    PipeTarget,
    Volume,
    WindowOptions,
    backup,
    connect,
)
from asyncbackup.sheep import MemoryStore, Sheep
from tests.disks import OBJECT, SHIFT, noise
from tests.faults.steps import WAYS, Cancel, run_cancelled
from tests.folders import left_in
from tests.holding import unanswered
from tests.waiting import until

OPTIONS = ClientOptions(connections=2, request_timeout_s=10, give_up_after_s=0)
SMALL_MEMORY = WindowOptions(memory=1 << 20)


@pytest.fixture
async def store() -> MemoryStore:
    """Holds a disk with an object that differs and one that is new."""
    made = MemoryStore()
    async with Sheep(made) as sheep, connect(sheep.host, sheep.port, OPTIONS) as cluster:
        await cluster.create_vdi("disk", 3 * OBJECT, block_size_shift=SHIFT)
        await (await Volume.open(cluster, "disk")).write(0, noise(1, 2 * OBJECT))
        await cluster.create_snapshot("disk", "a")
        await (await Volume.open(cluster, "disk")).write(2 * OBJECT - 512, noise(2, 1024))
        await cluster.create_snapshot("disk", "b")
    return made


@pytest.fixture
def unread_pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def waiters(cluster: Cluster) -> int:
    """Count the attempts that somebody still waits for."""
    return sum(
        attempt.on_end is not None
        for attempts in (
            cluster.nodes.gateway._waiting,
            *(connection._attempts.values() for connection in cluster.nodes.gateway.connections),
        )
        for attempt in attempts
    )


def take_files(folder: Path) -> dict[str, bytes]:
    files = {entry.name: entry.read_bytes() for entry in folder.iterdir()}
    for name in files:
        (folder / name).unlink()
    return files


@pytest.mark.slow
@pytest.mark.parametrize("options", [WindowOptions(), SMALL_MEMORY], ids=["objects", "pieces"])
@pytest.mark.parametrize("cancel", WAYS, ids=["task", "scope"])
async def test_a_backup_cancelled_at_any_step_leaves_nothing(
    store: MemoryStore, tmp_path: Path, cancel: Cancel, options: WindowOptions
) -> None:
    async with Sheep(store) as sheep, connect(sheep.host, sheep.port, OPTIONS) as cluster:

        async def work() -> None:
            await backup(cluster, "disk", tmp_path / "file", snapshot="b", base="a", options=options)

        await work()
        expected = take_files(tmp_path)
        for at in itertools.count():
            was_cut = await run_cancelled(cancel, work, at)

            assert waiters(cluster) == 0
            await until(lambda: unanswered(*cluster.nodes._nodes.values()) == 0)
            files = take_files(tmp_path)
            assert files in ({}, expected), at
            if not was_cut:
                assert files == expected
                break
        assert at, "there were steps to be cancelled at"
        await work()

    assert take_files(tmp_path) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "layers"),
    [(WindowOptions(workers=1), None), (SMALL_MEMORY, None), (WindowOptions(workers=1), Layers(1, threads=1))],
    ids=["objects", "pieces", "zstd"],
)
@pytest.mark.parametrize("cancel", WAYS, ids=["task", "scope"])
async def test_a_backup_with_checkpoints_cancelled_at_any_step_can_be_resumed(
    store: MemoryStore, tmp_path: Path, cancel: Cancel, options: WindowOptions, layers: Layers | None
) -> None:
    async with Sheep(store) as sheep, connect(sheep.host, sheep.port, OPTIONS) as cluster:

        async def work() -> None:
            await backup(
                cluster,
                "disk",
                tmp_path / "file",
                snapshot="b",
                dialect=Dialect.DOG,
                options=options,
                layers=layers,
                checkpoint_bytes=1,
                resume=True,
            )

        await work()
        expected = take_files(tmp_path)
        stayed = 0
        for at in itertools.count():
            was_cut = await run_cancelled(cancel, work, at)

            await until(lambda: unanswered(*cluster.nodes._nodes.values()) == 0)
            names = set(left_in(tmp_path))
            assert names in (set(), {".file.partial", ".file.partial.manifest"}, set(expected)), at
            if names == set(expected):
                assert take_files(tmp_path) == expected
                if not was_cut:
                    break
                continue
            if names:
                # Half of the time that which goes on is cancelled as well.
                stayed += 1
                if at % 2:
                    await run_cancelled(cancel, work, at // 2)
            if "file" not in left_in(tmp_path):
                await work()
            assert take_files(tmp_path) == expected, at
        assert stayed > 10


@pytest.mark.parametrize("cancel", WAYS, ids=["task", "scope"])
async def test_connecting_cancelled_at_any_step_leaves_no_connection(store: MemoryStore, cancel: Cancel) -> None:
    async with Sheep(store) as sheep:

        async def work() -> None:
            async with connect(sheep.host, sheep.port, OPTIONS) as cluster:
                await cluster.find_vdi("disk", "a")

        for at in itertools.count():
            was_cut = await run_cancelled(cancel, work, at)

            await until(lambda: sheep.connections == 0)
            if not was_cut:
                break
        assert at, "there were steps to be cancelled at"


@pytest.mark.parametrize("cancel", WAYS, ids=["task", "scope"])
async def test_replacing_cancelled_at_any_step_keeps_the_old_file_or_has_the_new_one(
    store: MemoryStore, tmp_path: Path, cancel: Cancel
) -> None:
    async with Sheep(store) as sheep, connect(sheep.host, sheep.port, OPTIONS) as cluster:

        async def work() -> None:
            async with FileTarget(tmp_path / "file", replace=True) as target:
                await backup(cluster, "disk", target, snapshot="b", base="a")

        await work()
        new = take_files(tmp_path)["file"]
        for at in itertools.count():
            (tmp_path / "file").write_bytes(b"old")
            was_cut = await run_cancelled(cancel, work, at)

            files = take_files(tmp_path)
            assert files in ({"file": b"old"}, {"file": new}), at
            if not was_cut:
                assert files == {"file": new}
                break


async def test_a_backup_that_nobody_reads_can_be_cancelled(store: MemoryStore, unread_pipe: tuple[int, int]) -> None:
    reader, writer = unread_pipe

    def is_full() -> bool:
        (waiting,) = struct.unpack("i", fcntl.ioctl(reader, termios.FIONREAD, bytes(4)))
        return bool(waiting > OBJECT // 2)

    async with Sheep(store) as sheep, connect(sheep.host, sheep.port, OPTIONS) as cluster:

        async def work() -> None:
            async with PipeTarget(writer) as target:
                await backup(cluster, "disk", target, snapshot="b", dialect=Dialect.DOG)

        task = asyncio.create_task(work())
        await until(is_full)
        task.cancel()
        await asyncio.wait([task])

        assert task.cancelled()
        assert waiters(cluster) == 0
    assert os.get_blocking(writer)
