"""Restores that fail: nothing is left of them, or what is left says so."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from asyncbackup import BaseSnapshot, ClientOptions, Cluster, Volume, backup, connect, restore
from asyncbackup.client.construction import UNFINISHED_TAG
from asyncbackup.errors import ClusterError, ConnectionLost, LeftUnfinished, RequestFailed
from asyncbackup.sheep import Fault, MemoryStore, Sheep
from asyncbackup.sheep.faults import Error, Reset, Stall
from asyncbackup.wire.constants import HEADER_SIZE, Opcode, Result
from asyncbackup.wire.messages import ObjectBody, RequestHeader
from asyncbackup.wire.oid import is_data
from tests.disks import OBJECT, SHIFT, delete_as_dog, noise
from tests.faults.proxy import Handler, serve
from tests.faults.steps import WAYS, Cancel, run_cancelled
from tests.property.test_restore import working_image
from tests.waiting import turn, until

OPTIONS = ClientOptions(connections=2, request_timeout_s=10, give_up_after_s=0)


@dataclass
class Backed:
    store: MemoryStore
    full: Path
    increment: Path

    def data_objects(self) -> set[int]:
        return {oid for oid in self.store.oids() if is_data(oid)}


@pytest.fixture
async def backed(tmp_path: Path) -> Backed:
    """A disk of three objects, its full backup of snapshot a, and an increment to b."""
    made = Backed(MemoryStore(), tmp_path / "full", tmp_path / "increment")
    async with Sheep(made.store) as sheep, connect(sheep.host, sheep.port, OPTIONS) as cluster:
        await cluster.create_vdi("disk", 3 * OBJECT, block_size_shift=SHIFT)
        await (await Volume.open(cluster, "disk")).write(0, noise(1, 2 * OBJECT))
        await cluster.create_snapshot("disk", "a")
        await (await Volume.open(cluster, "disk")).write(2 * OBJECT - 512, noise(2, 1024))
        await cluster.create_snapshot("disk", "b")
        await backup(cluster, "disk", made.full, snapshot="a")
        await backup(cluster, "disk", made.increment, snapshot="b", base="a")
    return made


Restore = Callable[[Cluster], Awaitable[object]]


@pytest.fixture(params=["fresh", "clone"])
def restore_new(request: pytest.FixtureRequest, backed: Backed) -> Restore:
    """Restores VDI new: a chain from nothing, or an increment on its base."""

    def from_nothing(cluster: Cluster) -> Awaitable[object]:
        return restore(cluster, [backed.full, backed.increment], "new")

    def on_the_base(cluster: Cluster) -> Awaitable[object]:
        return restore(cluster, [backed.increment], "new", base=BaseSnapshot(cluster, "a"))

    return from_nothing if request.param == "fresh" else on_the_base


FAULTS = {
    "an object cannot be created": Fault(Error(Result.EIO), Opcode.CREATE_AND_WRITE_OBJ, nth=2),
    "the connection ends under an object": Fault(Reset(), Opcode.CREATE_AND_WRITE_OBJ, nth=2),
    "the mark cannot be set": Fault(Error(Result.EIO), Opcode.WRITE_OBJ, nth=1),
    "the owner table cannot be written": Fault(Error(Result.EIO), Opcode.WRITE_OBJ, nth=2),
    "the connection ends under the owner table": Fault(Reset(), Opcode.WRITE_OBJ, nth=2),
    "the mark cannot be taken off": Fault(Error(Result.EIO), Opcode.WRITE_OBJ, nth=3),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
async def test_a_failed_restore_is_removed(backed: Backed, restore_new: Restore, fault: Fault) -> None:
    before = backed.data_objects()
    async with Sheep(backed.store, faults=[fault]) as sheep, connect(sheep.host, sheep.port, OPTIONS) as cluster:
        with pytest.raises((RequestFailed, ConnectionLost)):
            await restore_new(cluster)

        async with connect(sheep.host, sheep.port) as other:
            assert [inode.name for inode in (await other.list_vdis()).sound if not inode.is_snapshot] == ["disk"]
    assert backed.data_objects() == before


@pytest.mark.slow
@pytest.mark.parametrize("cancel", WAYS, ids=["task", "scope"])
async def test_a_restore_cancelled_at_any_step_leaves_nothing(
    backed: Backed, restore_new: Restore, cancel: Cancel
) -> None:
    before = backed.data_objects()
    async with Sheep(backed.store) as sheep, connect(sheep.host, sheep.port, OPTIONS) as cluster:
        expected = await working_image(cluster, "disk")

        async def work() -> None:
            await restore_new(cluster)

        for at in itertools.count():
            was_cut = await run_cancelled(cancel, work, at)

            # Cancelled in one of its last steps it is complete.
            if not was_cut or await cluster.has_vdi("new"):
                assert (await cluster.find_vdi("new")).tag == "", at
                assert await working_image(cluster, "new") == expected, at
                await delete_as_dog(cluster, "new")
            assert backed.data_objects() == before, at
            if not was_cut:
                break
        assert [inode.name for inode in (await cluster.list_vdis()).sound] == ["disk"] * 3


REMOVAL_FAULTS = {
    "the VDI cannot be deleted": Fault(Error(Result.EIO), Opcode.DEL_VDI),
    "the removal of an object hangs": Fault(Stall(), Opcode.REMOVE_OBJ),
}


@pytest.mark.parametrize("fault", REMOVAL_FAULTS.values(), ids=REMOVAL_FAULTS.keys())
async def test_what_cannot_be_removed_is_told_and_stays_marked(backed: Backed, fault: Fault) -> None:
    faults = [Fault(Error(Result.EIO), Opcode.CREATE_AND_WRITE_OBJ, nth=2), fault]
    options = ClientOptions(connections=2, request_timeout_s=0.5, give_up_after_s=0)
    async with Sheep(backed.store, faults=faults) as sheep, connect(sheep.host, sheep.port, options) as cluster:
        with pytest.raises(LeftUnfinished, match=r"creating object .* 'new'.* may be left behind") as raised:
            await restore(cluster, [backed.full], "new")

        assert isinstance(raised.value, ClusterError)
        assert (await cluster.find_vdi("new")).tag == UNFINISHED_TAG


@pytest.mark.parametrize("cancel", WAYS, ids=["task", "scope"])
async def test_what_is_under_way_is_waited_for_before_it_is_removed(backed: Backed, cancel: Cancel) -> None:
    before, gate = backed.data_objects(), Gate()
    async with Sheep(backed.store) as sheep, serve(gate.between(sheep)) as port:

        async def work() -> None:
            async with connect("127.0.0.1", port, ClientOptions(connections=1, give_up_after_s=0)) as cluster:
                await restore(cluster, [backed.full], "new")

        task, steps = cancel(work, -1)
        await gate.came.wait()
        steps.action()
        await turn(200)
        assert not {Opcode.REMOVE_OBJ, Opcode.DEL_VDI} & sheep.requests.keys()
        gate.opened.set()
        await asyncio.wait([task])

        async with connect(sheep.host, sheep.port) as cluster:
            assert not await cluster.has_vdi("new")
    assert backed.data_objects() == before


class Gate:
    """Stands before a server, and holds the first object that is to be created back until it is opened."""

    def __init__(self) -> None:
        self.came = asyncio.Event()
        self.opened = asyncio.Event()

    def between(self, sheep: Sheep) -> Handler:
        """Forward requests to ``sheep`` one by one, and answers as they come."""

        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            from_sheep, to_sheep = await asyncio.open_connection(sheep.host, sheep.port)
            async with anyio.create_task_group() as group:
                group.start_soon(answer, from_sheep, writer)
                with suppress(asyncio.IncompleteReadError, ConnectionError):
                    while True:
                        header = await reader.readexactly(HEADER_SIZE)
                        request = RequestHeader.unpack(header)
                        payload = await reader.readexactly(request.payload_length)
                        if request.opcode == Opcode.CREATE_AND_WRITE_OBJ:
                            self.came.set()
                            await self.opened.wait()
                        to_sheep.write(header + payload)
                to_sheep.close()
                group.cancel_scope.cancel()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError):
                while data := await reader.read(1 << 16):
                    writer.write(data)

        return forward


async def test_a_restore_that_lost_its_only_connection_is_removed(backed: Backed, restore_new: Restore) -> None:
    before, fault = backed.data_objects(), Fault(Reset(), Opcode.CREATE_AND_WRITE_OBJ)
    options = ClientOptions(connections=1, give_up_after_s=0)
    async with Sheep(backed.store, faults=[fault]) as sheep, connect(sheep.host, sheep.port, options) as cluster:
        with pytest.raises(ConnectionLost):
            await restore_new(cluster)

        async with connect(sheep.host, sheep.port) as other:
            assert not await other.has_vdi("new")
    assert backed.data_objects() == before


async def test_a_lost_cluster_leaves_the_mark(backed: Backed) -> None:
    created = asyncio.Event()

    def watch(request: RequestHeader) -> None:
        if request.opcode == Opcode.CREATE_AND_WRITE_OBJ:
            created.set()

    faults = [Fault(Stall(), Opcode.CREATE_AND_WRITE_OBJ, onwards=True)]
    async with (
        Sheep(backed.store, faults=faults, on_request=watch) as sheep,
        connect(sheep.host, sheep.port, OPTIONS) as cluster,
    ):
        work = asyncio.create_task(restore(cluster, [backed.full], "new"))
        await created.wait()
        await sheep.__aexit__(None, None, None)
        with pytest.raises(LeftUnfinished, match="lost the connection"):
            await work
    async with Sheep(backed.store) as sheep, connect(sheep.host, sheep.port) as cluster:
        assert (await cluster.find_vdi("new")).tag == UNFINISHED_TAG


@pytest.fixture
async def stalling(backed: Backed) -> AsyncIterator[tuple[Sheep, asyncio.Event]]:
    """A server that never answers to the second object, and the event of its coming."""
    came = asyncio.Event()

    def watch(request: RequestHeader) -> None:
        if request.opcode == Opcode.CREATE_AND_WRITE_OBJ and ObjectBody.unpack(request.body).oid & 0xFFFFFFFF == 1:
            came.set()

    faults = [Fault(Stall(), Opcode.CREATE_AND_WRITE_OBJ, nth=2)]
    async with Sheep(backed.store, faults=faults, on_request=watch) as sheep:
        yield sheep, came


def start(sheep: Sheep, backed: Backed) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "asyncbackup", "restore", "-p", str(sheep.port), "--to", "new", str(backed.full)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ})


async def test_kill_9_leaves_a_vdi_that_is_plainly_unfinished_and_names_its_objects(
    backed: Backed, stalling: tuple[Sheep, asyncio.Event]
) -> None:
    sheep, came = stalling
    before = backed.data_objects()
    process = start(sheep, backed)
    async with asyncio.timeout(20):
        await came.wait()

    process.kill()
    await asyncio.to_thread(process.communicate)

    await until(lambda: sheep.connections == 0)
    async with connect(sheep.host, sheep.port) as cluster:
        inode = await cluster.find_vdi("new")
        assert inode.tag == UNFINISHED_TAG
        assert backed.data_objects() > before
        await delete_as_dog(cluster, "new")
    assert backed.data_objects() == before


async def test_kill_9_before_the_mark_leaves_an_empty_vdi_of_an_odd_size(backed: Backed) -> None:
    came, before = asyncio.Event(), backed.data_objects()

    def watch(request: RequestHeader) -> None:
        if request.opcode == Opcode.NEW_VDI:
            came.set()

    faults = [Fault(Stall(), Opcode.NEW_VDI)]
    async with Sheep(backed.store, faults=faults, on_request=watch) as sheep:
        process = start(sheep, backed)
        async with asyncio.timeout(20):
            await came.wait()

        process.kill()
        await asyncio.to_thread(process.communicate)

        async with connect(sheep.host, sheep.port) as cluster:
            inode = await cluster.find_vdi("new")
    assert (inode.tag, inode.vdi_size % 2) == ("", 1)
    assert backed.data_objects() == before


@pytest.mark.slow
async def test_ctrl_c_takes_the_vdi_back(backed: Backed, stalling: tuple[Sheep, asyncio.Event]) -> None:
    sheep, came = stalling
    before = backed.data_objects()
    process = start(sheep, backed)
    async with asyncio.timeout(20):
        await came.wait()

    process.send_signal(signal.SIGINT)
    _, errors = await asyncio.to_thread(process.communicate)

    assert (process.returncode, b"nothing unfinished was left behind" in errors) == (130, True)
    async with connect(sheep.host, sheep.port) as cluster:
        assert not await cluster.has_vdi("new")
    assert backed.data_objects() == before
