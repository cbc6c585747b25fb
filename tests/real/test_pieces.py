"""Pieces of a backup of a real cluster, made at the same time by processes that know nothing of one another."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from asyncbackup import Volume, connect
from tests.cli.command import start
from tests.clusters import MISSING, RealCluster
from tests.pieces import read_both

pytestmark = [pytest.mark.real, pytest.mark.skipif(bool(MISSING), reason=MISSING)]

MIB: Final = 1 << 20
OBJECTS: Final = 48
COUNT: Final = 8


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    async def fill(port: int) -> None:
        chance = random.Random(8)
        async with connect("127.0.0.1", port) as client:
            await client.create_vdi("vm", 4 * OBJECTS * MIB)
            for tag in ("a", "b"):
                volume = await Volume.open(client, "vm")
                for idx in sorted(chance.sample(range(OBJECTS), OBJECTS * 3 // 4)):
                    await volume.write(4 * idx * MIB + 4096, chance.randbytes(MIB))
                await client.create_snapshot("vm", tag)

    with RealCluster(tmp_path_factory.mktemp("pieces") / "cluster", nodes=2) as made:
        asyncio.run(fill(made.port))
        yield made


@pytest.mark.parametrize("options", [(), ("-F", "a", "--format", "dog")], ids=["full", "increment"])
def test_eight_pieces_made_at_once_join_to_the_file_of_one_run(
    cluster: RealCluster, tmp_path: Path, options: tuple[str, ...]
) -> None:
    line = ["backup", "-q", "vm", "-s", "b", "-p", str(cluster.port), *options]
    assert start(*line, tmp_path / "whole").wait(60) == 0
    pieces = [tmp_path / f"piece{number}" for number in range(1, COUNT + 1)]

    running = [start(*line, piece, "--shard", f"{number}/{COUNT}") for number, piece in enumerate(pieces, 1)]
    assert [process.wait(60) for process in running] == [0] * COUNT
    assert start("verify", "-q", *pieces, "--require-manifest").wait(60) == 0
    assert start("join", "-q", *pieces[::-1], "--to", tmp_path / "joined").wait(60) == 0

    assert all(piece.stat().st_size for piece in pieces)
    assert read_both(tmp_path / "joined") == read_both(tmp_path / "whole")
