"""Three real nodes, of which one dies or hangs while a verb works; each object has two copies."""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from asyncbackup import Cluster, Volume, backup, compare, connect, connect_any, restore
from asyncbackup.engine.progress import OnProgress, Progress
from asyncbackup.wire.oid import data_oid
from tests.clusters import MISSING, RealCluster

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(MISSING), reason=MISSING),
]

OBJECT = 4 << 20
OBJECTS = 16


@dataclass
class Scene:
    """A cluster with a VDI and two snapshots of it, and their backups."""

    cluster: RealCluster
    full: Path
    increment: Path

    def gateway(self, node: int) -> tuple[str, int]:
        return "127.0.0.1", self.cluster.ports[node]

    def harm_at(self, moment: int, harm: str, node: int) -> OnProgress:
        """Have a node die or hang when so many objects are done."""
        is_done = False

        def tell(progress: Progress) -> None:
            nonlocal is_done
            if not is_done and progress.objects_done >= moment:
                is_done = True
                self.cluster.kill(node) if harm == "kill" else self.cluster.stop(node)

        return tell


async def fill(cluster: Cluster) -> None:
    content = random.Random(5).randbytes(OBJECT)
    await cluster.create_vdi("disk", OBJECTS * OBJECT)
    volume = await Volume.open(cluster, "disk")
    for idx in range(OBJECTS):
        await volume.write(idx * OBJECT, content)
    await cluster.create_snapshot("disk", "a")
    volume = await Volume.open(cluster, "disk")
    for idx in range(OBJECTS):
        await volume.write(idx * OBJECT + 4096 * idx, content[:70000])
    await cluster.create_snapshot("disk", "b")


@contextmanager
def made(folder: Path) -> Iterator[Scene]:
    with RealCluster(folder / "cluster", nodes=3, copies=2) as cluster:
        scene = Scene(cluster, folder / "full", folder / "increment")

        async def begin() -> None:
            async with connect(*scene.gateway(0)) as opened:
                await fill(opened)
                await backup(opened, "disk", scene.full, snapshot="a")
                await backup(opened, "disk", scene.increment, snapshot="b", base="a")

        anyio.run(begin)
        yield scene


@pytest.mark.parametrize("harm", ["kill", "stop"])
@pytest.mark.parametrize("node", [0, 1, 2])
def test_a_backup_survives_any_node(tmp_path: Path, harm: str, node: int) -> None:
    with made(tmp_path) as scene:

        async def work() -> None:
            async with connect(*scene.gateway(0)) as cluster:
                tell = scene.harm_at(1 + 3 * node, harm, node)
                await backup(cluster, "disk", tmp_path / "again", snapshot="b", base="a", on_progress=tell)

        anyio.run(work)

        assert (tmp_path / "again").read_bytes() == scene.increment.read_bytes()


@pytest.mark.parametrize("harm", ["kill", "stop"])
@pytest.mark.parametrize("node", [0, 1, 2])
def test_a_comparison_survives_any_node(tmp_path: Path, harm: str, node: int) -> None:
    with made(tmp_path) as scene:

        async def work() -> bool:
            async with connect(*scene.gateway(0)) as cluster:
                tell = scene.harm_at(1 + 3 * node, harm, node)
                return (await compare(cluster, [scene.full, scene.increment], "disk", "b", on_progress=tell)).is_good

        assert anyio.run(work)


@pytest.mark.parametrize("node", [0, 1, 2])
def test_a_restore_survives_any_node(tmp_path: Path, node: int) -> None:
    with made(tmp_path) as scene:

        async def work() -> bool:
            async with connect(*scene.gateway(0)) as cluster:
                tell = scene.harm_at(1 + 3 * node, "kill", node)
                await restore(cluster, [scene.full, scene.increment], "copy", on_progress=tell)
            left = [scene.gateway(other) for other in range(3) if other != node]
            async with connect_any(left) as cluster:
                return (await compare(cluster, [scene.full, scene.increment], "copy")).is_good

        assert anyio.run(work)


def locate(real: RealCluster, idx: int) -> set[int]:
    """Ask dog for the ports of the nodes that have an object."""
    told = subprocess.run(
        ["dog", "vdi", "object", "location", "-p", str(real.port), "-i", str(idx), "disk"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return {int(port) for port in re.findall(r":(\d+)", told.partition("located at")[2])}


def test_objects_are_where_the_ring_says(tmp_path: Path) -> None:
    with RealCluster(tmp_path, nodes=3, copies=2) as real:
        real.dog("vdi", "create", "-P", "disk", "400M")

        async def holders() -> list[set[int]]:
            async with connect("127.0.0.1", real.port) as cluster:
                vdi = await cluster.find_vdi("disk")
                placement = cluster.nodes.placement
                return [{port for _, port in placement.holders(data_oid(vdi.vdi_id, idx))} for idx in range(100)]

        for idx, ours in enumerate(anyio.run(holders)):
            assert ours == locate(real, idx)
