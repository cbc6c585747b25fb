"""Whatever a disk went through, and in however many pieces it is backed up: joined, they are the backup of one run."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncbackup import ClientOptions, Dialect, Shard, WindowOptions, backup, connect, join
from asyncbackup.sheep import MemoryStore, Sheep
from tests.pieces import read_both
from tests.property.test_backup import DIALECTS, HISTORIES, OPTIONS, Write, live

pytestmark = pytest.mark.slow


@settings(max_examples=15)
@given(HISTORIES, DIALECTS, OPTIONS, st.integers(1, 5), st.randoms(use_true_random=False))
async def test_joined_pieces_are_the_backup_of_one_run(
    history: list[list[Write]], dialect: Dialect, options: WindowOptions, count: int, chance: random.Random
) -> None:
    async with Sheep(MemoryStore()) as sheep, connect(sheep.host, sheep.port, ClientOptions(connections=2)) as cluster:
        tags = await live(cluster, history)
        to, base = chance.choice(tags), chance.choice([None, *tags])
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            await backup(cluster, "disk", folder / "whole", snapshot=to, base=base, dialect=dialect, options=options)
            pieces = [folder / f"piece{number}" for number in range(1, count + 1)]
            for number, piece in enumerate(pieces, 1):
                await backup(
                    cluster,
                    "disk",
                    piece,
                    snapshot=to,
                    base=base,
                    dialect=dialect,
                    options=options,
                    shard=Shard(number, count),
                )
            chance.shuffle(pieces)

            await join(pieces, folder / "joined")

            assert read_both(folder / "joined") == read_both(folder / "whole")
