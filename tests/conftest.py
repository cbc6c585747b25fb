"""What every test stands on: both event loops, fixed seeds, an embedded server with a client on it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import pytest
import uvloop
from hypothesis import HealthCheck, settings

from asyncbackup import ClientOptions, Cluster, connect
from asyncbackup.sheep import MemoryStore, Sheep
from tests.chains import Files, copy_files
from tests.object_stores import S3Server, serving_s3

settings.register_profile(
    "fixed", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("fixed")


def _debugging_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.SelectorEventLoop()
    loop.set_debug(True)
    # What debug mode calls slow depends on the machine; a warning for it would make the tests depend on it too.
    loop.slow_callback_duration = 60
    return loop


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--one-loop",
        action="store_true",
        help="run async tests on one event loop alone: asyncio's in debug mode, which warns of more than uvloop does",
    )


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if config.getoption("--one-loop"):
        return {"asyncio": _debugging_loop}
    return {"asyncio": _debugging_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True, scope="module")
def collect_garbage() -> Iterator[None]:
    """Let go of the stores of embedded servers. They are parts of cycles, and hold gigabytes after some modules."""
    yield
    # What was garbage when a command line was run is frozen with its modules.
    gc.unfreeze()
    gc.collect()


@pytest.fixture
async def sheep() -> AsyncIterator[Sheep]:
    """An embedded server with an empty store."""
    async with Sheep(MemoryStore()) as running:
        yield running


@pytest.fixture
async def cluster(sheep: Sheep) -> AsyncIterator[Cluster]:
    """A client of ``sheep``, with deadlines short enough for a test that misses one."""
    options = ClientOptions(connections=2, request_timeout_s=10, give_up_after_s=0)
    async with connect(sheep.host, sheep.port, options) as connected:
        yield connected


@pytest.fixture(scope="session")
def running_s3() -> Iterator[S3Server]:
    """A server that speaks S3, for all tests that need one."""
    with serving_s3() as server:
        yield server


@pytest.fixture
def s3(running_s3: S3Server) -> Iterator[S3Server]:
    """That server, without faults and as if it had got no requests."""
    running_s3.requests.clear()
    yield running_s3
    running_s3.faults.clear()


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """The backups of tests.chains."""
    return copy_files(tmp_path)
