"""A run of several that restore a VDI sleeps (SIGSTOP), while others go on or somebody discards the VDI."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from asyncbackup import Cluster
from asyncbackup.cli.exits import ExitCode
from asyncbackup.client.construction import is_unfinished
from asyncbackup.engine.shards import read_receipt, read_shards
from asyncbackup.errors import VdiNotFound
from tests.cli.command import start
from tests.clusters import MISSING, RealCluster
from tests.disks import content_of, make_disk

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.skipif(bool(MISSING), reason=MISSING)]

COUNT = 3


@dataclass
class Disk:
    """A disk whose backup is restored in shards, and the shard whose run sleeps."""

    real: RealCluster
    client: Cluster
    file: Path
    name: str
    new: str = ""

    def run(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return self.real.asyncbackup("restore", "-q", self.file, "--to", self.new, *arguments)

    def write(self, number: int) -> subprocess.CompletedProcess[bytes]:
        return self.run("--shard", f"{number}/{COUNT}")

    def join(self) -> subprocess.CompletedProcess[bytes]:
        return self.run("--join-shards", str(COUNT), "--take-snapshot", "b")

    async def is_there(self) -> bool:
        return await self.client.has_vdi(self.new)

    async def is_tagged(self) -> bool:
        """Tell whether the VDI is there, and says that it is unfinished."""
        try:
            return is_unfinished(await self.client.find_vdi(self.new))
        except VdiNotFound:
            return False

    async def may_others_begin(self) -> bool:
        try:
            shards = await read_shards(self.client, await self.client.find_vdi(self.new))
        except VdiNotFound:
            return False
        return shards is not None and shards.is_named

    async def is_written(self) -> bool:
        """Tell whether the VDI says that shard 1 is written."""
        return await read_receipt(self.client, await self.client.find_vdi(self.new), 1) is not None

    @asynccontextmanager
    async def sleeping(self, is_reached: Stage) -> AsyncIterator[subprocess.Popen[bytes]]:
        """Let the run of shard 1 sleep when it has come so far, and not to its end."""
        for attempt in range(10):
            self.new = f"new-{attempt}-{self.name}"
            to = ("--to", self.new, "--shard", f"1/{COUNT}", "-p", str(self.real.port))
            run = start("restore", "-q", self.file, *to, stderr=subprocess.PIPE)
            try:
                with anyio.fail_after(30):
                    while not await is_reached(self):
                        pass
                run.send_signal(signal.SIGSTOP)
                if not await self.is_written():
                    yield run
                    return
            finally:
                run.send_signal(signal.SIGCONT)
                run.kill()
                run.communicate()
        pytest.fail("the run was faster each time")

    async def check(self) -> None:
        wanted = await content_of(self.client, self.name, "b")
        for snapshot in (None, "b"):
            assert await content_of(self.client, self.new, snapshot) == wanted


Stage = Callable[[Disk], Awaitable[bool]]
STAGES: dict[str, Stage] = {"it prepares the VDI": Disk.is_tagged, "others may begin": Disk.may_others_begin}


def end(run: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    """Let the run go on, and give its exit code and what it said."""
    run.send_signal(signal.SIGCONT)
    _, err = run.communicate(timeout=60)
    return run.returncode, err


@pytest.fixture
async def disk(real: RealCluster, client: Cluster, tmp_path: Path) -> Disk:
    name = tmp_path.name  # The cluster is that of all tests.
    await make_disk(client, name)
    assert real.asyncbackup("backup", "-q", name, "-s", "b", tmp_path / "b").returncode == 0
    return Disk(real, client, tmp_path / "b", name)


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
async def test_a_shard_whose_run_sleeps_is_completed_when_it_wakes(disk: Disk, stage: Stage) -> None:
    async with disk.sleeping(stage) as run:
        others = [disk.write(number) for number in (2, 3)]
        if await disk.may_others_begin():
            assert [each.returncode for each in others] == [0, 0]
            assert disk.join().returncode == ExitCode.MISSING
        else:
            assert [each.returncode for each in others] == [ExitCode.EXISTS] * 2

        code, err = end(run)

    assert (code, err) == (0, b"")
    for number in (2, 3):
        assert disk.write(number).returncode == 0
    assert disk.join().returncode == 0
    await disk.check()


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
async def test_a_vdi_that_is_discarded_while_a_run_sleeps_is_made_anew(disk: Disk, stage: Stage) -> None:
    async with disk.sleeping(stage) as run:
        discarded = disk.real.asyncbackup("restore", "-q", "--discard", disk.new)
        assert discarded.returncode == 0, discarded.stderr

        code, err = end(run)

    assert code == 1, err
    assert not await disk.is_there()
    for number in (1, 2, 3):
        assert disk.write(number).returncode == 0
    assert disk.join().returncode == 0
    await disk.check()
