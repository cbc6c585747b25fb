"""A guest that uses a volume for some days, with a snapshot after each day: something to back up."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from asyncbackup.client import Cluster, Volume

VDI: Final = "vm"
SIZE: Final = 512 << 20

_MIB: Final = 1 << 20
_DATABASE: Final = 64 * _MIB
_DATABASE_SIZE: Final = 64 * _MIB
_LOGS: Final = 128 * _MIB
_FILES: Final = 192 * _MIB
"""The places in the volume that the guest uses, in bytes."""

_PAGE_SIZE: Final = 8192


class Day(NamedTuple):
    """What the guest does to its volume, and the tag of the snapshot after it."""

    tag: str
    story: str
    work: Callable[[Volume, random.Random], Awaitable[None]]


async def live(cluster: Cluster, days: Sequence[Day], say: Callable[[str], None]) -> None:
    """Create the volume, and let the guest work for ``days``. The bytes are the same each time."""
    await cluster.create_vdi(VDI, SIZE)
    for number, day in enumerate(days):
        say(f"{day.tag.capitalize()}: {day.story}.")
        await day.work(await Volume.open(cluster, VDI), random.Random(number))  # noqa: S311 - content, no secret
        await cluster.create_snapshot(VDI, day.tag)


async def _install(volume: Volume, chance: random.Random) -> None:
    await volume.write(0, chance.randbytes(24 * _MIB))
    await volume.write(_DATABASE, chance.randbytes(_DATABASE_SIZE))
    await volume.write(_LOGS, chance.randbytes(10 * _MIB))
    for number in range(8):
        await volume.write(_FILES + number * 24 * _MIB, chance.randbytes(8 * _MIB))


async def _work(volume: Volume, chance: random.Random) -> None:
    await volume.write(_LOGS + 10 * _MIB, chance.randbytes(3 * _MIB))
    for _ in range(12):
        page = chance.randrange(_DATABASE_SIZE // _PAGE_SIZE)
        await volume.write(_DATABASE + page * _PAGE_SIZE, chance.randbytes(_PAGE_SIZE))
    await volume.write(_FILES, bytes(8 * _MIB))


async def _upgrade(volume: Volume, chance: random.Random) -> None:
    await volume.write(_LOGS + 13 * _MIB, chance.randbytes(2 * _MIB))
    await volume.write(8 * _MIB, chance.randbytes(5 * _MIB))
    await volume.write(_FILES + 12 * _MIB, chance.randbytes(9 * _MIB))


DAYS: Final = (
    Day("monday", "the guest installs itself, loads a database, and writes logs and files", _install),
    Day("tuesday", "logs grow, twelve database pages are rewritten, a file of 8 MiB is wiped", _work),
    Day("wednesday", "logs grow, some programs are upgraded, a file is added", _upgrade),
)
