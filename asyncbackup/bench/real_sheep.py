"""A cluster of real ``sheep`` processes on this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from asyncbackup.bench import programs
from asyncbackup.bench.programs import LOCAL
from asyncbackup.errors import ProgramFailed

_START_S: Final = 30.0


def free_ports(count: int) -> list[int]:
    """Find TCP ports that nothing listens at."""
    listeners = [socket.create_server((LOCAL, 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


class RealCluster:
    """``nodes`` sheep with their stores in ``folder``, formatted with ``copies`` unless it is 0.

    Each is in a zone of its own, and is named ``host`` in lists of nodes. They die with the context. Starting them
    blocks, for a fraction of a second each. Needs ``sheep`` and ``dog`` on PATH. Raises ProgramFailed.
    """

    def __init__(self, folder: Path, nodes: int = 1, copies: int = 1, host: str = LOCAL) -> None:
        self.ports = free_ports(nodes)
        self.port = self.ports[0]
        self._folder = folder
        self._copies = copies
        self._host = host
        self._sheep: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            for zone in range(len(self.ports)):
                self._sheep[zone] = self._start(zone)
                # The first is the one that the others join: started at once, each could found a cluster of its own.
                self.wait_for_nodes(zone + 1)
            if self._copies:
                self._format()
        except BaseException:
            self._kill_all()
            raise
        return self

    def _format(self) -> None:
        command = programs.format_cluster(self.port, self._copies)
        ended = subprocess.run(command, check=False, capture_output=True, timeout=_START_S)
        if ended.returncode:
            raise ProgramFailed("dog cluster format", f"said {ended.stderr.decode(errors='replace').strip()!r}")

    def _start(self, zone: int) -> subprocess.Popen[bytes]:
        store, members = self._folder / f"store{zone}", self._folder / "members"
        command = programs.real_sheep(store, members, zone, self.ports[zone], self._host)
        # A session of its own: Ctrl-C at a terminal is for the client that runs against it.
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait_for_nodes(self, count: int) -> None:
        """Return when the first node counts ``count`` nodes. Raises ProgramFailed after half a minute."""
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            listed = subprocess.run(programs.node_list(self.port), capture_output=True, check=False, timeout=_START_S)
            if len(listed.stdout.splitlines()) == count:
                return
            if any(sheep.poll() is not None for sheep in self._sheep.values()):
                raise ProgramFailed("sheep", "ended as soon as it was started")
            time.sleep(0.02)  # The processes have no other way to say that they joined.
        raise ProgramFailed("sheep", f"{count} of them did not form a cluster within {_START_S:g} s")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill_all()

    def _kill_all(self) -> None:
        for sheep in self._sheep.values():
            # Its logger is a process in a session of its own, and would end a while after it.
            for child in _children(sheep.pid):
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            sheep.kill()
        for sheep in self._sheep.values():
            sheep.wait()
        self._sheep.clear()


def _children(pid: int) -> list[int]:
    """List the processes that a process started, and that are there; none where the system does not tell it."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
