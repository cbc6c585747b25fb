"""Backups that kill -9 ends at random moments, again and again: what comes of them in the end is always the same."""

from __future__ import annotations

import random
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from anyio.from_thread import start_blocking_portal

from asyncbackup import ClientOptions, Volume, connect
from asyncbackup.sheep import MemoryStore, Sheep
from asyncbackup.wire.messages import RequestHeader
from tests.cli.command import start
from tests.disks import noise
from tests.killing import Victim

pytestmark = pytest.mark.slow

MIB: Final = 1 << 20
SIZE: Final = 32 * MIB

KILLS: Final = 10
"""For each of the eight ways: eighty in all."""

OLD: Final = {"file": b"old data", "file.manifest": b"old proof"}


@dataclass
class Killer:
    """Counts requests, and ends ``process`` with number ``at``; some time after it, if a run needs no more of them."""

    chance: random.Random
    most: int = 0
    """Requests that a whole run needs."""
    requests: int = 0
    at: int = 0
    process: subprocess.Popen[bytes] | None = None

    def note(self, _: RequestHeader) -> None:
        self.requests += 1
        if self.requests == self.at and self.process is not None:
            if self.at == self.most:
                threading.Timer(self.chance.uniform(0, 0.02), self.process.kill).start()
            else:
                self.process.kill()

    def arm(self, process: subprocess.Popen[bytes]) -> None:
        # The process takes longer to start than this.
        self.process, self.requests = process, 0
        self.at = min(self.chance.randrange(5, self.most * 5 // 4), self.most)


@contextmanager
def serving(killer: Killer, shift: int) -> Iterator[str]:
    """Serve a disk whose snapshots a and b differ in each object; gives the port."""
    sheep = Sheep(MemoryStore(), on_request=killer.note)

    async def fill() -> None:
        async with connect(sheep.host, sheep.port, ClientOptions(connections=1)) as cluster:
            await cluster.create_vdi("disk", SIZE, block_size_shift=shift)
            for tag in ("a", "b"):
                volume = await Volume.open(cluster, "disk")
                for at in range(0, SIZE, MIB):
                    await volume.write(at + 4096, noise(at + ord(tag), MIB - 8192))
                await cluster.create_snapshot("disk", tag)

    with start_blocking_portal() as portal, portal.wrap_async_context_manager(sheep):
        portal.call(fill)
        yield str(sheep.port)


@pytest.mark.parametrize(
    ("shift", "options"),
    [
        (20, ("--format", "dog")),
        (20, ("-F", "a")),
        (20, ("-F", "a", "--in-flight", "1", "--force")),
        (20, ("-F", "a", "--shard", "2/3")),
        (20, ("--zstd=1", "--threads", "2")),
        (20, ("-F", "a", "--zstd=1", "--shard", "2/3")),
        (24, ("--memory", "1M")),
        (24, ("-F", "a", "--memory", "4M", "--format", "dog")),
    ],
    ids=[
        "full",
        "increment",
        "replacing",
        "piece",
        "zstd",
        "piece in zstd",
        "full in portions",
        "increment in portions",
    ],
)
def test_what_is_killed_again_and_again_comes_to_the_same_end(
    tmp_path: Path, shift: int, options: tuple[str, ...]
) -> None:
    killer = Killer(random.Random(shift + len(options)))
    whole, folder = tmp_path / "whole", tmp_path / "folder"
    folder.mkdir()
    with serving(killer, shift) as port:
        line = ["backup", "-q", "disk", "-s", "b", "-p", port, "--checkpoint", "1M", *options]
        killer.requests = 0
        assert start(*line, whole).wait(60) == 0
        killer.most = killer.requests
        expected = {f"file{suffix}": Path(f"{whole}{suffix}").read_bytes() for suffix in ("", ".manifest")}

        Victim(folder, line, expected, OLD if "--force" in options else {}).kill(killer.arm, KILLS)
