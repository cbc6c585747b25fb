"""The reference client finds no difference between the embedded server and a real sheep.

Each scenario is a list of ``dog`` commands. Both servers get the same ones; exit codes and everything that dog prints
have to be the same, vdi ids included, once times and ports are masked.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from asyncbackup import connect
from asyncbackup.sheep import FolderStore, MemoryStore, Sheep, SheepCluster, Store

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        not (shutil.which("dog") and shutil.which("sheep")), reason="the real sheep and dog are not on PATH"
    ),
]

MIB = 1 << 20


@dataclass(frozen=True)
class Dog:
    """One command line, and what dog reads on standard input."""

    line: str
    stdin: bytes = b""


def pattern(size: int, seed: int) -> bytes:
    return hashlib.shake_128(bytes([seed])).digest(size)


WRITTEN = [
    Dog("vdi create disk 64M"),
    Dog("vdi write disk 0 3000000", pattern(3_000_000, 1)),
    Dog("vdi write disk 9000448 6000000", pattern(6_000_000, 2)),
]
SNAPSHOTS = [
    *WRITTEN,
    Dog("vdi snapshot disk -s first"),
    Dog("vdi write disk 1024 512", pattern(512, 3)),
    Dog("vdi write disk 40000000 512", pattern(512, 4)),
    Dog("vdi snapshot disk -s second"),
    Dog("vdi write disk 12000000 8192", pattern(8192, 5)),
]
LISTED = [Dog("vdi list"), Dog("vdi list -r"), Dog("vdi tree"), Dog("vdi graph")]
READ_BACK = [Dog("vdi read disk"), Dog("vdi read disk -s first"), Dog("vdi read disk -s 2 512 8000000")]

SCENARIOS = {
    "cluster": [
        Dog("cluster info"),
        Dog("cluster info -v"),
        Dog("cluster info -r"),
        Dog("node list"),
        Dog("node list -r"),
    ],
    "nodes at work": [Dog("node recovery"), Dog("vdi lock list"), Dog("node stat"), Dog("vdi nonsense")],
    "nothing there": [*LISTED, Dog("vdi read none"), Dog("vdi delete none"), Dog("vdi snapshot none -s tag")],
    "create": [Dog("vdi create disk 64M -v"), Dog("vdi create disk 64M"), Dog("vdi create other 10G -v"), *LISTED],
    "create preallocated": [Dog("vdi create disk 16M -P"), Dog("vdi list -r"), Dog("vdi read disk")],
    "object sizes": [
        Dog("vdi create small 64M -z 20 -v"),
        Dog("vdi write small 3145000 3000", pattern(3000, 1)),
        Dog("vdi create large 64M -z 24 -v"),
        Dog("vdi write large 20000256 9000", pattern(9000, 2)),
        Dog("vdi snapshot large -s tag"),
        *LISTED,
        Dog("vdi read small"),
        Dog("vdi read large -s tag"),
    ],
    "hyper volume": [
        Dog("vdi create disk 8T -y -v"),
        Dog("vdi write disk 0 4096", pattern(4096, 1)),
        Dog("vdi write disk 5497558138880 70000", pattern(70000, 2)),
        Dog("vdi read disk 5497558138880 70000"),
        Dog("vdi read disk 100000000 8192"),
        Dog("vdi snapshot disk -s tag"),
        *LISTED,  # and no deletion: that ends a real sheep 1.0
    ],
    "write and read": [*WRITTEN, Dog("vdi read disk"), Dog("vdi read disk 8999936 2048"), *LISTED],
    "snapshots": [*SNAPSHOTS, *LISTED, *READ_BACK, Dog("vdi read disk -s third"), Dog("vdi read disk -s 7")],
    "backup": [
        *SNAPSHOTS,
        Dog("vdi backup disk -s first"),
        Dog("vdi backup disk -F first -s second"),
        Dog("vdi backup disk -F 1 -s 2"),
    ],
    "clone": [
        *SNAPSHOTS,
        Dog("vdi clone disk -s first copy -v"),
        Dog("vdi write copy 4194304 512", pattern(512, 6)),
        Dog("vdi clone disk -s second -n whole -v"),
        *LISTED,
        Dog("vdi read copy"),
        Dog("vdi read whole"),
    ],
    "delete": [
        *SNAPSHOTS,
        Dog("vdi delete disk -s first"),
        *LISTED,
        *READ_BACK,
        Dog("vdi delete disk"),
        *LISTED,
        *READ_BACK,
        Dog("vdi create disk 64M -v"),
        *LISTED,
        Dog("vdi delete disk -s second"),
        *LISTED,
    ],
    "rollback": [*SNAPSHOTS, Dog("vdi rollback disk -s first -f -v"), *LISTED, Dog("vdi read disk"), *READ_BACK],
    "resize": [*WRITTEN, Dog("vdi resize disk 96M"), Dog("vdi resize disk 32M"), *LISTED, Dog("vdi read disk")],
    "objects": [
        *SNAPSHOTS,
        Dog("vdi object location disk -i 0"),
        Dog("vdi object location disk -i 5"),
        Dog("vdi object map disk"),
        Dog("vdi track disk -i 2"),
    ],
    "attributes": [
        Dog("vdi getattr disk key"),
        Dog("vdi setattr disk key value"),
        *WRITTEN,
        Dog("vdi getattr disk key"),
        Dog("vdi setattr disk key value"),
        Dog("vdi getattr disk key"),
        Dog("vdi setattr disk key other -x"),
        Dog("vdi setattr disk key other"),
        Dog("vdi setattr disk long", b"long " * 1000),
        Dog("vdi getattr disk long"),
        Dog("vdi snapshot disk -s tag"),
        Dog("vdi getattr disk key"),
        Dog("vdi delete disk"),
        Dog("vdi getattr disk key"),
        Dog("vdi create disk 64M"),
        Dog("vdi getattr disk key"),
        Dog("vdi setattr disk key -d"),
        Dog("vdi getattr disk key"),
        Dog("vdi setattr disk key -d"),
        Dog("vdi setattr disk key third -x"),
        Dog("vdi getattr disk key"),
        Dog("vdi setattr disk key fourth"),
        Dog("vdi getattr disk key"),
        Dog("vdi setattr disk key -d"),
        Dog("vdi getattr disk key"),  # "third" again: that is how it is
        *LISTED,
    ],
    "shared ids": [
        Dog("vdi create disk 4M -v"),
        *[Dog(f"vdi snapshot disk -s {number}x") for number in range(5)],
        Dog("vdi create disl 4M -v"),
        Dog("vdi snapshot disl -s tag -v"),
        Dog("vdi snapshot disk -s last"),
        *LISTED,
    ],
}


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_dog_sees_no_difference(scenario: str, tmp_path: Path) -> None:
    commands = SCENARIOS[scenario]

    async with real_sheep(tmp_path) as port:
        expected = await transcript(commands, port)
    async with Sheep(MemoryStore()) as sheep:
        got = await transcript(commands, sheep.port)

    assert got == expected


async def test_a_folder_outlives_its_server(tmp_path: Path) -> None:
    questions = [*LISTED, *READ_BACK, Dog("vdi backup disk -F first -s second"), Dog("vdi snapshot disk -s third")]

    async with real_sheep(tmp_path) as port:
        await transcript(SNAPSHOTS, port)
        expected = await transcript(questions, port)
    async with Sheep(FolderStore(tmp_path / "embedded")) as sheep:
        await transcript(SNAPSHOTS, sheep.port)
    async with Sheep(FolderStore(tmp_path / "embedded")) as sheep:
        got = await transcript(questions, sheep.port)

    assert got == expected


async def test_dog_restores_what_dog_backed_up(tmp_path: Path) -> None:
    for number, store in enumerate[Store]([MemoryStore(), FolderStore(tmp_path / "embedded")]):
        async with Sheep(store) as sheep:
            await transcript(SNAPSHOTS, sheep.port)
            backup = await run(Dog("vdi backup disk -F first -s second"), sheep.port)
            wanted = await run(Dog("vdi read disk -s second"), sheep.port)
            restored = await run(Dog("vdi restore disk -s first", backup.stdout), sheep.port)
            assert restored.code == 0, restored.stderr
            # It leaves what it restored behind as a snapshot without a tag, under the working VDI of before.
            async with connect(sheep.host, sheep.port) as cluster:
                untagged = [
                    inode.snap_id for inode in (await cluster.list_vdis()).sound if inode.is_snapshot and not inode.tag
                ]
            assert (await run(Dog(f"vdi read disk -s {max(untagged)}"), sheep.port)).stdout == wanted.stdout, number


async def test_several_nodes_are_a_cluster_to_dog_and_objects_are_where_it_looks_for_them() -> None:
    async with SheepCluster(3, copies=2) as sheep:
        port = sheep.nodes[1].port
        for step in (Dog("vdi create -P disk 64M"), Dog("vdi write disk", pattern(3_000_000, 1))):
            assert (await run(step, port)).code == 0
        sheep.kill(0)
        assert (await run(Dog("vdi read disk 0 3000000"), port)).stdout == pattern(3_000_000, 1)
        await sheep.restart(0)

        for idx in range(16):
            ran = await run(Dog(f"vdi object location -i {idx} disk"), port)
            told, _, computed = ran.stdout.decode().partition("According to")
            holders = set(re.findall(r"(\S+) has the object", told))
            assert holders == set(re.findall(r"[\d.]+:\d+", computed))
            assert len(holders) == 2


@dataclass(frozen=True)
class Ran:
    code: int
    stdout: bytes
    stderr: bytes


async def run(command: Dog, port: int) -> Ran:
    ran = await asyncio.to_thread(
        subprocess.run,
        ["dog", *command.line.split(), "-p", str(port)],
        input=command.stdin,
        capture_output=True,
        check=False,
        timeout=30,
        env={**os.environ, "TZ": "UTC"},
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)


async def transcript(commands: list[Dog], port: int) -> list[str]:
    """Run commands in order, and give for each the command, its exit code and what it printed, masked."""
    return [masked(command, await run(command, port), port) for command in commands]


def masked(command: Dog, ran: Ran, port: int) -> str:
    try:
        printed = ran.stdout.decode("ascii")
    except UnicodeDecodeError:
        printed = f"{len(ran.stdout)} bytes, sha256 {hashlib.sha256(ran.stdout).hexdigest()}"
    text = f"dog {command.line} -> {ran.code}\n{printed}{ran.stderr.decode()}".replace(f":{port}", ":PORT")
    for moment in (
        r"\d{4}-\d\d-\d\d( +\d\d:\d\d(:\d\d)?)?",
        r"\d\d:\d\d:\d\d",
        r"(?<=Cluster created at ).*",
        r"\b1[789]\d{8}\b",
        r"Mon|Tue|Wed|Thu|Fri|Sat|Sun",
    ):
        text = re.sub(moment, "TIME", text)
    return text


@asynccontextmanager
async def real_sheep(folder: Path) -> AsyncIterator[int]:
    """Run a real sheep of its own cluster: the shared file of its local driver is in ``folder``."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        "sheep",
        *("-n", "-f", "-b", "127.0.0.1", "-z", "1", "-p", str(port)),
        *("-c", f"local:{folder / 'members'}", str(folder / "real")),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(20):
            while (await run(Dog("cluster format -c 1"), port)).code:
                assert process.returncode is None, "sheep ended while it was waited for"
        yield port
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
