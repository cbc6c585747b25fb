"""Restores into a real cluster that several commands make together, and writes that come when all is over."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from asyncbackup import Cluster, Volume, compare
from asyncbackup.wire import messages
from asyncbackup.wire.constants import Result
from asyncbackup.wire.oid import data_oid
from tests.cli.command import start
from tests.clusters import MISSING, RealCluster
from tests.disks import OBJECT, OBJECTS, content_of, delete_as_dog, make_disk, noise

pytestmark = [pytest.mark.real, pytest.mark.skipif(bool(MISSING), reason=MISSING)]

COUNT = 3


@pytest.mark.parametrize("is_clone", [False, True], ids=["chain", "clone"])
async def test_what_several_commands_restore_at_the_same_time_is_what_was_backed_up(
    real: RealCluster, client: Cluster, tmp_path: Path, *, is_clone: bool
) -> None:
    disk, new = tmp_path.name, f"new-{tmp_path.name}"  # The cluster is that of all tests.
    await make_disk(client, disk)
    a, b = tmp_path / "a", tmp_path / "b"
    assert real.asyncbackup("backup", "-q", disk, "-s", "a", a).returncode == 0
    assert real.asyncbackup("backup", "-q", disk, "-s", "b", "-F", "a", b).returncode == 0
    given = [b, "--base", "a"] if is_clone else [a, b]
    line = ["restore", "-q", *map(str, given), "--to", new, "-p", str(real.port)]

    # Each of them twice, as by mistake.
    runs = [start(*line, "--shard", f"{number}/{COUNT}", stderr=subprocess.PIPE) for number in (3, 1, 2, 2, 3, 1)]
    for run in runs:
        _, err = run.communicate(timeout=60)
        assert (run.returncode, err) == (0, b"")
    slept = await client.find_vdi(new)
    end = ("--join-shards", str(COUNT), "--take-snapshot", "b")
    done = real.asyncbackup("restore", "-q", *given, "--to", new, *end)
    assert (done.returncode, done.stderr) == (0, b"")

    restored = await content_of(client, disk, "b")
    assert await content_of(client, new, "b") == await content_of(client, new, None) == restored
    assert (await compare(client, [a, b], new, snapshot="b")).is_good
    volume = await Volume.open(client, new)
    for idx in range(OBJECTS):
        await volume.write(idx * OBJECT, noise(100 + idx, OBJECT))
    late = messages.create_object(data_oid(slept.vdi_id, 2), 0, restored[2], copies=slept.nr_copies)
    request = await client.call(late)

    assert request.result is Result.READONLY
    assert await content_of(client, new, "b") == restored
    assert await content_of(client, new, None) == {idx: noise(100 + idx, OBJECT) for idx in range(OBJECTS)}
    # The base keeps its objects when the clone goes.
    await delete_as_dog(client, new)
    assert await content_of(client, disk, "b") == restored


async def test_a_clone_that_is_discarded_leaves_its_base_to_others(
    real: RealCluster, client: Cluster, tmp_path: Path
) -> None:
    disk, new = tmp_path.name, f"new-{tmp_path.name}"
    await make_disk(client, disk)
    b = tmp_path / "b"
    assert real.asyncbackup("backup", "-q", disk, "-s", "b", "-F", "a", b).returncode == 0
    held = {tag: await content_of(client, disk, tag) for tag in ("a", "b")}
    line = ("restore", "-q", b, "--base", "a", "--to", new)
    assert real.asyncbackup(*line, "--shard", "1/3").returncode == 0

    assert real.asyncbackup("restore", "-q", "--discard", new).returncode == 0

    for tag, content in held.items():
        assert await content_of(client, disk, tag) == content
    # Its name is free, for as many shards as anybody likes.
    for number in (1, 2):
        assert real.asyncbackup(*line, "--shard", f"{number}/2").returncode == 0
    assert real.asyncbackup(*line, "--join-shards", "2", "--take-snapshot", "b").returncode == 0
    assert await content_of(client, new, None) == held["b"]
