"""The cluster to measure against: a real sheep if there is one on PATH, the embedded server otherwise."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.clusters import RealCluster, free_ports

BIND = "127.0.0.1"


@dataclass(frozen=True)
class Server:
    """A cluster of one node, empty, and a folder for what the benchmarks write."""

    port: int
    folder: Path
    is_real: bool

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
def serve(folder: Path | None) -> Iterator[Server]:
    """Start a cluster with its store in a new folder inside ``folder``, which goes when the context ends."""
    with tempfile.TemporaryDirectory(prefix="asyncbackup-bench-", dir=folder) as made:
        home = Path(made)
        if shutil.which("sheep") and shutil.which("dog"):
            with RealCluster(home) as real:
                yield Server(real.port, home, is_real=True)
        else:
            with _embedded(home) as port:
                yield Server(port, home, is_real=False)


@contextmanager
def _embedded(home: Path) -> Iterator[int]:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "asyncbackup", "sheep", "--store", str(home / "store"), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        _wait_for(port, process)
        yield port
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
