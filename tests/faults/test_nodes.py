"""Three embedded nodes, of which one is lost, hangs or comes back while a verb works; each object has two copies."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from asyncbackup import ClientOptions, Cluster, Volume, backup, compare, connect_any, restore
from asyncbackup.errors import AsyncBackupError
from asyncbackup.sheep import SheepCluster
from asyncbackup.wire.messages import RequestHeader
from tests.waiting import turn

pytestmark = pytest.mark.slow

OBJECT = 4 << 20
OBJECTS = 8
OPTIONS = ClientOptions(request_timeout_s=30, give_up_after_s=30, retry_delay_s=0.001)

Verb = Callable[["Scene", Cluster], Awaitable[None]]


@dataclass
class Scene:
    """A cluster with a VDI and two snapshots of it, backups of them, and what happens at which request."""

    folder: Path
    sheep: SheepCluster = field(init=False)
    requests: int = 0
    moment: int = 0
    """The request, counted from when ``requests`` was set to 0, at which ``harm`` is done; 0: none."""
    harm: Callable[[], None] = lambda: None

    @property
    def full(self) -> Path:
        return self.folder / "full"

    @property
    def increment(self) -> Path:
        return self.folder / "increment"

    def on_request(self, _node: int, _request: RequestHeader) -> None:
        self.requests += 1
        if self.requests == self.moment:
            self.harm()

    async def begin(self) -> None:
        content = random.Random(5).randbytes(9000)
        async with self.connected() as cluster:
            await cluster.create_vdi("disk", OBJECTS * OBJECT)
            volume = await Volume.open(cluster, "disk")
            for idx in range(OBJECTS):
                await volume.write(idx * OBJECT + 512 * idx, content)
            await cluster.create_snapshot("disk", "a")
            volume = await Volume.open(cluster, "disk")
            for idx in range(0, OBJECTS, 2):
                await volume.write(idx * OBJECT + 8192 * idx, content[::-1])
            await cluster.create_snapshot("disk", "b")
            await backup(cluster, "disk", self.full, snapshot="a")
            await backup(cluster, "disk", self.increment, snapshot="b", base="a")

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Cluster]:
        async with connect_any(self.sheep.addresses, OPTIONS) as cluster:
            yield cluster


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Scene]:
    scene = Scene(folder)
    async with SheepCluster(3, copies=2, on_request=scene.on_request) as scene.sheep:
        await scene.begin()
        yield scene
    # The stores are large, and the collector counts objects.
    gc.collect()


async def back_up(scene: Scene, cluster: Cluster) -> None:
    made = scene.folder / "again"
    await backup(cluster, "disk", made, snapshot="b", base="a")
    assert contents(made) == contents(scene.increment)


def contents(file: Path) -> tuple[bytes, bytes]:
    """Give what a backup and its manifest hold."""
    return file.read_bytes(), Path(f"{file}.manifest").read_bytes()


async def compare_it(scene: Scene, cluster: Cluster) -> None:
    assert (await compare(cluster, [scene.full, scene.increment], "disk", "b")).is_good


async def bring_back(scene: Scene, cluster: Cluster) -> None:
    await restore(cluster, [scene.full, scene.increment], "copy")
    scene.moment = 0
    async with scene.connected() as anew:
        assert (await compare(anew, [scene.full, scene.increment], "copy")).is_good


VERBS = {"backup": back_up, "verify": compare_it, "restore": bring_back}


async def run(scene: Scene, verb: Verb, moment: int, harm: Callable[[], None]) -> int:
    """Run a verb from its connection on, with something happening at a request; give how many requests there were."""
    scene.requests, scene.moment, scene.harm = 0, moment, harm
    async with scene.connected() as cluster:
        await verb(scene, cluster)
    return scene.requests


@pytest.mark.parametrize("node", range(3))
@pytest.mark.parametrize("harm", ["kill", "cut"])
@pytest.mark.parametrize("verb", VERBS)
async def test_a_run_survives_the_loss_of_a_node_at_any_request(
    tmp_path: Path, verb: str, harm: str, node: int
) -> None:
    moment, requests = 1 + 3 * node, 1000
    while moment < requests:
        folder = tmp_path / str(moment)
        folder.mkdir()
        async with served(folder) as scene:
            try:
                requests = await run(scene, VERBS[verb], moment, lambda: getattr(scene.sheep, harm)(node))
            except AsyncBackupError as error:
                error.add_note(f"at request {moment}")
                raise
        moment += 11


@pytest.mark.parametrize("node", range(3))
@pytest.mark.parametrize("verb", VERBS)
async def test_a_run_survives_a_node_that_dies_and_comes_back(tmp_path: Path, verb: str, node: int) -> None:
    gone = asyncio.Event()

    async with served(tmp_path) as scene, asyncio.TaskGroup() as group:

        def die() -> None:
            scene.sheep.kill(node)
            gone.set()

        async def come_back() -> None:
            await gone.wait()
            await scene.sheep.restart(node)

        group.create_task(come_back())
        await run(scene, VERBS[verb], 20, die)

        assert scene.sheep._cluster.membership.epoch == 3


@pytest.mark.parametrize("node", range(3))
@pytest.mark.parametrize("verb", ["backup", "verify"])
async def test_a_run_that_reads_survives_a_node_that_hangs(tmp_path: Path, verb: str, node: int) -> None:
    async with served(tmp_path) as scene:
        await run(scene, VERBS[verb], 25, lambda: scene.sheep.stall(node))


@pytest.mark.parametrize("node", range(3))
async def test_a_restore_waits_for_a_node_that_hangs(tmp_path: Path, node: int) -> None:
    hangs = asyncio.Event()

    async with served(tmp_path) as scene, asyncio.TaskGroup() as group:

        def hang() -> None:
            scene.sheep.stall(node)
            hangs.set()

        async def go_on() -> None:
            await hangs.wait()
            await turn(500)
            assert not restored.done()
            scene.sheep.resume(node)

        group.create_task(go_on())
        restored = group.create_task(run(scene, bring_back, 12, hang))
