"""The cluster to measure against: a real sheep if there is one on PATH, the embedded server otherwise."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.clusters import RealCluster, free_ports

BIND = "127.0.0.1"
_FAR = "127.0.0.2"


@dataclass(frozen=True)
class Server:
    """A cluster of one node, empty, and a folder for what the benchmarks write."""

    port: int
    folder: Path
    is_real: bool
    host: str = BIND

    @property
    def has_dog(self) -> bool:
        return shutil.which("dog") is not None


def describe() -> str:
    """Name the server that ``serve`` will start."""
    sheep = shutil.which("sheep")
    if sheep is None:
        return "the embedded server (no sheep on PATH)"
    version = subprocess.run([sheep, "-v"], capture_output=True, text=True, check=True).stdout
    return version.splitlines()[0]


@contextmanager
def serve(folder: Path | None, round_trip_ms: float = 0) -> Iterator[Server]:
    """Start a cluster with its store in a new folder inside ``folder``, which goes when the context ends.

    With a round trip, ``host`` leads to it over a way that takes so long. A real sheep names that in lists of nodes.
    """
    with tempfile.TemporaryDirectory(prefix="asyncbackup-bench-", dir=folder) as made, ExitStack() as stack:
        home = Path(made)
        host = _FAR if round_trip_ms else BIND
        is_real = bool(shutil.which("sheep") and shutil.which("dog"))
        cluster: AbstractContextManager[object]
        if is_real:
            cluster = real = RealCluster(home, options=("-n", "-y", host))
            port = real.port
        else:
            (port,) = free_ports(1)
            cluster = _embedded(home, port)
        if round_trip_ms:
            # dog reaches a real one over it as well, where it formats it.
            stack.enter_context(_delayed(host, port, round_trip_ms))
        stack.enter_context(cluster)
        yield Server(port, home, is_real, host)


@contextmanager
def _delayed(host: str, port: int, round_trip_ms: float) -> Iterator[None]:
    """Lead ``host`` to BIND over a way that takes so long, at the same port."""
    command = [sys.executable, "-m", "benchmarks.delay", host, BIND, str(port), str(round_trip_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise RuntimeError(f"nothing listens at {host}:{port}")
            yield
        finally:
            process.terminate()


@contextmanager
def _embedded(home: Path, port: int) -> Iterator[None]:
    command = [sys.executable, "-m", "asyncbackup", "sheep", "--store", str(home / "store"), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        _wait_for(port, process)
        yield
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection((BIND, port)).close()
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError("the embedded server did not start")
