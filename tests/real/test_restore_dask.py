"""Restores into a real cluster that workers of Dask make, and writes that come when all is over."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncbackup import Cluster, Volume, compare
from asyncbackup.wire import messages
from asyncbackup.wire.constants import Result
from asyncbackup.wire.oid import data_oid
from tests.clusters import MISSING, RealCluster
from tests.disks import OBJECT, OBJECTS, content_of, make_disk, noise

pytestmark = [pytest.mark.real, pytest.mark.skipif(bool(MISSING), reason=MISSING)]


@pytest.mark.parametrize("is_clone", [False, True], ids=["chain", "clone"])
async def test_a_write_that_comes_after_the_end_changes_nothing(
    real: RealCluster, client: Cluster, tmp_path: Path, *, is_clone: bool
) -> None:
    disk, new = tmp_path.name, f"new-{tmp_path.name}"  # The cluster is that of all tests.
    await make_disk(client, disk)
    a, b = tmp_path / "a", tmp_path / "b"
    assert real.asyncbackup("backup", "-q", disk, "-s", "a", a).returncode == 0
    assert real.asyncbackup("backup", "-q", disk, "-s", "b", "-F", "a", b).returncode == 0
    given = [b, "--base", "a"] if is_clone else [a, b]
    done = real.asyncbackup("restore", "-q", *given, "--to", new, "--take-snapshot", "b", "--dask", "local")
    assert (done.returncode, done.stderr) == (0, b"")
    restored = await content_of(client, disk, "b")
    assert await content_of(client, new, "b") == await content_of(client, new, None) == restored
    assert (await compare(client, [a, b], new, snapshot="b")).is_good

    volume = await Volume.open(client, new)
    for idx in range(OBJECTS):
        await volume.write(idx * OBJECT, noise(100 + idx, OBJECT))
    snapshot = await client.find_vdi(new, "b")
    late = messages.create_object(data_oid(snapshot.vdi_id, 2), 0, restored[2], copies=snapshot.nr_copies)
    request = await client.call(late)

    assert request.result is Result.READONLY
    assert await content_of(client, new, "b") == restored
    assert await content_of(client, new, None) == {idx: noise(100 + idx, OBJECT) for idx in range(OBJECTS)}
