"""Restores into real clusters that kill -9 ends: what is left can be deleted whole, and the base stays as it is."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from asyncbackup import Dialect, Volume, backup, connect
from asyncbackup.client.construction import UNFINISHED_TAG
from tests.clusters import MISSING, RealCluster

pytestmark = [pytest.mark.real, pytest.mark.skipif(bool(MISSING), reason=MISSING)]

MIB = 1 << 20
OBJECT = 4 * MIB
OBJECTS = 24
SIZES = ("--object-size", str(OBJECT), "--size", str(OBJECTS * OBJECT))


@dataclass
class Stage:
    """A cluster with VDI ``vm``, its snapshots a and b, a full backup of a, and an increment from a to b."""

    real: RealCluster
    full: Path
    increment: Path

    def objects(self) -> dict[str, int]:
        """Give the bytes on disk of each data object that the nodes store, all copies together."""
        found: dict[str, int] = {}
        for path in self.real._folder.glob("store*/obj/*"):
            if len(path.name) == 16 and int(path.name, 16) < 1 << 56:
                try:
                    found[path.name] = found.get(path.name, 0) + path.stat().st_blocks * 512
                except FileNotFoundError:
                    continue
        return found

    def listed(self) -> bytes:
        return self.real.dog("vdi", "list", "-r")

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.005)  # Other processes' files have no other way to say that they changed.

    def discard(self) -> None:
        outcome = self.real.asyncbackup("restore", "--discard", "new")
        assert (outcome.returncode, outcome.stderr) == (0, b"")

    def delete(self) -> None:
        self.real.dog("vdi", "delete", "new")

    def kill_after(self, created: int, options: tuple[str | Path, ...], data: Path | None) -> None:
        """Restore VDI ``new``, and kill that when ``created`` more objects are there and the VDI has its mark."""
        before = len(self.objects())
        command = [sys.executable, "-m", "asyncbackup", "restore", "-q", "--in-flight", "1", "-p", str(self.real.port)]
        process = subprocess.Popen([*command, "--to", "new", *map(str, options)], stdin=subprocess.PIPE)
        try:
            if data is not None:
                assert process.stdin is not None
                # Not to its end: so it is still under way, wherever it is killed.
                with_rest = data.read_bytes()
                process.stdin.write(with_rest[: created * OBJECT + 4096])
                process.stdin.flush()
            self.wait_for(lambda: len(self.objects()) >= before + created or process.poll() is not None)
            self.wait_for(lambda: UNFINISHED_TAG.encode() in self.listed() or process.poll() is not None)
        finally:
            process.kill()
            process.communicate()
        assert UNFINISHED_TAG.encode() in self.listed(), "it was killed too late"


async def prepare(real: RealCluster, full: Path, increment: Path) -> None:
    async with connect("127.0.0.1", real.port) as cluster:
        await cluster.create_vdi("vm", OBJECTS * OBJECT)
        volume = await Volume.open(cluster, "vm")
        for idx in range(0, OBJECTS, 2):
            await volume.write(idx * OBJECT, random.Random(idx).randbytes(OBJECT))
        await cluster.create_snapshot("vm", "a")
        volume = await Volume.open(cluster, "vm")
        for idx in range(0, OBJECTS, 3):
            await volume.write(idx * OBJECT + MIB, random.Random(100 + idx).randbytes(3 * MIB))
        await cluster.create_snapshot("vm", "b")
        await backup(cluster, "vm", full, snapshot="a", dialect=Dialect.DOG)
        await backup(cluster, "vm", increment, snapshot="b", base="a", dialect=Dialect.DOG)


@pytest.fixture(scope="module", params=[1, 3], ids=["one node", "three nodes"])
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("killed")
    with RealCluster(folder / "cluster", nodes=request.param, copies=min(request.param, 2)) as real:
        made = Stage(real, folder / "full", folder / "increment")
        asyncio.run(prepare(real, made.full, made.increment))
        yield made


KINDS = ("fresh", "clone", "pipe")
POINTS = {kind: random.Random(kind).sample(range(1, 7), 2) for kind in KINDS}


@pytest.mark.parametrize("remove", [Stage.discard, Stage.delete], ids=["discard", "dog"])
@pytest.mark.parametrize(("kind", "place"), [(kind, place) for kind in KINDS for place in (0, 1)], ids=str)
def test_what_a_killed_restore_left_can_be_removed_whole(
    stage: Stage, kind: str, place: int, remove: Callable[[Stage], None]
) -> None:
    before, listed = stage.objects(), stage.listed()
    images = [stage.real.dog("vdi", "read", "vm", "-s", tag) for tag in ("a", "b")]
    options: dict[str, tuple[str | Path, ...]] = {
        "fresh": (stage.full, stage.increment),
        "clone": (stage.increment, "--base", "a"),
        "pipe": ("-", *SIZES),
    }
    stage.kill_after(POINTS[kind][place], options[kind], stage.full if kind == "pipe" else None)

    remove(stage)

    # dog's deletion is answered before the servers have removed the last objects.
    stage.wait_for(lambda: stage.objects().keys() == before.keys())
    assert stage.objects() == before
    assert stage.listed() == listed
    assert [stage.real.dog("vdi", "read", "vm", "-s", tag) for tag in ("a", "b")] == images


def test_the_base_goes_whole_when_it_is_deleted_after_an_unfinished_clone(stage: Stage) -> None:
    stage.kill_after(2, (stage.increment, "--base", "a"), None)
    stage.discard()

    for tag in ((), ("-s", "b"), ("-s", "a")):
        stage.real.dog("vdi", "delete", "vm", *tag)

    stage.wait_for(lambda: not stage.objects())
