"""Crashes at every system call of a restore: the VDI is not there, or unfinished, or right; the next run mends it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncbackup import ClientOptions, Cluster, Volume, WindowOptions, backup, compare, connect, restore
from asyncbackup.errors import NotResumable, UnfinishedExists, VdiExists
from asyncbackup.sheep import MemoryStore, Sheep
from asyncbackup.sheep.store import ClusterConfig, Piece
from asyncbackup.verbs.discard import discard
from tests.crashes import Call, Left, Recorder, detailed_crash
from tests.disks import OBJECT, SHIFT, noise

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_factories=["asyncio"])]

PAGE = 4096
OBJECTS = 4
OPTIONS = ClientOptions(connections=1)
WINDOW = WindowOptions(workers=1)

Held = dict[int, tuple[int, list[Piece]]]
"""The size of each object, and what is no zeros in it."""


def take(store: MemoryStore) -> Held:
    """Copy what a cluster holds."""
    return {oid: (len(view), list(pieces(view))) for oid in store.oids() if (view := store.get(oid)) is not None}


def pieces(view: memoryview) -> Iterator[Piece]:
    for start in range(0, len(view), PAGE):
        page = bytes(view[start : start + PAGE])
        if page.strip(b"\0"):
            yield start, page


def hold(config: ClusterConfig, held: Held) -> MemoryStore:
    """Make a cluster of what was taken of one."""
    store = MemoryStore()
    store.save_config(config)
    for oid, (size, data) in held.items():
        store.put(oid, size, data)
    return store


class Moments(list[Call]):
    """Calls, and what the cluster held at each."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.held = [take(store)]

    def append(self, call: Call) -> None:
        super().append(call)
        self.held.append(take(self._store))


async def make_backup(cluster: Cluster, file: Path) -> None:
    await cluster.create_vdi("disk", OBJECTS * OBJECT, block_size_shift=SHIFT)
    volume = await Volume.open(cluster, "disk")
    for idx in range(OBJECTS):
        await volume.write(idx * OBJECT + 4096 * idx, noise(idx, 8192))
    await cluster.create_snapshot("disk", "a")
    await backup(cluster, "disk", file, snapshot="a")


async def restore_again(cluster: Cluster, file: Path, journal: Path) -> None:
    """Do what a person does after a crash, with what the messages say."""
    try:
        await restore(cluster, [file], "new", resume=True, journal=journal, checkpoint_bytes=1, options=WINDOW)
    except (NotResumable, UnfinishedExists):
        await discard(cluster, "new", journal=journal)
        await restore(cluster, [file], "new", journal=journal, options=WINDOW)
    except VdiExists:
        pass  # It is complete. The caller checks that.


async def test_a_crash_at_any_time_leaves_what_leads_to_the_same_vdi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, file, store = tmp_path / "folder", tmp_path / "file", MemoryStore()
    journal = folder / "journal"
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr("asyncbackup.verbs.discard._WATCH_S", 0.0)
    before = Left((), ())
    before.make(folder)
    async with Sheep(store) as sheep, connect(sheep.host, sheep.port, OPTIONS) as cluster:
        await make_backup(cluster, file)
        with monkeypatch.context() as patched:
            recorder = Recorder(patched, folder)
            recorder.calls = moments = Moments(store)
            await restore(cluster, [file], "new", journal=journal, checkpoint_bytes=1, options=WINDOW)
    config = store.load_config()
    assert config is not None
    assert len(moments) > 8

    # What comes after a call happens in the cluster alone, until the next call.
    cases = {
        (left, at)
        for count in range(len(moments) + 1)
        for left in detailed_crash(before, moments[:count])
        for at in {count, min(count + 1, len(moments))}
    }
    assert len(cases) > 30
    for left, at in cases:
        left.make(folder)
        async with Sheep(hold(config, moments.held[at])) as sheep, connect(sheep.host, sheep.port, OPTIONS) as cluster:
            await restore_again(cluster, file, journal)
            assert (await compare(cluster, [file], "new")).is_good, left.names
        assert not journal.exists(), left.names
