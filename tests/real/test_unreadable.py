"""Objects that real nodes have lost or changed: one of two copies, and both."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncbackup import Volume, connect
from tests.clusters import MISSING, RealCluster
from tests.folders import left_in

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.skipif(bool(MISSING), reason=MISSING)]

OBJECT_SIZE = 4 << 20
OBJECTS = 6


@pytest.fixture
def damaged(tmp_path: Path) -> Iterator[RealCluster]:
    """Three nodes with two copies of VDI ``disk``, each object full of its number, and a snapshot ``s`` of it."""
    with RealCluster(tmp_path / "cluster", nodes=3, copies=2) as cluster:

        async def fill() -> None:
            async with connect("127.0.0.1", cluster.port) as connected:
                await connected.create_vdi("disk", OBJECTS * OBJECT_SIZE)
                volume = await Volume.open(connected, "disk")
                for idx in range(OBJECTS):
                    await volume.write(idx * OBJECT_SIZE, bytes([idx + 1]) * OBJECT_SIZE)
                await connected.create_snapshot("disk", "s")

        asyncio.run(fill())
        yield cluster


def copies_of(folder: Path, idx: int) -> list[Path]:
    """Find the files in which the nodes keep a data object; those of inodes begin with another digit."""
    found = sorted((folder / "cluster").glob(f"store*/obj/0*{idx:08x}"))
    assert len(found) == 2
    return found


def test_a_copy_that_is_gone_or_other_is_named_with_its_node(damaged: RealCluster, tmp_path: Path) -> None:
    file = tmp_path / "file"
    assert damaged.asyncbackup("backup", "-s", "s", "disk", file).returncode == 0
    good = damaged.asyncbackup("verify", file, "--against", "disk", "--all-replicas")
    assert (good.returncode, b"read 12 copies of 6 objects: all the same" in good.stdout) == (0, True), good

    changed, gone = copies_of(tmp_path, 1)[0], copies_of(tmp_path, 4)[0]
    changed.write_bytes(b"\xee" * OBJECT_SIZE)
    gone.unlink()

    told = json.loads(damaged.asyncbackup("verify", file, "--against", "disk", "--all-replicas", "--json").stdout)[
        "against"
    ]["replicas"]
    assert (told["objects"], told["replicas"], told["diverging"]) == (6, 12, 2)
    other, lost = told["named"]
    assert (other["idx"], lost["idx"]) == (1, 4)
    assert len({replica["digest"] for replica in other["replicas"]}) == 2
    [problem] = [replica for replica in lost["replicas"] if replica["problem"]]
    port = damaged.ports[int(gone.parts[-3].removeprefix("store"))]
    assert problem["node"] in {f"127.0.0.1:{port}", f"localhost:{port}"}
    assert (problem["digest"], problem["problem"]) == (None, "no such object")


def test_one_copy_of_each_object_is_enough_for_a_backup(damaged: RealCluster, tmp_path: Path) -> None:
    for idx in range(OBJECTS):
        copies_of(tmp_path, idx)[idx % 2].unlink()

    made = damaged.asyncbackup("backup", "-s", "s", "disk", tmp_path / "file")

    assert made.returncode == 0, made
    assert damaged.asyncbackup("verify", tmp_path / "file", "--against", "disk").returncode == 0


def test_objects_without_any_copy_are_named_or_left_out(damaged: RealCluster, tmp_path: Path) -> None:
    for idx in (2, 3):
        for copy in copies_of(tmp_path, idx):
            copy.unlink()

    failed = damaged.asyncbackup("backup", "-s", "s", "disk", tmp_path / "file")
    assert (failed.returncode, b"2 objects cannot be read: 2, 3;" in failed.stderr) == (1, True), failed
    assert left_in(tmp_path) == ["cluster"]

    made = damaged.asyncbackup("backup", "-s", "s", "disk", tmp_path / "file", "--skip-unreadable", "--json")
    assert (made.returncode, json.loads(made.stdout)["missing"]) == (1, [2, 3]), made
    assert damaged.asyncbackup("restore", tmp_path / "file", "--to", "new").returncode == 1
    assert damaged.asyncbackup("restore", tmp_path / "file", "--to", "new", "--allow-incomplete").returncode == 0
    image = damaged.dog("vdi", "read", "new")
    expected = [bytes([0 if idx in (2, 3) else idx + 1]) for idx in range(OBJECTS)]
    assert image == b"".join(byte * OBJECT_SIZE for byte in expected)
