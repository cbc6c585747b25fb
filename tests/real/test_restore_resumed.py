"""Restores into a real cluster that kill -9 ends, and that go on: the VDI is what was backed up."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from asyncbackup import Volume, backup, connect
from tests.cli.command import start
from tests.clusters import MISSING, RealCluster
from tests.folders import left_in

pytestmark = [pytest.mark.real, pytest.mark.skipif(bool(MISSING), reason=MISSING)]

MIB: Final = 1 << 20
SIZE: Final = 64 * MIB
KILLS: Final = 6


@pytest.fixture(scope="module", params=[1, 3], ids=["one node", "three nodes"])
def real(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RealCluster, Path]]:
    folder = tmp_path_factory.mktemp("resumed")
    (folder / "files").mkdir()

    async def fill(port: int) -> None:
        async with connect("127.0.0.1", port) as client:
            await client.create_vdi("vm", SIZE)
            for tag, base in (("a", None), ("b", "a")):
                volume = await Volume.open(client, "vm")
                for at in range(0, SIZE, 4 * MIB):
                    await volume.write(at + 4096, random.Random(f"{tag}{at}").randbytes(3 * MIB))
                await client.create_snapshot("vm", tag)
                await backup(client, "vm", folder / "files" / tag, snapshot=tag, base=base)

    with RealCluster(folder / "cluster", nodes=request.param, copies=min(request.param, 2)) as made:
        asyncio.run(fill(made.port))
        yield made, folder / "files"


@pytest.mark.parametrize("options", [("a", "b"), ("b", "--base", "a")], ids=["whole", "clone"])
def test_what_is_killed_again_and_again_comes_to_the_same_end(
    real: tuple[RealCluster, Path], monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    cluster, folder = real
    monkeypatch.chdir(folder)
    chance = random.Random(len(options))
    line = ["restore", "-q", "--to", "new", "--resume", "--checkpoint", "4M", "--in-flight", "1", *options]
    line += ["-p", str(cluster.port)]
    started = time.monotonic()
    assert start(*line).wait(60) == 0
    took_s = time.monotonic() - started
    image = cluster.dog("vdi", "read", "vm", "-s", "b")
    assert cluster.dog("vdi", "read", "new") == image
    cluster.dog("vdi", "delete", "new")
    base = cluster.dog("vdi", "read", "vm", "-s", "a") if "--base" in options else bytes(SIZE)

    killed = 0
    while killed < KILLS:
        process = start(*line, stderr=subprocess.PIPE)
        # Later than it needs to create the VDI and to mark it: one that it did not mark is nobody's.
        timer = threading.Timer(chance.uniform(0.5, 1) * took_s, process.kill)
        timer.start()
        _, err = process.communicate(timeout=60)
        timer.cancel()
        assert process.returncode in (0, 3, -signal.SIGKILL), err
        killed += process.returncode == -signal.SIGKILL
        if process.returncode != -signal.SIGKILL:
            # It exists already where it was complete when the run was killed, or where it was only just created. Then
            # its size is not the wanted one yet.
            found, is_created = cluster.dog("vdi", "read", "new"), process.returncode == 3
            assert found == image or (is_created and base.startswith(found))
            cluster.dog("vdi", "delete", "new")
    if start(*line).wait(60) != 0:
        cluster.dog("vdi", "delete", "new")
        assert start(*line).wait(60) == 0

    assert cluster.dog("vdi", "read", "new") == image
    assert cluster.asyncbackup("verify", "a", "b", "--against", "new").returncode == 0
    assert left_in(folder) == ["a", "a.manifest", "b", "b.manifest"]
    cluster.dog("vdi", "delete", "new")
