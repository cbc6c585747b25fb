"""A cluster whose VDI holds text, zeros and bytes that nothing compresses, by turns."""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio

from asyncbackup.bench.cases import Situation
from asyncbackup.bench.fill import FILLING, NEW
from asyncbackup.bench.measuring import VDI, require_room
from asyncbackup.bench.serving import Serving, serve
from asyncbackup.bench.workloads import OBJECT_SIZE
from asyncbackup.client import Volume, connect_any

_STRIPE: Final = 64 << 10
"""Bytes of one kind."""
_WORDS: Final = 4000
_COPIES: Final = 6
"""Of all data: the store, and what a script keeps at a time."""


@asynccontextmanager
async def serving(arguments: argparse.Namespace) -> AsyncIterator[Serving]:
    """Serve a cluster of one node with a snapshot of such a VDI."""
    size = arguments.objects * OBJECT_SIZE
    await anyio.to_thread.run_sync(require_room, arguments.folder, _COPIES * size)
    async with serve(arguments.folder, Situation()) as served:
        async with connect_any(served.near, FILLING) as cluster:
            await cluster.create_vdi(VDI, size)
            volume = await Volume.open(cluster, VDI)
            for idx in range(arguments.objects):
                await volume.write(idx * OBJECT_SIZE, make(idx))
            await cluster.create_snapshot(VDI, NEW)
        await anyio.to_thread.run_sync(os.sync)
        yield served


def make(seed: int) -> bytes:
    """Make the content of an object. It begins and ends with text, so no end of zeros is cut off."""
    chosen = random.Random(seed)
    words = [b"%x" % chosen.getrandbits(chosen.randrange(8, 40)) for _ in range(_WORDS)]
    # Few words are frequent, as in a text.
    text = b" ".join(words[int(chosen.random() ** 3 * _WORDS)] for _ in range(_STRIPE))
    stripes = []
    for number in range(OBJECT_SIZE // _STRIPE):
        start = chosen.randrange(len(text) - _STRIPE)
        stripes.append((text[start : start + _STRIPE], bytes(_STRIPE), chosen.randbytes(_STRIPE))[number % 3])
    return b"".join(stripes)
