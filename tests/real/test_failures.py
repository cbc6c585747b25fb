"""What becomes of a backup when the cluster fails under it. Backups are caught half-way by a pipe that nobody reads."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from asyncbackup import ClientOptions, Cluster, Progress, Volume, WindowOptions, backup, connect
from asyncbackup.errors import ClusterError, ConnectionLost, RequestTimeout, Unreachable
from tests.clusters import MISSING, RealCluster, free_ports

pytestmark = [pytest.mark.real, pytest.mark.skipif(bool(MISSING), reason=MISSING)]

OBJECT_SIZE = 4 << 20
OBJECTS = 24
"""More than the window and a pipe hold with the options below, so that a backup cannot finish unread."""
SMALL_WINDOW = ("--in-flight", "2", "--connections", "2")


async def fill(cluster: Cluster, name: str = "disk") -> None:
    """Create a VDI with a snapshot ``s`` in which every object is full of its number."""
    await cluster.create_vdi(name, OBJECTS * OBJECT_SIZE)
    volume = await Volume.open(cluster, name)
    for idx in range(OBJECTS):
        await volume.write(idx * OBJECT_SIZE, bytes([idx + 1]) * OBJECT_SIZE)
    await cluster.create_snapshot(name, "s")


@contextmanager
def made(folder: Path, nodes: int, copies: int) -> Iterator[RealCluster]:
    with RealCluster(folder, nodes=nodes, copies=copies) as cluster:

        async def connect_and_fill() -> None:
            async with connect("127.0.0.1", cluster.port) as connected:
                await fill(connected)

        asyncio.run(connect_and_fill())
        yield cluster


@pytest.fixture
def doomed(tmp_path: Path) -> Iterator[RealCluster]:
    """Three nodes with two copies of VDI ``disk``, to be broken."""
    with made(tmp_path / "doomed", nodes=3, copies=2) as cluster:
        yield cluster


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[RealCluster]:
    """One node with VDI ``disk``, to be broken."""
    with made(tmp_path / "alone", nodes=1, copies=1) as cluster:
        yield cluster


@contextmanager
def half_way(cluster: RealCluster, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a backup to a pipe, and let it write the first bytes and no more than fits."""
    command = [sys.executable, "-m", "asyncbackup", "backup", "-p", str(cluster.port), *SMALL_WINDOW, *options]
    with subprocess.Popen(
        [*command, "-s", "s", "disk", "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdout is not None
        assert len(process.stdout.read(8)) == 8
        try:
            yield process
        finally:
            process.kill()


def test_a_node_killed_behind_the_gateway_does_not_show(doomed: RealCluster) -> None:
    expected = doomed.asyncbackup("backup", "-s", "s", "disk", "-").stdout

    with half_way(doomed) as process:
        doomed.kill(2)
        rest, complaint = process.communicate(timeout=60)

    assert process.returncode == 0, complaint
    assert rest == expected[8:]


@pytest.mark.parametrize("harm", [RealCluster.kill, RealCluster.stop], ids=["killed", "hanging"])
def test_a_gateway_that_is_lost_does_not_show(doomed: RealCluster, harm: Callable[[RealCluster, int], None]) -> None:
    expected = doomed.asyncbackup("backup", "-s", "s", "disk", "-").stdout

    with half_way(doomed) as process:
        harm(doomed, 0)
        rest, complaint = process.communicate(timeout=60)

    assert process.returncode == 0, complaint
    assert rest == expected[8:]


def test_the_only_node_killed_ends_the_backup(alone: RealCluster) -> None:
    with half_way(alone, "--give-up-after", "0") as process:
        alone.kill(0)
        started = time.monotonic()
        _, complaint = process.communicate(timeout=60)

    assert process.returncode == 2
    assert complaint.startswith(b"asyncbackup: ")
    assert complaint.count(b"\n") == 1
    assert time.monotonic() - started < 5


def test_the_only_node_hanging_ends_the_backup(alone: RealCluster) -> None:
    with half_way(alone, "--timeout", "1", "--give-up-after", "0") as process:
        alone.stop(0)
        started = time.monotonic()
        _, complaint = process.communicate(timeout=60)

    assert process.returncode == 2
    assert b"did not answer" in complaint
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("harm", "error"),
    [
        # Where no request is under way when the connections end, they cannot be opened again.
        (lambda cluster: cluster.kill(0), (ConnectionLost, Unreachable)),
        (lambda cluster: cluster.stop(0), RequestTimeout),
    ],
    ids=["killed", "hanging"],
)
async def test_a_failed_backup_leaves_no_file(
    alone: RealCluster,
    tmp_path: Path,
    harm: Callable[[RealCluster], None],
    error: type[ClusterError] | tuple[type[ClusterError], ...],
) -> None:
    folder = tmp_path / "targets"
    folder.mkdir()

    harmed = False

    def on_progress(progress: Progress) -> None:
        nonlocal harmed
        if progress.objects_done >= 3 and not harmed:
            harmed = True
            harm(alone)

    options = ClientOptions(connections=2, request_timeout_s=1, give_up_after_s=0)
    with pytest.raises(error):
        async with connect("127.0.0.1", alone.port, options) as cluster:
            await backup(
                cluster,
                "disk",
                folder / "file",
                snapshot="s",
                options=WindowOptions(workers=1),
                on_progress=on_progress,
            )

    assert list(folder.iterdir()) == []


async def test_a_cancelled_backup_leaves_no_file(doomed: RealCluster, tmp_path: Path) -> None:
    folder = tmp_path / "targets"
    folder.mkdir()
    async with connect("127.0.0.1", doomed.port) as cluster:
        task: asyncio.Task[object]

        def on_progress(progress: Progress) -> None:
            if progress.objects_done >= 3:
                task.cancel()

        options = WindowOptions(workers=1)
        task = asyncio.ensure_future(
            backup(cluster, "disk", folder / "file", snapshot="s", options=options, on_progress=on_progress)
        )
        with pytest.raises(asyncio.CancelledError):
            await task

        assert list(folder.iterdir()) == []
        summary = await backup(cluster, "disk", folder / "file", snapshot="s")
        assert summary.records == OBJECTS


def test_an_unformatted_cluster_is_told(tmp_path: Path) -> None:
    with RealCluster(tmp_path, copies=0) as cluster:
        ran = cluster.asyncbackup("backup", "-s", "s", "disk", tmp_path / "file")

    assert ran.returncode == 2
    assert b"waiting for format; format the cluster with `dog cluster format`" in ran.stderr
    assert not (tmp_path / "file").exists()


def test_too_few_nodes_of_a_strict_cluster_still_serve_reads(tmp_path: Path) -> None:
    with RealCluster(tmp_path, nodes=2, copies=0) as cluster:
        cluster.dog("cluster", "format", "-c", "2", "--strict")
        cluster.dog("vdi", "create", "disk", "4M")
        cluster.dog("vdi", "write", "disk", data=b"x" * OBJECT_SIZE)
        cluster.dog("vdi", "snapshot", "-s", "s", "disk")
        cluster.kill(1)
        cluster.wait_for_nodes(1)

        ran = cluster.asyncbackup("backup", "-s", "s", "disk", tmp_path / "file")

    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "file").stat().st_size == 16 + 16 + OBJECT_SIZE


def test_nobody_listens(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    command = [
        sys.executable,
        "-m",
        "asyncbackup",
        "backup",
        "-p",
        str(port),
        "-s",
        "s",
        "disk",
        str(tmp_path / "file"),
    ]

    ran = subprocess.run(command, capture_output=True, check=False, timeout=30)

    assert ran.returncode == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("-s", "s", "nothing"), "no VDI named 'nothing'"),
        (("-s", "later", "known"), "no snapshot 'later'"),
        (("-s", "7", "known"), "no snapshot 7"),
        (("-s", "s", "-F", "earlier", "known"), "no snapshot 'earlier'"),
    ],
)
def test_what_does_not_exist_is_told(
    real: RealCluster, known: None, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    ran = real.asyncbackup("backup", *arguments, tmp_path / "file")

    assert ran.returncode == 5
    assert told in ran.stderr.decode()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="session")
def known(real: RealCluster) -> None:
    """VDI ``known`` with snapshots ``s`` and ``gone``, the second one deleted, like all of VDI ``unknown``."""
    real.dog("vdi", "create", "known", "8M")
    real.dog("vdi", "write", "known", "0", "512", data=b"x" * 512)
    real.dog("vdi", "snapshot", "-s", "s", "known")
    real.dog("vdi", "snapshot", "-s", "gone", "known")
    real.dog("vdi", "delete", "-s", "gone", "known")
    real.dog("vdi", "create", "unknown", "8M")
    real.dog("vdi", "delete", "unknown")


def test_listing_agrees_with_dog(real: RealCluster, known: None) -> None:
    ran = real.asyncbackup("vdi", "list", "--json")
    ours = {
        (
            vdi["name"],
            vdi["snap_id"] if vdi["kind"] == "snapshot" else 0,
            vdi["vdi_size"],
            vdi["own_bytes"],
            vdi["shared_bytes"],
            vdi["vdi_id"],
            vdi["tag"],
            vdi["block_size_shift"],
        )
        for vdi in json.loads(ran.stdout)
    }
    theirs = set()
    for line in real.dog("vdi", "list", "-r").decode().splitlines():
        _, name, snap_id, size, own, shared, _, vdi_id, _, tag, shift = line.split(" ")
        theirs.add((name, int(snap_id), int(size), int(own), int(shared), vdi_id, tag, int(shift)))

    assert ours == theirs
    assert {"known", "unknown"} & {vdi[0] for vdi in ours} == {"known"}
    assert not any(vdi[6] == "gone" for vdi in ours)


def test_tree_holds_what_the_list_holds(real: RealCluster, known: None) -> None:
    def flatten(nodes: list[dict[str, object]]) -> Iterator[tuple[object, object]]:
        for node in nodes:
            yield node["vdi_id"], node["tag"]
            children = node["children"]
            assert isinstance(children, list)
            yield from flatten(children)

    listed = json.loads(real.asyncbackup("vdi", "list", "--json").stdout)
    tree = json.loads(real.asyncbackup("vdi", "tree", "--json").stdout)

    assert sorted(flatten(tree)) == sorted((vdi["vdi_id"], vdi["tag"]) for vdi in listed)
