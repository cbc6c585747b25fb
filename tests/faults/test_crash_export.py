"""Crashes at every system call of an export: the image is not there, or right, and the next run makes it right."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asyncbackup import ClientOptions, Volume, WindowOptions, backup, connect, export
from asyncbackup.errors import TargetExists
from asyncbackup.sheep import MemoryStore, Sheep
from tests.crashes import Left, Recorder, detailed_crashes
from tests.disks import OBJECT, SHIFT, noise

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_factories=["asyncio"])]


async def make_backup(file: Path) -> bytes:
    """Back up a small disk; give what it holds."""
    content = bytearray(4 * OBJECT)
    async with Sheep(MemoryStore()) as sheep, connect(sheep.host, sheep.port, ClientOptions(connections=1)) as cluster:
        await cluster.create_vdi("disk", len(content), block_size_shift=SHIFT)
        volume = await Volume.open(cluster, "disk")
        for idx in range(4):
            at = idx * OBJECT + 4096 * idx
            content[at : at + 8192] = noise(idx, 8192)
            await volume.write(at, noise(idx, 8192))
        await cluster.create_snapshot("disk", "a")
        await backup(cluster, "disk", file, snapshot="a")
    return bytes(content)


@pytest.mark.parametrize("checkpoint_bytes", [1, 10000])
async def test_a_crash_at_any_time_leaves_what_leads_to_the_same_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint_bytes: int
) -> None:
    folder, file = tmp_path / "folder", tmp_path / "file"
    expected = await make_backup(file)
    monkeypatch.setattr(os, "fsync", lambda _: None)

    async def run(*, resume: bool = True) -> None:
        options = WindowOptions(workers=1)
        await export([file], folder / "image", options=options, checkpoint_bytes=checkpoint_bytes, resume=resume)

    before = Left((), ())
    before.make(folder)
    with monkeypatch.context() as patched:
        recorder = Recorder(patched, folder)
        await run(resume=False)
    found = detailed_crashes(before, recorder.calls, ".image.partial.journal")

    assert len(found) > 30
    for left in found:
        left.make(folder)
        image = folder / "image"
        assert not image.exists() or image.read_bytes() == expected, left.names
        try:
            await run()
        except TargetExists:
            assert image.exists()
        assert image.read_bytes() == expected, left.names
        assert {path.name for path in folder.iterdir()} <= {"image", "image.state"}, left.names
