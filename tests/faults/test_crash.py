"""Crashes at every system call of a backup: what is left is the old state, the new one, or can be gone on with.

Unflushed writes are lost, torn or reordered, and so are changes of names. Whatever is left, the next run comes to the
result of a run without a crash, and FILE is never a wrong one.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from asyncbackup import ClientOptions, Cluster, Dialect, Layers, Volume, WindowOptions, backup, connect
from asyncbackup.errors import HalfReplaced, TargetExists
from asyncbackup.sheep import MemoryStore, Sheep
from asyncbackup.storage import partial, zstd_frames, zstd_target
from asyncbackup.storage.backup_source import find_manifest
from tests.crashes import Left, Recorder, detailed_crashes, take
from tests.disks import OBJECT, SHIFT, noise

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_factories=["asyncio"])]

SURE: Final = ".file.partial.manifest"
"""What it surely holds, none of that may be done again."""

CHANGED: Final = 8
"""Objects that differ."""

LENGTH: Final = 72 << 10
"""Bytes of a record: just so long that it is written at once, and not together with others."""

CHECKPOINT: Final = 3 * LENGTH
"""Bytes between two checkpoints, so that several writes in a row are not flushed."""

FRAME: Final = 16 << 10
"""Bytes of content in a frame, where there are frames. A record has some."""


@dataclass
class Scene:
    """A backup of what changed in a disk, to ``file`` in ``folder``, with some checkpoints."""

    cluster: Cluster
    folder: Path
    dialect: Dialect = Dialect.COLLIE
    layers: Layers | None = None
    replace: bool = False
    expected: dict[str, bytes] = field(default_factory=dict)
    old: dict[str, bytes] = field(default_factory=dict)

    async def run(self, **arguments: Any) -> int:
        """Back up; give how many bytes were there already."""
        summary = await backup(
            self.cluster,
            "disk",
            self.folder / "file",
            snapshot="b",
            base="a",
            dialect=self.dialect,
            layers=self.layers,
            options=WindowOptions(workers=1),
            checkpoint_bytes=CHECKPOINT,
            replace=self.replace,
            **arguments,
        )
        return summary.bytes_resumed

    def contents(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}

    def set_up(self) -> Left:
        """Put only the old files there."""
        Left((), ()).make(self.folder)
        for name, content in self.old.items():
            (self.folder / name).write_bytes(content)
        return take(self.folder)

    def see(self) -> dict[str, bytes] | None:
        """Give what a reader takes for a backup and its manifest; None if it is told that they do not go together."""
        file = self.folder / "file"
        if not file.exists():
            return {}
        try:
            manifest = find_manifest(file)
        except HalfReplaced:
            return None
        seen = {"file": file.read_bytes()}
        return seen | ({"file.manifest": manifest.read_bytes()} if manifest else {})

    async def finish(self) -> int | None:
        """Go on with whatever is there; None: it is complete, and the run says that it exists."""
        try:
            return await self.run(resume=True)
        except TargetExists:
            return None

    def length_of(self, lines: bytes) -> int:
        """Give how many bytes the data has of which so much of the manifest speaks; 0 without a record."""
        records = lines.count(b"\n") - 1 - lines.count(b'{"records"')
        if self.layers:
            # The last one may end in a frame that is not there yet.
            records -= 1
        return len(self.dialect.opening) + records * (16 + LENGTH) if records > 0 else 0

    async def check(self, left: Left, sure: bytes) -> None:
        """Raise AssertionError unless ``left`` leads to the result of a run that was not interrupted."""
        left.make(self.folder)
        assert self.see() in (None, self.old, self.expected), left.names
        resumed = await self.finish()
        assert self.contents() == self.expected, left.names
        names = dict(left.names)
        if SURE in names and ".file.partial" in names and names[".file.partial"] != names.get("file"):
            assert resumed is not None
            assert resumed >= self.length_of(sure), left.names


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with Sheep(MemoryStore()) as sheep, connect(sheep.host, sheep.port, ClientOptions(connections=1)) as cluster:
        await cluster.create_vdi("disk", 8 * OBJECT, block_size_shift=SHIFT)
        await (await Volume.open(cluster, "disk")).write(0, noise(1, 8 * OBJECT))
        await cluster.create_snapshot("disk", "a")
        volume = await Volume.open(cluster, "disk")
        for idx in range(CHANGED):
            await volume.write(idx * OBJECT + 4096 * idx, noise(idx, LENGTH))
        await cluster.create_snapshot("disk", "b")
        yield cluster


@pytest.fixture(params=["new", "dog", "zstd", "replaced", "without links"])
async def scene(
    request: pytest.FixtureRequest, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Scene:
    """A scene of which the result is known. Nothing is flushed really: that only takes time."""
    made = Scene(cluster, tmp_path / "folder", Dialect.DOG if request.param in ("dog", "zstd") else Dialect.COLLIE)
    if request.param == "zstd":
        made.layers = Layers(zstd_level=1, threads=1)
        for module in (partial, zstd_frames, zstd_target):
            monkeypatch.setattr(module, "FRAME_SIZE", FRAME)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    if request.param == "without links":

        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(os, "link", refuse)
    made.set_up()
    await made.run()
    made.expected = made.contents()
    if request.param == "replaced":
        made.replace, made.old = True, {"file": b"old data", "file.manifest": b"old proof"}
    return made


async def record(scene: Scene, before: Left, monkeypatch: pytest.MonkeyPatch, **arguments: Any) -> dict[Left, bytes]:
    """Run from ``before``, and give all that a crash on the way may leave."""
    before.make(scene.folder)
    with monkeypatch.context() as patched:
        recorder = Recorder(patched, scene.folder)
        await scene.run(**arguments)
    assert scene.contents() == scene.expected
    return detailed_crashes(before, recorder.calls, SURE)


async def test_a_crash_at_any_time_leaves_what_leads_to_the_same_result(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = await record(scene, scene.set_up(), monkeypatch)

    assert len(found) > 100
    for left, sure in found.items():
        await scene.check(left, sure)


async def test_a_crash_while_it_goes_on_does_so_as_well(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await record(scene, scene.set_up(), monkeypatch)
    unfinished = [left for left in first if SURE in dict(left.names) and ".file.partial" in dict(left.names)]
    seen: set[Left] = set()

    for before in random.Random(17).sample(unfinished, 10):
        before.make(scene.folder)
        if await scene.finish() is None:
            continue
        for left in await record(scene, before, monkeypatch, resume=True):
            if left not in seen:
                seen.add(left)
                # What the manifest surely holds is no more than lines: their data may be lost since the first crash.
                await scene.check(left, b"")
    assert len(seen) > 50
