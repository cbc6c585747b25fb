"""Runs the command line: in this process where that shows the same, else in one of its own."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anyio.from_thread import start_blocking_portal

from asyncbackup import ClientOptions, Cluster, connect
from asyncbackup.cli.exits import ExitCode
from asyncbackup.cli.main import run
from asyncbackup.sheep import Fault, MemoryStore, Sheep
from asyncbackup.wire.constants import Opcode
from asyncbackup.wire.messages import ObjectBody, RequestHeader
from asyncbackup.wire.oid import is_data
from tests.disks import make_disk, make_large_disk
from tests.faults.proxy import Handler, serve

PROGRAM = [sys.executable, "-W", "error", "-m", "asyncbackup"]


@dataclass(frozen=True)
class Outcome:
    code: int
    out: bytes
    err: str


@dataclass
class Served:
    """An embedded server in a thread, and whether a client has begun to read data."""

    sheep: Sheep
    is_reading: threading.Event = field(default_factory=threading.Event)

    @property
    def port(self) -> str:
        return str(self.sheep.port)


@contextmanager
def serving(store: MemoryStore, *faults: str) -> Iterator[Served]:
    """Serve ``store`` in a thread. ``is_reading`` is set with the first read of a data object."""

    def note(header: RequestHeader) -> None:
        if header.opcode == Opcode.READ_OBJ and is_data(ObjectBody.unpack(header.body).oid):
            served.is_reading.set()

    sheep = Sheep(store, faults=[Fault.parse(fault) for fault in faults], on_request=note)
    served = Served(sheep)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(sheep):
        yield served


@contextmanager
def playing(handler: Handler) -> Iterator[str]:
    """Let ``handler`` answer at a port, which this gives, in a thread."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(serve(handler)) as port:
        yield str(port)


def disk_store() -> MemoryStore:
    """Make a store that holds the disk of tests.disks."""
    return _filled(make_disk)


def large_store() -> MemoryStore:
    """Make a store that holds the large disk of tests.disks."""
    return _filled(make_large_disk)


def _filled(make: Callable[[Cluster], Awaitable[None]]) -> MemoryStore:
    store = MemoryStore()

    async def fill() -> None:
        async with connect(sheep.host, sheep.port, ClientOptions(connections=1)) as cluster:
            await make(cluster)

    sheep = Sheep(store)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(sheep):
        portal.call(fill)
    return store


class Command:
    """Calls the command line in this process; what it prints is captured by ``capture``, pytest's fixture.

    A bug, as the command line calls what it did not expect, fails the test unless ``finds_bug``.
    """

    def __init__(self, capture: Any) -> None:
        self._capture = capture

    def __call__(self, *arguments: object, finds_bug: bool = False) -> Outcome:
        self._capture.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = self._capture.readouterr()
        assert (code == ExitCode.BUG) == (b"this is a bug of asyncbackup" in err) == finds_bug, err.decode()
        return Outcome(int(code), out, err.decode())


def start(*arguments: str | Path, **options: Any) -> subprocess.Popen[bytes]:
    """Start the command line as a process."""
    return subprocess.Popen([*PROGRAM, *map(str, arguments)], **options)


def piped(*arguments: object, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the command line as a process, with pipes at both ends."""
    command = [*PROGRAM, *map(str, arguments)]
    return subprocess.run(command, input=data, capture_output=True, check=False, timeout=60)
