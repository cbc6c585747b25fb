"""Real clusters, of ``sheep`` processes on this machine, for the tests marked real and for the benchmarks."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

MISSING = " and ".join(f"no {tool} on PATH" for tool in ("sheep", "dog") if shutil.which(tool) is None)
"""Why there can be no real cluster here; empty if there can."""


def free_ports(count: int) -> list[int]:
    """Find TCP ports that nothing listens at."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


class RealCluster:
    """``nodes`` sheep with their stores in ``folder``, formatted with ``copies`` unless it is 0."""

    def __init__(self, folder: Path, nodes: int = 1, copies: int = 1) -> None:
        self.ports = free_ports(nodes)
        self.port = self.ports[0]
        self._folder = folder
        self._copies = copies

    def __enter__(self) -> Self:
        for zone, port in enumerate(self.ports):
            self._start(zone, port)
        self._wait_for_nodes()
        if self._copies:
            self.dog("cluster", "format", "-c", str(self._copies))
        return self

    def _start(self, zone: int, port: int) -> None:
        # The driver's shared memory file of its own keeps clusters on one machine apart.
        driver = f"local:{self._folder / 'members'}"
        store = self._folder / f"store{zone}"
        command = ["sheep", "-n", "-c", driver, "-z", str(zone), "-p", str(port), "-y", "127.0.0.1", str(store)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def _wait_for_nodes(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            listed = subprocess.run(
                ["dog", "node", "list", "-r", "-p", str(self.port)], capture_output=True, check=False
            )
            if len(listed.stdout.splitlines()) == len(self.ports):
                return
            time.sleep(0.05)  # The processes have no other way to say that they joined.
        raise TimeoutError(f"{len(self.ports)} sheep did not form a cluster")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pid in self.pids():
            subprocess.run(["kill", "-9", str(pid)], check=False)

    def pids(self) -> list[int]:
        """Find the processes, by their stores' folder."""
        found = subprocess.run(["pgrep", "-f", f"{self._folder}/store"], capture_output=True, check=False, text=True)
        return [int(pid) for pid in found.stdout.split()]

    def dog(self, *arguments: str, data: bytes | None = None) -> bytes:
        """Run ``dog`` with ``arguments`` against the first node; give its standard output. Raises if it fails."""
        group, verb, *rest = arguments
        command = ["dog", group, verb, "-p", str(self.port), *rest]
        return subprocess.run(command, input=data, check=True, stdout=subprocess.PIPE).stdout
