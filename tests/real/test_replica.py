"""A replica on a second real cluster follows its origin, one command a night; dog reads the same from both."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from asyncbackup import Volume, connect
from asyncbackup.wire import messages
from asyncbackup.wire.constants import Opcode
from asyncbackup.wire.messages import Message, VdiBody
from tests.clusters import MISSING, RealCluster

pytestmark = [pytest.mark.real, pytest.mark.skipif(bool(MISSING), reason=MISSING)]

MIB = 1 << 20
OBJECT = 4 * MIB
OBJECTS = 16
NORMAL = 0
"""The type of lock that a guest takes; the other is shared."""


@dataclass
class Pair:
    """An origin with VDI vm, and the cluster with its replica, on one machine."""

    origin: RealCluster
    replica: RealCluster
    folder: Path

    def night(self, number: int, base: int | None) -> Path:
        """Write to the origin, take snapshot nNUMBER, and back it up as the difference to the one of night ``base``."""
        asyncio.run(self._write(number))
        self.origin.dog("vdi", "snapshot", "vm", "-s", f"n{number}")
        path = self.folder / f"{base}-{number}"
        on = () if base is None else ("--base", f"n{base}")
        ran = self.origin.asyncbackup("backup", "vm", path, "-s", f"n{number}", *on)
        assert ran.returncode == 0, ran.stderr
        return path

    async def _write(self, number: int) -> None:
        async with connect("127.0.0.1", self.origin.port) as cluster:
            volume = await Volume.open(cluster, "vm")
            chance = random.Random(number)
            for idx in chance.sample(range(OBJECTS), 6):
                start = chance.randrange(0, OBJECT - MIB, 512)
                await volume.write(idx * OBJECT + start, chance.randbytes(MIB))
            await volume.write(number % OBJECTS * OBJECT, bytes(OBJECT))
            await volume.write((number + 5) % OBJECTS * OBJECT, chance.randbytes(OBJECT))

    def follow(self, files: list[Path], number: int) -> subprocess.CompletedProcess[bytes]:
        return self.replica.asyncbackup("restore", *files, "--to", "rep", "--onto", "--take-snapshot", f"n{number}")

    def read(self, cluster: RealCluster, vdi: str, number: int) -> bytes:
        return cluster.dog("vdi", "read", "-s", f"n{number}", vdi)

    def is_same(self, number: int) -> bool:
        """Tell whether dog reads the same from both, and the same from the working VDI of the replica."""
        expected = self.read(self.origin, "vm", number)
        return expected == self.read(self.replica, "rep", number) == self.replica.dog("vdi", "read", "rep")

    def kill_in_the_middle(self, file: Path, number: int) -> None:
        """Apply ``file``, and kill that when some objects are there."""
        before = self.objects()
        command = [sys.executable, "-m", "asyncbackup", "restore", "-q", "--in-flight", "1"]
        command += ["-p", str(self.replica.port), str(file)]
        process = subprocess.Popen([*command, "--to", "rep", "--onto", "--take-snapshot", f"n{number}"])
        wait_for(lambda: len(self.objects() - before) >= 2 or process.poll() is not None)
        process.kill()
        process.wait()
        assert f"n{number}".encode() not in self.replica.dog("vdi", "list", "-r"), "it was killed too late"

    def objects(self) -> set[str]:
        found = self.replica._folder.glob("store*/obj/*")
        return {path.name for path in found if len(path.name) == 16 and int(path.name, 16) < 1 << 56}


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)  # Other processes' files have no other way to say that they changed.


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with RealCluster(tmp_path / "origin") as origin, RealCluster(tmp_path / "replica", nodes=2, copies=1) as replica:
        origin.dog("vdi", "create", "vm", f"{OBJECTS * 4}M")
        made = Pair(origin, replica, tmp_path)
        full = made.night(0, None)
        first = replica.asyncbackup("restore", full, "--to", "rep", "--take-snapshot", "n0")
        assert first.returncode == 0, first.stderr
        assert made.is_same(0)
        yield made


def test_a_replica_is_kept_over_five_nights(pair: Pair) -> None:
    # The first as it should be.
    assert pair.follow([pair.night(1, 0)], 1).returncode == 0
    assert pair.is_same(1)

    # The second does not come: the third is refused, and caught up with by a merged increment.
    second, third = pair.night(2, 1), pair.night(3, 2)
    refused = pair.follow([third], 3)
    assert refused.returncode == 1
    assert b"holds snapshot 2 'n1'" in refused.stderr
    assert b"a backup between the two was not applied" in refused.stderr
    assert pair.read(pair.replica, "rep", 1) == pair.replica.dog("vdi", "read", "rep")
    merged = pair.folder / "1-3"
    made = pair.origin.asyncbackup("merge", second, third, "--to", merged, "--base", "n1")
    assert made.returncode == 0, made.stderr
    assert pair.follow([merged], 3).returncode == 0
    assert pair.is_same(3)

    # The fourth is killed in the middle: nothing else touches the VDI, and the same command finishes it.
    fourth = pair.night(4, 3)
    fifth = pair.night(5, 4)
    pair.kill_in_the_middle(fourth, 4)
    other = pair.follow([fourth, fifth], 5)
    assert (other.returncode, b"is half written" in other.stderr) == (1, True)
    finished = pair.follow([fourth], 4)
    assert finished.returncode == 0, finished.stderr
    assert pair.is_same(4)

    # The fifth, and once more: it is there already.
    assert pair.follow([fifth], 5).returncode == 0
    again = pair.follow([fifth], 5)
    assert (again.returncode, b"nothing was written" in again.stdout) == (0, True)
    assert pair.is_same(5)
    for number in (0, 1, 3, 4):
        assert pair.read(pair.origin, "vm", number) == pair.read(pair.replica, "rep", number)


def test_a_replica_that_dog_wrote_to_is_refused_until_it_is_rolled_back(pair: Pair) -> None:
    first = pair.night(1, 0)
    pair.replica.dog("vdi", "write", "rep", "0", "512", data=b"x" * 512)

    refused = pair.follow([first], 1)

    assert refused.returncode == 1
    assert b"was written to (1 objects differ) since" in refused.stderr
    assert pair.replica.dog("vdi", "read", "rep")[:512] == b"x" * 512
    pair.replica.dog("vdi", "rollback", "rep", "-s", "n0", "-f")
    assert pair.follow([first], 1).returncode == 0
    assert pair.is_same(1)


def test_a_half_written_replica_is_rolled_back(pair: Pair) -> None:
    first = pair.night(1, 0)
    pair.kill_in_the_middle(first, 1)

    pair.replica.dog("vdi", "rollback", "rep", "-s", "n0", "-f")

    assert pair.read(pair.replica, "rep", 0) == pair.replica.dog("vdi", "read", "rep")
    assert pair.follow([first], 1).returncode == 0
    assert pair.is_same(1)


def test_old_snapshots_of_a_replica_can_go_and_the_last_has_to_stay(pair: Pair) -> None:
    assert pair.follow([pair.night(1, 0)], 1).returncode == 0
    pair.replica.dog("vdi", "delete", "rep", "-s", "n0")
    assert pair.follow([pair.night(2, 1)], 2).returncode == 0
    assert pair.is_same(2)

    pair.replica.dog("vdi", "delete", "rep", "-s", "n2")
    refused = pair.follow([pair.night(3, 2)], 3)

    assert refused.returncode == 1
    assert b"the snapshot that it stands on was deleted" in refused.stderr
    assert pair.read(pair.origin, "vm", 2) == pair.replica.dog("vdi", "read", "rep")


def test_dog_prints_what_a_replica_equals(pair: Pair) -> None:
    snapshot = next(line for line in pair.replica.dog("vdi", "list", "-r").split(b"\n") if b" n0 " in line)
    vdi_id = snapshot.split()[7].decode()

    value = pair.replica.dog("vdi", "getattr", "rep", f"asyncbackup.origin.{vdi_id}")

    assert value.startswith(b'{"origin":1,"identity":{"vdi":"vm","vdi_id":')
    against = pair.replica.asyncbackup("verify", pair.folder / "None-0", "--against", "rep")
    assert against.returncode == 0, against.stderr


def test_a_replica_that_is_locked_is_left_alone(tmp_path: Path) -> None:
    with RealCluster(tmp_path / "origin") as origin, RealCluster(tmp_path / "replica", copies=0) as replica:
        replica.dog("cluster", "format", "-c", "1", "-l")
        origin.dog("vdi", "create", "vm", f"{OBJECTS * 4}M")
        pair = Pair(origin, replica, tmp_path)
        full = pair.night(0, None)
        assert replica.asyncbackup("restore", full, "--to", "rep", "--take-snapshot", "n0").returncode == 0
        first = pair.night(1, 0)
        asyncio.run(lock(replica, unlock=False))

        refused = pair.follow([first], 1)

        assert refused.returncode == 3
        assert b"a guest has locked it" in refused.stderr
        asyncio.run(lock(replica, unlock=True))
        assert pair.follow([first], 1).returncode == 0
        assert pair.is_same(1)


async def lock(replica: RealCluster, *, unlock: bool) -> None:
    async with connect("127.0.0.1", replica.port) as cluster:
        vdi_id = (await cluster.find_vdi("rep")).vdi_id
        look_up = messages.vdi_info("rep")
        if unlock:
            body = VdiBody(base_vdi_id=vdi_id, type=NORMAL).pack()
            await cluster.expect_success(Message(Opcode.RELEASE_VDI, body), "unlocking it")
        else:
            body = VdiBody(type=NORMAL).pack()
            await cluster.expect_success(look_up._replace(opcode=Opcode.LOCK_VDI, body=body), "locking it")
        assert await cluster.is_locked(vdi_id) is not unlock
