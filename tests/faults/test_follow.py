"""A replica whose following is stopped anywhere: the same command finishes it, and no snapshot changes."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from asyncbackup import ClientOptions, Cluster, Volume, backup, compare, connect, follow, restore
from asyncbackup.engine.lineage import read_applying, read_origin
from asyncbackup.errors import AsyncBackupError, BackupsMissing, ChangedMeanwhile, HalfApplied, PartlyApplied, VdiInUse
from asyncbackup.format.identity import time_text
from asyncbackup.sheep import Fault, MemoryStore, Sheep
from asyncbackup.sheep.faults import Action, Error, Reset
from asyncbackup.wire.constants import Result
from asyncbackup.wire.inode import SIZE_OFFSET, TABLE_OFFSET
from asyncbackup.wire.oid import inode_oid, is_data, vdi_of
from tests.disks import OBJECT, SHIFT, noise
from tests.faults.steps import WAYS, Cancel, run_cancelled
from tests.holding import unanswered
from tests.property.test_restore import working_image
from tests.waiting import turn, until

OPTIONS = ClientOptions(connections=2, request_timeout_s=10, give_up_after_s=0)
RELEVANT = TABLE_OFFSET + 4096
"""Bytes of an inode that are not zeros for ever."""


@dataclass
class Nights:
    """A cluster with VDI disk, and with its replica as of snapshot a; two nights to apply to that, and one after it."""

    store: MemoryStore
    ab: Path
    bc: Path
    cd: Path
    replica_id: int
    """Id of snapshot a of the replica."""
    images: dict[str, bytes]

    @asynccontextmanager
    async def served(self, *faults: Fault) -> AsyncIterator[Served]:
        """Serve a copy of the cluster."""
        copy = MemoryStore()
        config = self.store.load_config()
        assert config is not None
        copy.save_config(config)
        for oid in self.store.oids():
            view = self.store.get(oid)
            assert view is not None
            copy.put(oid, view.nbytes, [(0, view if view.nbytes <= OBJECT else view[:RELEVANT])])
        async with Sheep(copy, faults=faults) as sheep, connect(sheep.host, sheep.port, OPTIONS) as cluster:
            yield Served(self, copy, sheep, cluster)


@dataclass
class Served:
    """A copy of the cluster of ``nights``, and a client of it."""

    nights: Nights
    store: MemoryStore
    sheep: Sheep
    cluster: Cluster

    async def apply(self, cluster: Cluster | None = None) -> None:
        await follow(cluster or self.cluster, [self.nights.ab, self.nights.bc], "replica", snapshot="c")

    def frozen(self) -> dict[int, bytes]:
        """Give what snapshot a of the replica consists of."""
        oids = [oid for oid in self.store.oids() if vdi_of(oid) == self.nights.replica_id]
        views = {oid: self.store.get(oid) for oid in oids if is_data(oid) or oid == inode_oid(self.nights.replica_id)}
        return {oid: bytes(view[:OBJECT]) for oid, view in views.items() if view is not None}

    async def check_interrupted(self) -> None:
        """Expect a replica that is as before, or is half written and kept from everybody, or has it all."""
        inode = await self.cluster.find_vdi("replica")
        if await read_applying(self.cluster, inode) is None:
            images = self.nights.images
            assert await working_image(self.cluster, "replica") in (images["a"], images["c"])
            return
        with pytest.raises(HalfApplied):
            await compare(self.cluster, [self.nights.ab], "replica")
        with pytest.raises(HalfApplied):
            await follow(self.cluster, [self.nights.ab], "replica", snapshot="c")

    async def check_whole(self) -> None:
        """Expect snapshot c on top of a, and the working VDI on top of c."""
        assert await working_image(self.cluster, "replica") == self.nights.images["c"]
        working = await self.cluster.find_vdi("replica")
        c = await self.cluster.find_vdi("replica", "c")
        assert (working.parent_vdi_id, c.parent_vdi_id) == (c.vdi_id, self.nights.replica_id)
        origin = await read_origin(self.cluster, c)
        assert origin is not None
        assert (origin.snapshot, origin.identity.tag) == (time_text(c.snap_ctime), "c")
        for inode in (working, c):
            assert await read_applying(self.cluster, inode) is None


async def quiet(cluster: Cluster) -> None:
    """Return when no request is under way any more."""
    await until(lambda: unanswered(*cluster.nodes._nodes.values()) == 0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What watches another run watches as long as it takes to ask twice."""
    monkeypatch.setattr("asyncbackup.engine.journal._WATCH_S", 0)
    monkeypatch.setattr("asyncbackup.engine.journal._BEAT_S", 0.002)


@pytest.fixture
async def nights(tmp_path: Path) -> Nights:
    """The disk becomes smaller in the first night, and larger than it was in the second."""
    store, images = MemoryStore(), {}
    async with Sheep(store) as sheep, connect(sheep.host, sheep.port, OPTIONS) as cluster:
        await cluster.create_vdi("disk", 3 * OBJECT, block_size_shift=SHIFT)

        async def night(tag: str, base: str | None, size: int, *writes: tuple[int, bytes]) -> Path:
            inode = await cluster.find_vdi("disk")
            await cluster.write_object(inode_oid(inode.vdi_id), size.to_bytes(8, "little"), SIZE_OFFSET, copies=1)
            if base == "a":
                await cluster.write_object(inode_oid(inode.vdi_id), bytes(4), TABLE_OFFSET + 8, copies=1)
            volume = await Volume.open(cluster, "disk")
            for offset, data in writes:
                await volume.write(offset, data)
            images[tag] = await working_image(cluster, "disk")
            await cluster.create_snapshot("disk", tag)
            await backup(cluster, "disk", tmp_path / tag, snapshot=tag, base=base)
            return tmp_path / tag

        full = await night("a", None, 3 * OBJECT, (0, noise(1, 3 * OBJECT)))
        ab = await night("b", "a", 2 * OBJECT - 512, (OBJECT - 512, noise(2, 1024)))
        bc = await night("c", "b", 4 * OBJECT, (OBJECT + 4096, noise(3, 512)), (3 * OBJECT + 512, noise(4, 512)))
        cd = await night("d", "c", 4 * OBJECT, (0, noise(5, 512)))
        await restore(cluster, [full], "replica", snapshot="a")
        return Nights(store, ab, bc, cd, (await cluster.find_vdi("replica", "a")).vdi_id, images)


async def test_the_nights_are_applied_where_nothing_stops_them(nights: Nights) -> None:
    async with nights.served() as served:
        frozen = served.frozen()
        assert len(frozen) == 4
        await served.apply()
        await served.check_whole()
        assert served.frozen() == frozen
        await follow(served.cluster, [nights.cd], "replica", snapshot="d")
        assert await working_image(served.cluster, "replica") == nights.images["d"]


@pytest.mark.slow
@pytest.mark.parametrize(("cancel", "first"), list(zip(WAYS, (0, 4), strict=True)), ids=["task", "scope"])
async def test_what_was_cancelled_at_any_step_is_finished_by_the_same_command(
    nights: Nights, cancel: Cancel, first: int
) -> None:
    # Each way at every eighth step, since this takes long. What takes over is cancelled as well.
    for at in itertools.count(first, 8):
        async with nights.served() as served:
            frozen, cluster = served.frozen(), served.cluster
            was_cut = await run_cancelled(cancel, served.apply, at)
            for _ in range(2):
                await quiet(cluster)
                await served.check_interrupted()
                assert served.frozen() == frozen, at
                await run_cancelled(cancel, served.apply, at)

            await served.apply()
            await served.check_whole()
            assert served.frozen() == frozen, at
        if not was_cut:
            break
    assert at > 8, "there were steps to be cancelled at"


@pytest.mark.slow
@pytest.mark.parametrize(("action", "first"), [(Reset(), 2), (Error(Result.EIO), 3)], ids=["reset", "error"])
async def test_what_failed_at_any_request_is_finished_by_the_same_command(
    nights: Nights, action: Action, first: int
) -> None:
    # Number 1 connects. Each action at every other request, since this takes long.
    for nth in itertools.count(first, 2):
        async with nights.served(Fault(action, nth=nth)) as served:
            frozen = served.frozen()
            with suppress(AsyncBackupError):
                await served.apply()
            if sum(served.sheep.requests.values()) < nth:
                break

            await served.check_interrupted()
            assert served.frozen() == frozen, nth
            await served.apply()
            await served.check_whole()
            assert served.frozen() == frozen, nth
    assert nth > 30, "there were requests to fail"


@pytest.mark.parametrize("turns", range(0, 160, 32))
async def test_of_two_that_apply_different_backups_at_a_time_one_is_refused(nights: Nights, turns: int) -> None:
    ends: dict[str, AsyncBackupError | None] = {}

    async def apply(cluster: Cluster, tag: str, files: list[Path]) -> None:
        try:
            await follow(cluster, files, "replica", snapshot=tag)
        except AsyncBackupError as error:
            ends[tag] = error
        else:
            ends[tag] = None

    async with nights.served() as served, served.cluster.connected_anew() as other:
        frozen = served.frozen()
        async with anyio.create_task_group() as group:
            group.start_soon(apply, served.cluster, "c", [nights.ab, nights.bc])
            await turn(turns)
            group.start_soon(apply, other, "b", [nights.ab])

        (winner,) = [tag for tag, error in ends.items() if error is None]
        (refusal,) = [error for error in ends.values() if error is not None]
        assert isinstance(refusal, HalfApplied | VdiInUse | ChangedMeanwhile | BackupsMissing | PartlyApplied)
        assert not isinstance(refusal, HalfApplied) or refusal.cause is None
        assert await working_image(served.cluster, "replica") == nights.images[winner]
        snapshot = await served.cluster.find_vdi("replica", winner)
        working = await served.cluster.find_vdi("replica")
        assert (working.parent_vdi_id, snapshot.parent_vdi_id) == (snapshot.vdi_id, nights.replica_id)
        assert served.frozen() == frozen
        for inode in (snapshot, working):
            assert await read_applying(served.cluster, inode) is None
