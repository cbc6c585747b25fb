"""A cluster of three real nodes that keeps two copies, for all tests that do not break it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from asyncbackup import ClientOptions, Cluster, connect
from tests import scenarios
from tests.clusters import RealCluster


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    with RealCluster(tmp_path_factory.mktemp("real"), nodes=3, copies=2) as cluster:
        yield cluster


@pytest.fixture
async def client(real: RealCluster) -> AsyncIterator[Cluster]:
    async with connect("127.0.0.1", real.port, ClientOptions(request_timeout_s=20)) as connected:
        yield connected


@pytest.fixture(scope="session")
def played(real: RealCluster) -> RealCluster:
    """The cluster with the golden scenarios played into it."""

    async def play() -> None:
        async with connect("127.0.0.1", real.port) as cluster:
            for name in scenarios.NAMES:
                await scenarios.play(cluster, scenarios.load(name))

    asyncio.run(play())
    return real
