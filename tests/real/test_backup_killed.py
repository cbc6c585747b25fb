"""Backups of a real cluster that kill -9 ends at random moments: resumed, they come to the same end."""

from __future__ import annotations

import asyncio
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from asyncbackup import Volume, connect
from tests.cli.command import start
from tests.clusters import MISSING, RealCluster
from tests.killing import Victim

pytestmark = [pytest.mark.real, pytest.mark.skipif(bool(MISSING), reason=MISSING)]

MIB: Final = 1 << 20
SIZE: Final = 96 * MIB

KILLS: Final = 25
"""For each of the three ways: seventy-five in all."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    async def fill(port: int) -> None:
        async with connect("127.0.0.1", port) as client:
            await client.create_vdi("vm", SIZE)
            for tag in ("a", "b"):
                volume = await Volume.open(client, "vm")
                for at in range(0, SIZE, 4 * MIB):
                    await volume.write(at + 4096, random.Random(f"{tag}{at}").randbytes(3 * MIB))
                await client.create_snapshot("vm", tag)

    with RealCluster(tmp_path_factory.mktemp("killed") / "cluster", nodes=1) as made:
        asyncio.run(fill(made.port))
        yield made


@pytest.mark.parametrize(
    "options", [(), ("-F", "a", "--format", "dog"), ("--zstd=1", "-F", "a")], ids=["full", "increment", "zstd"]
)
def test_what_is_killed_again_and_again_comes_to_the_same_end(
    cluster: RealCluster, tmp_path: Path, options: tuple[str, ...]
) -> None:
    chance = random.Random(len(options))
    whole, folder = tmp_path / "whole", tmp_path / "folder"
    folder.mkdir()
    line = ["backup", "-q", "vm", "-s", "b", "-p", str(cluster.port), "--checkpoint", "1M", *options]
    started = time.monotonic()
    assert start(*line, whole).wait(60) == 0
    took_s = time.monotonic() - started
    expected = {f"file{suffix}": Path(f"{whole}{suffix}").read_bytes() for suffix in ("", ".manifest")}

    def arm(process: subprocess.Popen[bytes]) -> None:
        # Before that the process only starts.
        threading.Timer(chance.uniform(0.3, 1) * took_s, process.kill).start()

    Victim(folder, line, expected, {}).kill(arm, KILLS)
