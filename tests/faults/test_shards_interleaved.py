"""Shards, joins and discards that run at the same time, in an order and with troubles that a seed gives.

Whoever reports success must be right, whoever fails must be able to try again, and nothing may be left behind.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from asyncbackup import BaseSnapshot, Cluster, Discarded, Shard, backup, discard, join_shards, restore_shard
from asyncbackup.errors import (
    AsyncBackupError,
    ChangedMeanwhile,
    NotDiscarded,
    NotFound,
    RequestFailed,
    ShardMissing,
    SnapshotExists,
    UnfinishedExists,
    VdiExists,
    VdiInUse,
)
from asyncbackup.sheep import MemoryStore
from asyncbackup.wire.attributes import Attribute
from asyncbackup.wire.constants import Opcode, Result
from asyncbackup.wire.oid import ATTR_BIT
from tests.disks import content_of, make_disk
from tests.interleaved import Simulated, SimulatedLoop, Trouble, World, copy_of, without_threads

pytestmark = pytest.mark.slow

COUNT: Final = 3
SEEDS: Final = (
    # A discard removed the objects of a snapshot that a join reported.
    *(17, 23, 30, 55, 63, 72),
    # A join that came too late overwrote the origin that the one before had written.
    *(426, 487),
    # A discard took back what another one said that removed the VDI.
    2099,
    # A run slept while others went on.
    *(250, 350, 438),
    # Two joins took a snapshot at the same moment.
    282,
    *range(5),
)
Work = Callable[[Cluster], Awaitable[Any]]


@dataclass(frozen=True)
class Original:
    """A disk with two snapshots in a store, the backups of them, and what the second one holds."""

    store: MemoryStore
    files: list[Path]
    content: dict[int, bytes]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Original:
    folder, store = tmp_path_factory.mktemp("backups"), MemoryStore()

    async def make() -> Original:
        cluster = World(store, random.Random(1)).connect()
        await make_disk(cluster)
        await backup(cluster, "disk", folder / "a", snapshot="a")
        await backup(cluster, "disk", folder / "b", snapshot="b", base="a")
        return Original(store, [folder / "a", folder / "b"], await content_of(cluster, "disk", "b"))

    made: Original = run(make)
    return made


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        return await work()

    with pytest.MonkeyPatch.context() as patch, asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        without_threads(patch)
        return runner.run(main())


@dataclass
class Run:
    """One run, and what became of it."""

    name: str
    work: Work
    cluster: Simulated
    starts_s: float
    result: Any = None
    ended_s: float = 0.0

    async def go(self) -> None:
        await asyncio.sleep(self.starts_s)
        try:
            self.result = await self.work(self.cluster)
        except AsyncBackupError as error:
            self.result = error
        self.ended_s = asyncio.get_running_loop().time()

    @property
    def has_failed(self) -> bool:
        return isinstance(self.result, AsyncBackupError)

    @property
    def removes_from_s(self) -> float:
        """When a discard began to remove. Of two discards one may find nothing any more."""
        removals = (Opcode.REMOVE_OBJ, Opcode.DEL_VDI)
        return min((at_s for at_s, message in self.cluster.sent if message.opcode in removals), default=math.inf)


@dataclass
class Attack:
    """What several runs restore together, and how they are troubled."""

    original: Original
    seed: int
    runs: list[Run] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = chance = random.Random(self.seed)
        self.store = copy_of(self.original.store)
        self.world = World(self.store, random.Random(chance.random()), chance.choice([0.02, 0.1, 0.5, 2.0]))
        self.is_clone = chance.random() < 0.5
        spread = chance.choice([0.0, 0.2, 1.0, 6.0])
        starts: list[tuple[str, Work, float]] = [
            (f"shard {number}", self.shard(number), chance.random() * spread) for number in range(1, COUNT + 1)
        ]
        again = [number for number in range(1, COUNT + 1) if chance.random() < 0.3]
        starts += [(f"shard {number} again", self.shard(number), 2 * chance.random() * spread) for number in again]
        starts += [("join", self.join, chance.random() * 12) for _ in range(chance.choice([0, 1, 1, 2]))]
        starts += [("discard", self.discard, chance.random() * 8) for _ in range(chance.choice([0, 1, 1, 2]))]
        troubled = {chance.randrange(len(starts)): self.draw_trouble() for _ in range(chance.choice([0, 1, 1, 1, 2]))}
        for place, (name, work, starts_s) in enumerate(starts):
            self.runs.append(Run(name, work, self.world.connect(troubled.get(place)), starts_s))

    def draw_trouble(self) -> Trouble:
        chance = self.chance
        kind, nth = chance.choice(["error", "lost", "stopped"]), chance.randint(1, chance.choice([10, 30, 60]))
        return Trouble(kind, nth, chance.random() < 0.5, chance.choice([1.5, 4.5, 6.0, 9.0]))

    def given(self, cluster: Cluster) -> tuple[list[Path], BaseSnapshot | None]:
        if self.is_clone:
            return self.original.files[1:], BaseSnapshot(cluster, "a", "disk")
        return self.original.files, None

    def shard(self, number: int) -> Work:
        async def write(cluster: Cluster) -> Any:
            files, base = self.given(cluster)
            return await restore_shard(cluster, files, "new", Shard(number, COUNT), base=base)

        return write

    async def join(self, cluster: Cluster) -> Any:
        files, base = self.given(cluster)
        return await join_shards(cluster, files, "new", COUNT, "b", base=base)

    async def discard(self, cluster: Cluster) -> Any:
        return await discard(cluster, "new")

    async def go(self) -> None:
        async with asyncio.TaskGroup() as group:
            for each in self.runs:
                group.create_task(each.go())
        await asyncio.sleep(10)  # Requests that were given up may be carried out late.

    def check_reports(self) -> None:
        """A discard removes nothing of which another run reports later that it is written, or that it is complete."""
        for discarded in self.runs:
            if isinstance(discarded.result, Discarded):
                for each in self.runs:
                    if each.work != self.discard and not each.has_failed:
                        assert each.result.vdi_id != discarded.result.vdi_id or (
                            each.work != self.join and each.ended_s <= discarded.removes_from_s
                        ), each.name

    def check_errors(self) -> None:
        """Who met no trouble fails for what another did, or was too early."""
        usual = (ShardMissing, NotFound, NotDiscarded, ChangedMeanwhile, VdiExists, UnfinishedExists, SnapshotExists)
        for each in self.runs:
            if each.has_failed and not each.cluster.router.has_met_trouble:
                is_gone = isinstance(each.result, RequestFailed) and each.result.result == Result.NO_VDI
                assert isinstance(each.result, (*usual, VdiInUse)) or is_gone, each.name

    async def complete(self) -> None:
        """Repeat what is missing, as a person would."""
        self.world.slowest_s = 0.001
        cluster = self.world.connect()
        for _ in range(3):
            try:
                await self.join(cluster)
            except ShardMissing as error:
                for number in error.numbers:
                    await self.write_again(cluster, number)
            except VdiExists:
                await self.discard(cluster)
            else:
                return
        pytest.fail("it does not come to an end")

    async def write_again(self, cluster: Cluster, number: int) -> None:
        try:
            await self.shard(number)(cluster)
        except (VdiInUse, UnfinishedExists):
            await self.discard(cluster)
            await self.shard(number)(cluster)

    async def check(self) -> None:
        cluster = self.world.connect()
        for snapshot in (None, "b"):
            assert await content_of(cluster, "new", snapshot) == self.original.content
        assert await content_of(cluster, "disk", "b") == self.original.content
        new = [vdi for vdi in (await cluster.list_vdis()).sound if vdi.name == "new"]
        found = {(vdi.tag, vdi.is_snapshot) for vdi in new}
        if len([each for each in self.runs if each.work == self.join]) > 1:
            found.discard(("", True))  # What a second join may leave, with nothing in it.
        assert found == {("", False), ("b", True)}
        ids = {f"{vdi.vdi_id:x}" for vdi in new}
        assert [key for key in self.find_left() if key.split(".")[2] in ids] == []

    def find_left(self) -> list[str]:
        """Give the attributes of shards that are not empty."""
        troubles = [each.cluster.router.trouble for each in self.runs]
        kinds = {"shards", "shard", "beat"}
        if any(trouble is not None and trouble.kind == "stopped" for trouble in troubles):
            kinds.remove("beat")  # A run that slept may say once more that it works.
        left = []
        for oid in self.store.oids():
            if oid & ATTR_BIT and (content := self.store.get(oid)) is not None:
                found = Attribute.unpack(content)
                if found.value and found.key.split(".")[1] in kinds:
                    left.append(found.key)
        return left


@pytest.mark.parametrize("seed", SEEDS)
def test_runs_in_any_order_come_to_one_vdi(original: Original, seed: int) -> None:
    async def attack() -> None:
        attack = Attack(original, seed)
        await attack.go()
        attack.check_reports()
        attack.check_errors()
        await attack.complete()
        await attack.check()

    run(attack)
