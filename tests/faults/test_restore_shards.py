"""Shards of a restore that end at any step, and their end: nothing looks complete before it is, and all can go on."""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from asyncbackup import (
    BaseSnapshot,
    ClientOptions,
    Cluster,
    Shard,
    Volume,
    backup,
    compare,
    connect,
    discard,
    join_shards,
    restore_shard,
)
from asyncbackup.cli.exits import ExitCode
from asyncbackup.client.construction import UNFINISHED_TAG
from asyncbackup.errors import ShardMissing
from asyncbackup.sheep import Fault, MemoryStore, Sheep
from asyncbackup.wire.constants import Opcode
from asyncbackup.wire.messages import ObjectBody, RequestHeader
from asyncbackup.wire.oid import is_data
from tests.cli.command import start
from tests.disks import OBJECT, SHIFT, content_of, make_disk, noise
from tests.faults.steps import WAYS, Cancel, run_cancelled
from tests.faults.test_killed import Killer
from tests.waiting import until

pytestmark = pytest.mark.slow

STRIDE = 8
KILLS = 6


@dataclass
class Disk:
    """What is restored in two shards."""

    cluster: Cluster
    chain: list[Path]
    is_clone: bool

    @property
    def files(self) -> list[Path]:
        return self.chain[1:] if self.is_clone else self.chain

    @property
    def base(self) -> BaseSnapshot | None:
        return BaseSnapshot(self.cluster, "a", "disk") if self.is_clone else None

    async def write(self, name: str, number: int) -> None:
        await restore_shard(self.cluster, self.files, name, Shard(number, 2), base=self.base)

    async def join(self, name: str) -> None:
        await join_shards(self.cluster, self.files, name, 2, "b", base=self.base)

    async def is_complete(self, name: str) -> bool:
        """Tell whether the VDI looks complete. Then it must be what was backed up."""
        found = await self.cluster.find_vdi(name) if await self.cluster.has_vdi(name) else None
        if found is None or found.tag == UNFINISHED_TAG:
            return False
        assert found.tag == ""
        assert await content_of(self.cluster, name, None) == await content_of(self.cluster, "disk", "b")
        return True

    async def check(self, name: str) -> None:
        assert await self.is_complete(name)
        assert (await compare(self.cluster, self.chain, name, snapshot="b")).is_good


@pytest.fixture(params=[False, True], ids=["chain", "clone"])
async def disk(request: pytest.FixtureRequest, cluster: Cluster, tmp_path: Path) -> Disk:
    """A disk of three objects, and backups of it."""
    await cluster.create_vdi("disk", 3 * OBJECT, block_size_shift=SHIFT)
    await (await Volume.open(cluster, "disk")).write(0, noise(1, 2 * OBJECT))
    await cluster.create_snapshot("disk", "a")
    await (await Volume.open(cluster, "disk")).write(2 * OBJECT - 512, noise(2, 1024))
    await cluster.create_snapshot("disk", "b")
    await backup(cluster, "disk", tmp_path / "a", snapshot="a")
    await backup(cluster, "disk", tmp_path / "b", snapshot="b", base="a")
    return Disk(cluster, [tmp_path / "a", tmp_path / "b"], request.param)


@pytest.mark.parametrize("cancel", WAYS, ids=["task", "scope"])
async def test_a_shard_cancelled_at_any_step_looks_incomplete_and_is_written_again(disk: Disk, cancel: Cancel) -> None:
    for at in itertools.count(0, STRIDE):
        name = f"new{at}"

        async def work(name: str = name) -> None:
            await disk.write(name, 1)

        was_cut = await run_cancelled(cancel, work, at)

        assert not await disk.is_complete(name)
        with pytest.raises(ShardMissing):
            await disk.join(name)
        await disk.write(name, 2)
        await disk.write(name, 1)
        await disk.join(name)
        await disk.check(name)
        if not was_cut:
            break
    assert at > 10 * STRIDE


@pytest.mark.parametrize("cancel", WAYS, ids=["task", "scope"])
async def test_a_join_cancelled_at_any_step_is_completed_by_the_next_one(disk: Disk, cancel: Cancel) -> None:
    for at in itertools.count(0, STRIDE):
        name = f"new{at}"
        for number in (1, 2):
            await disk.write(name, number)

        async def work(name: str = name) -> None:
            await disk.join(name)

        was_cut = await run_cancelled(cancel, work, at)

        await disk.is_complete(name)
        await disk.join(name)
        await disk.check(name)
        snapshots = [vdi for vdi in (await disk.cluster.list_vdis(name)).sound if vdi.is_snapshot]
        assert [vdi.tag for vdi in snapshots] == ["b"]
        if not was_cut:
            break
    assert at > 5 * STRIDE


def is_creation(request: RequestHeader) -> bool:
    return request.opcode == Opcode.CREATE_AND_WRITE_OBJ and is_data(ObjectBody.unpack(request.body).oid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_a_command_that_is_stopped_leaves_the_vdi_to_the_other_shards(
    tmp_path: Path, number: signal.Signals
) -> None:
    def stop(request: RequestHeader) -> None:
        if is_creation(request):
            process.send_signal(number)

    store = MemoryStore()
    async with Sheep(store) as sheep, connect(sheep.host, sheep.port) as cluster:
        await make_disk(cluster)
        await backup(cluster, "disk", tmp_path / "b", snapshot="b")
    hanging = [Fault.parse("create_and_write_obj/1@1+:stall")]
    async with Sheep(store, faults=hanging, on_request=stop) as sheep:
        to = ("--to", "new", "--shard", "1/2", "-p", str(sheep.port))
        process = start("restore", "-q", tmp_path / "b", *to, stderr=subprocess.PIPE)
        await until(lambda: process.poll() in (128 + number, -number))
        await until(lambda: sheep.connections == 0)
        assert process.stderr is not None
        said = process.stderr.read().decode()
        process.stderr.close()
        if number == signal.SIGINT:
            assert f"--shard 1/2 -p {sheep.port}` writes this one again" in said
            assert "`asyncbackup restore --discard new` gives all of them up" in said

    async with Sheep(store) as sheep, connect(sheep.host, sheep.port) as cluster:
        assert (await cluster.find_vdi("new")).tag == UNFINISHED_TAG
        for shard in (2, 1):
            await restore_shard(cluster, [tmp_path / "b"], "new", Shard(shard, 2))
        await join_shards(cluster, [tmp_path / "b"], "new", 2, "b")
        assert await content_of(cluster, "new", None) == await content_of(cluster, "disk", "b")


class Victim:
    """Commands that restore backups of the disk that ``sheep`` serves, to VDI ``new`` in two shards."""

    def __init__(self, portal: BlockingPortal, sheep: Sheep, killer: Killer, folder: Path, *, is_clone: bool) -> None:
        self._portal = portal
        self._sheep = sheep
        self._killer = killer
        self._chain = [folder / "full", folder / "increment"]
        self._line = [str(folder / "increment"), "--base", "a"] if is_clone else list(map(str, self._chain))
        portal.call(self._fill)

    def run(self, *part: str, is_killed: bool = False) -> int:
        """Give the exit code. A run that was killed before others may begin leaves a VDI, which is removed here."""
        line = [*self._line, "--to", "new", *part, "-p", str(self._sheep.port)]
        with start("restore", "-q", *line, stderr=subprocess.PIPE) as process:
            if is_killed:
                self._killer.arm(process)
            _, err = process.communicate(timeout=60)
        self._killer.process = None
        assert process.returncode in (ExitCode.OK, ExitCode.EXISTS, -signal.SIGKILL), err
        if process.returncode == ExitCode.EXISTS:
            self._portal.call(self._remove)
        return process.returncode

    def write(self, number: int) -> None:
        """Write a shard, whatever a run that was killed left."""
        while self.run("--shard", f"{number}/2") != ExitCode.OK:
            pass

    def _connect(self) -> AbstractAsyncContextManager[Cluster]:
        return connect(self._sheep.host, self._sheep.port, ClientOptions(connections=1))

    async def _fill(self) -> None:
        async with self._connect() as cluster:
            await make_disk(cluster)
            await backup(cluster, "disk", self._chain[0], snapshot="a")
            await backup(cluster, "disk", self._chain[1], snapshot="b", base="a")

    async def _remove(self) -> None:
        async with self._connect() as cluster:
            if (await cluster.find_vdi("new")).tag:
                await discard(cluster, "new")
            else:
                await cluster.delete_vdi("new")

    async def check(self) -> None:
        async with self._connect() as cluster:
            assert await content_of(cluster, "new", None) == await content_of(cluster, "disk", "b")
            assert (await compare(cluster, self._chain, "new", snapshot="b")).is_good


@pytest.mark.parametrize("is_clone", [False, True], ids=["chain", "clone"])
def test_what_is_killed_again_and_again_comes_to_the_same_end(tmp_path: Path, *, is_clone: bool) -> None:
    chance = random.Random(7 + is_clone)
    killer = Killer(chance)
    sheep = Sheep(MemoryStore(), on_request=killer.note)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(sheep):
        victim = Victim(portal, sheep, killer, tmp_path, is_clone=is_clone)
        killer.requests = 0
        victim.write(2)
        killer.most = killer.requests

        killed = 0
        while killed < KILLS:
            killed += victim.run("--shard", f"{chance.choice((1, 2))}/2", is_killed=True) == -signal.SIGKILL
        victim.write(1)
        victim.write(2)
        end = ("--join-shards", "2", "--take-snapshot", "b")
        killer.most = 20
        for _ in range(3):
            victim.run(*end, is_killed=True)
        assert victim.run(*end) == ExitCode.OK
        portal.call(victim.check)
