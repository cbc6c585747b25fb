"""A cluster for the occasion on this machine: of real ``sheep`` if it is on PATH, else the embedded server."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Final

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

from asyncbackup.bench import programs
from asyncbackup.bench.cases import Situation
from asyncbackup.bench.measure import end_group
from asyncbackup.bench.programs import LOCAL
from asyncbackup.bench.real_sheep import RealCluster
from asyncbackup.client import Address
from asyncbackup.errors import ProgramFailed, TargetUnusable

FAR: Final = "127.0.0.2"
"""Where the nodes are found over a longer way. Each machine with Linux has this address."""
PREFIX: Final = "asyncbackup-bench-"
"""Of the names of folders for stores and backups."""
_START_S: Final = 30.0
_LINE_SIZE: Final = 1 << 14


@dataclass(frozen=True, slots=True)
class Serving:
    """A cluster that serves, and is empty."""

    gateways: tuple[Address, ...]
    """Over the way to measure."""
    near: tuple[Address, ...]
    """Over the shortest way."""
    folder: Path
    """For whatever is written; it goes with the cluster."""


def is_real() -> bool:
    """Tell whether clusters are made of real ``sheep``. ``dog`` formats them."""
    return programs.is_on_path("sheep") and programs.is_on_path("dog")


@asynccontextmanager
async def serve(folder: Path | None, situation: Situation) -> AsyncIterator[Serving]:
    """Serve a cluster, with its stores in a new folder inside ``folder``, or among temporary files.

    All of it goes when the context ends. Raises ProgramFailed, and TargetUnusable for the folder.
    """
    async with AsyncExitStack() as stack:
        try:
            home = Path(stack.enter_context(TemporaryDirectory(prefix=PREFIX, dir=folder)))
        except OSError as error:
            raise TargetUnusable(str(folder or gettempdir()), error.strerror or str(error)) from error
        host = FAR if situation.delay_ms else LOCAL
        if is_real():
            cluster = RealCluster(home, situation.nodes, situation.copies, host)
            ports: Sequence[int] = cluster.ports
            if situation.delay_ms:
                # The nodes reach each other over it as well, as they do in a cluster that spans rooms.
                await stack.enter_async_context(delayed(host, situation.delay_ms, ports))
            stack.enter_context(cluster)
        else:
            stores = [home / f"store{node}" for node in range(situation.nodes)]
            ports = await stack.enter_async_context(_embedded(stores, situation.copies, host))
            if situation.delay_ms:
                await stack.enter_async_context(delayed(host, situation.delay_ms, ports))
        gateways, near = (tuple((name, port) for port in ports) for name in (host, LOCAL))
        yield Serving(gateways, near, home)


@asynccontextmanager
async def delayed(host: str, round_trip_ms: float, ports: Sequence[int]) -> AsyncIterator[None]:
    """Lead from ``host`` to the same ports of this machine, over a longer way. Raises ProgramFailed."""
    async with started(programs.delay(host, LOCAL, round_trip_ms, ports)):
        yield


@asynccontextmanager
async def _embedded(stores: Sequence[Path], copies: int, host: str) -> AsyncIterator[list[int]]:
    async with started(programs.embedded_sheep(stores, copies, host)) as line:
        yield [int(port) for port in line.split()]


@asynccontextmanager
async def started(command: Sequence[str]) -> AsyncIterator[str]:
    """Run a server as long as the context lasts; give the line that it prints when it serves. Raises ProgramFailed."""
    # A session of its own: Ctrl-C at a terminal is for us, who end it.
    process = await anyio.open_process(
        command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        assert process.stdout is not None
        try:
            with anyio.fail_after(_START_S):
                line = await BufferedByteReceiveStream(process.stdout).receive_until(b"\n", _LINE_SIZE)
        except (TimeoutError, anyio.IncompleteRead, anyio.DelimiterNotFound) as error:
            raise ProgramFailed(" ".join(command[1:4]), "did not begin to serve") from error
        yield line.decode()
    finally:
        await end_group(process)


def room(folder: Path | None) -> int:
    """Give how many bytes are free where ``serve`` would keep its stores. Raises TargetUnusable."""
    try:
        status = os.statvfs(folder or gettempdir())
    except OSError as error:
        raise TargetUnusable(str(folder), error.strerror or str(error)) from error
    return status.f_bavail * status.f_frsize
