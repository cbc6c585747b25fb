"""What tells a real cluster and its snapshots from others."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path

import pytest

from asyncbackup import Cluster, connect
from tests import scenarios
from tests.clusters import MISSING, RealCluster

pytestmark = [pytest.mark.real, pytest.mark.skipif(bool(MISSING), reason=MISSING)]


async def test_the_time_of_formatting_is_the_one_that_dog_tells(real: RealCluster, client: Cluster) -> None:
    told = real.dog("cluster", "info").decode()

    found = await client.format_time()

    assert found is not None
    local = datetime.fromisoformat(found[:19] + "+00:00").astimezone()
    assert f"Cluster created at {local:%a %b} {local.day:2} {local:%H:%M:%S %Y}" in told


async def test_a_cluster_that_is_formatted_anew_is_another(tmp_path: Path) -> None:
    found = []
    with RealCluster(tmp_path) as cluster:
        for _ in range(2):
            cluster.dog("cluster", "format", "-c", "1", "-f")
            async with connect("127.0.0.1", cluster.port) as client:
                found.append(await client.format_time())

    assert None not in found
    assert len(set(found)) == 2


async def test_a_real_snapshot_is_identified(played: RealCluster, client: Cluster) -> None:
    vdi = scenarios.load("edges")["vdi"]

    found = await client.identify(await client.find_vdi(vdi, "a"))

    assert (found.vdi, found.id, found.tag, found.cluster) == (vdi, 1, "a", await client.format_time())
    assert found.created is not None
    assert abs(datetime.fromisoformat(found.created[:19] + "+00:00").timestamp() - time.time()) < 3600
