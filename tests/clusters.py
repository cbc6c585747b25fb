"""Real clusters, of ``sheep`` processes on this machine, for the tests marked real and for the benchmarks."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
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
    """``nodes`` sheep with their stores in ``folder``, formatted with ``copies`` unless it is 0.

    Each is in a zone of its own. They die with the context. ``options`` go to each sheep.
    """

    def __init__(self, folder: Path, nodes: int = 1, copies: int = 1, options: Sequence[str] = ("-n",)) -> None:
        self.ports = free_ports(nodes)
        self.port = self.ports[0]
        self._folder = folder
        self._copies = copies
        self._options = options
        self._sheep: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            for zone in range(len(self.ports)):
                self._sheep[zone] = self._start(zone)
                # The first is the one that the others join: started at once, each could found a cluster of its own.
                self.wait_for_nodes(zone + 1)
            if self._copies:
                self.dog("cluster", "format", "-c", str(self._copies))
        except BaseException:
            self._kill_all()
            raise
        return self

    def _start(self, zone: int) -> subprocess.Popen[bytes]:
        # The driver's shared memory file of its own keeps clusters on one machine apart.
        driver = f"local:{self._folder / 'members'}"
        address = ("-b", "127.0.0.1", "-y", "127.0.0.1", "-p", str(self.ports[zone]))
        command = ["sheep", "-f", "-c", driver, "-z", str(zone), *address, *self._options]
        # A session of its own: Ctrl-C at a terminal is for the client that runs against it.
        return subprocess.Popen(
            [*command, str(self._folder / f"store{zone}")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait_for_nodes(self, count: int) -> None:
        """Return when the first node counts ``count`` nodes. Raises TimeoutError after half a minute."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            listed = subprocess.run(
                ["dog", "node", "list", "-r", "-p", str(self.port)], capture_output=True, check=False
            )
            if len(listed.stdout.splitlines()) == count:
                return
            if any(sheep.poll() is not None for sheep in self._sheep.values()):
                raise RuntimeError("a sheep ended while it was waited for")
            time.sleep(0.02)  # The processes have no other way to say that they joined.
        raise TimeoutError(f"{count} sheep did not form a cluster")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill_all()

    def _kill_all(self) -> None:
        for sheep in self._sheep.values():
            sheep.kill()
        for sheep in self._sheep.values():
            sheep.wait()
        self._sheep.clear()

    def kill(self, node: int) -> None:
        """End a node without notice, and return when it is gone."""
        sheep = self._sheep.pop(node)
        sheep.kill()
        sheep.wait()

    def stop(self, node: int) -> None:
        """Make a node hang: it keeps its connections, and answers nothing."""
        os.kill(self._sheep[node].pid, signal.SIGSTOP)

    def go_on(self, node: int) -> None:
        """Let a node that hangs go on."""
        os.kill(self._sheep[node].pid, signal.SIGCONT)

    def dog(self, *arguments: str, data: bytes | None = None) -> bytes:
        """Run ``dog`` with ``arguments`` against the first node; give its standard output. Raises if it fails."""
        group, verb, *rest = arguments
        command = ["dog", group, verb, "-p", str(self.port), *rest]
        return subprocess.run(command, input=data, check=True, stdout=subprocess.PIPE).stdout

    def asyncbackup(self, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
        """Run our command line against the first node, to whatever end."""
        verb, *rest = map(str, arguments)
        group = [rest.pop(0)] if verb == "vdi" else []
        command = [sys.executable, "-m", "asyncbackup", verb, *group, "-p", str(self.port), *rest]
        return subprocess.run(command, capture_output=True, check=False, timeout=60)
