"""Backs up and restores a volume of three embedded nodes for a while, with faults at random.

Each round a guest writes, a snapshot is taken, and a backup of it is made, which may be cancelled and resumed. The
chain of backups then becomes an image, and sometimes a new VDI, which have to hold what the guest wrote. Meanwhile
nodes die and come back, hang, or lose their connections. Nothing may be left behind: no task, no descriptor, no object
of a connection, no memory. The same seed plans the same faults again.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import uvloop

from asyncbackup import ClientOptions, Cluster, Volume, backup, compare, connect_any, export, restore
from asyncbackup.client.connection import Attempt, Connection
from asyncbackup.client.node import Node
from asyncbackup.client.request import Request
from asyncbackup.sheep import SheepCluster
from asyncbackup.wire.messages import RequestHeader
from tests.descriptors import open_descriptors
from tests.waiting import turn

OBJECT: Final = 4 << 20
OBJECTS: Final = 6
ROUNDS: Final = 8
"""Rounds on one cluster: the length of a chain."""
OPTIONS: Final = ClientOptions(request_timeout_s=20, give_up_after_s=60, retry_delay_s=0.001)
HANG_S: Final = 0.2
GROWTH: Final = 96 << 20
"""Bytes that the process may grow by after its first cluster. What the allocators keep differs from time to time."""


OF_A_CLIENT: Final = (Connection, Node, Attempt, Request)


class Leak(AssertionError):
    """Something was left behind."""


@dataclass
class Requests:
    """Counts requests to all nodes, and wakes who waits for one."""

    count: int = 0
    awaited: list[tuple[int, asyncio.Event]] = field(default_factory=list)

    def note(self, _node: int, _request: RequestHeader) -> None:
        self.count += 1
        for at, event in self.awaited:
            if at <= self.count:
                event.set()
        self.awaited = [each for each in self.awaited if each[0] > self.count]

    async def pass_by(self, number: int) -> None:
        """Wait until so many more requests came."""
        event = asyncio.Event()
        self.awaited.append((self.count + number, event))
        await event.wait()


@dataclass
class Soak:
    """What a run does, by chance, and how often it did what."""

    chance: random.Random
    folder: Path
    counts: Counter[str] = field(default_factory=Counter)
    requests: Requests = field(default_factory=Requests)
    image: bytearray = field(default_factory=bytearray)

    async def use_a_cluster(self) -> None:
        """Go through some rounds on a new cluster."""
        self.requests, self.image = Requests(), bytearray(OBJECTS * OBJECT)
        async with SheepCluster(3, copies=2, on_request=self.requests.note) as sheep:
            async with connected(sheep) as cluster:
                await cluster.create_vdi("disk", len(self.image))
            chain: list[Path] = []
            for number in range(ROUNDS):
                async with connected(sheep) as cluster:
                    await self.write(cluster)
                    await cluster.create_snapshot("disk", f"s{number}")
                chain.append(await self.back_up(sheep, number))
                await self.check(chain)
                if self.chance.random() < 0.5:
                    await self.bring_back(sheep, chain)

    async def write(self, cluster: Cluster) -> None:
        """Change the volume as a guest does."""
        volume = await Volume.open(cluster, "disk")
        for _ in range(self.chance.randrange(1, 6)):
            length = 512 * self.chance.choice([1, 16, 700])
            start = 512 * self.chance.randrange((len(self.image) - length) // 512)
            data = self.chance.choice([bytes(length), self.chance.randbytes(length)])
            await volume.write(start, data)
            self.image[start : start + length] = data

    async def back_up(self, sheep: SheepCluster, number: int) -> Path:
        """Back the newest snapshot up. A run that is cancelled is gone on with."""
        file = self.folder / f"s{number}"
        base = f"s{number - 1}" if number else None

        async def make(*, resume: bool) -> None:
            async with connected(sheep) as cluster:
                await backup(
                    cluster, "disk", file, snapshot=f"s{number}", base=base, resume=resume, checkpoint_bytes=1 << 20
                )

        async with self.troubled(sheep):
            if self.chance.random() < 0.3:
                async with asyncio.TaskGroup() as group:
                    making = group.create_task(make(resume=False))
                    passing = group.create_task(self.requests.pass_by(self.chance.randrange(1, 60)))
                    await asyncio.wait({making, passing}, return_when=asyncio.FIRST_COMPLETED)
                    making.cancel()
                    passing.cancel()
                self.counts["backups cancelled and resumed"] += making.cancelled()
            if not file.exists():
                await make(resume=True)
        self.counts["backups"] += 1
        return file

    async def check(self, chain: list[Path]) -> None:
        """See that backups make the image that the guest wrote."""
        image = self.folder / "image"
        await export(chain, image, replace=True)
        if image.read_bytes() != self.image:
            raise AssertionError(f"{len(chain)} backups do not make the image that the guest wrote")

    async def bring_back(self, sheep: SheepCluster, chain: list[Path]) -> None:
        """Restore a new VDI, and see that it is what the backups hold."""
        copy = f"copy{len(chain)}"
        async with self.troubled(sheep), connected(sheep) as cluster:
            await restore(cluster, chain, copy)
        async with connected(sheep) as cluster:
            if not (await compare(cluster, chain, copy)).is_good:
                raise AssertionError(f"the VDI that {len(chain)} backups make is another")
        self.counts["restores"] += 1

    @asynccontextmanager
    async def troubled(self, sheep: SheepCluster) -> AsyncIterator[None]:
        """Let something happen to a node, and end it afterwards at the latest."""
        name, harm = self.chance.choice([*HARMS.items()])
        node, ahead, length = self.chance.randrange(3), self.chance.randrange(1, 60), self.chance.randrange(5, 40)

        async def do() -> None:
            await self.requests.pass_by(ahead)
            self.counts[name] += 1
            await harm(sheep, node, self.requests, length)

        async with asyncio.TaskGroup() as group:
            harming = group.create_task(do())
            yield
            harming.cancel()


async def kill(sheep: SheepCluster, node: int, requests: Requests, length: int) -> None:
    sheep.kill(node)
    try:
        await requests.pass_by(length)
    finally:
        await sheep.restart(node)


async def stall(sheep: SheepCluster, node: int, requests: Requests, length: int) -> None:
    sheep.stall(node)
    try:
        # Those who wait for the node send nothing: only time goes on.
        await asyncio.sleep(HANG_S)
    finally:
        sheep.resume(node)


async def cut(sheep: SheepCluster, node: int, requests: Requests, length: int) -> None:
    sheep.cut(node)


async def spare(sheep: SheepCluster, node: int, requests: Requests, length: int) -> None:
    pass


HARMS: Final = {
    "nodes killed and started again": kill,
    "nodes that hung": stall,
    "nodes whose connections were cut": cut,
    "nodes left alone": spare,
}


@asynccontextmanager
async def connected(sheep: SheepCluster) -> AsyncIterator[Cluster]:
    async with connect_any(sheep.addresses, OPTIONS) as cluster:
        yield cluster


async def soak(seconds: float, seed: int, folder: Path, *, clusters: int | None = None) -> Counter[str]:
    """Use one cluster after the other for so many seconds, or so many of them; give what was done how often.

    Raises AssertionError where a result is wrong, Leak where something is left, and the errors of the verbs.
    """
    run = Soak(random.Random(seed), folder)
    until = time.monotonic() + seconds
    first: tuple[int, int] | None = None
    while time.monotonic() < until and run.counts["clusters"] != clusters:
        run.counts["clusters"] += 1
        await run.use_a_cluster()
        empty(folder)
        await turn()
        look_for_leaks()
        now = len(open_descriptors()), resident_bytes()
        # What loops, threads and libraries keep is there after the first cluster.
        first = first or now
        if now[0] > first[0] or now[1] > first[1] + GROWTH:
            raise Leak(f"descriptors and bytes of memory: {now}, after the first cluster {first}")
    return run.counts


def empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def look_for_leaks() -> None:
    """Raise Leak if a task runs, or a client has left an object."""
    gc.collect()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    left = Counter(type(each).__name__ for each in gc.get_objects() if isinstance(each, OF_A_CLIENT))
    if tasks or left:
        raise Leak(f"tasks {tasks}, objects {dict(left)}")


def resident_bytes() -> int:
    """Give how much memory the process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(prog="./dev soak", description="Backs up and restores, with faults at random.")
    parser.add_argument("seconds", nargs="?", type=float, default=300, help="how long; 300 if not given")
    parser.add_argument("seed", nargs="?", type=int, default=random.randrange(1 << 32), help="of an earlier run")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        counts = runner.run(soak(arguments.seconds, arguments.seed, Path(folder)))
    for what, count in sorted(counts.items()):
        print(f"{count:6,} {what}")
    print("all identical, nothing left behind")


if __name__ == "__main__":
    main()
