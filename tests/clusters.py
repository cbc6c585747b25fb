"""Real clusters, of ``sheep`` processes on this machine, for the tests marked real."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from asyncbackup.bench import real_sheep
from asyncbackup.bench.real_sheep import free_ports

__all__ = ["MISSING", "RealCluster", "free_ports"]

MISSING = " and ".join(f"no {tool} on PATH" for tool in ("sheep", "dog") if shutil.which(tool) is None)
"""Why there can be no real cluster here; empty if there can."""


class RealCluster(real_sheep.RealCluster):
    """A cluster of ``asyncbackup.bench.real_sheep``, and what tests do to it."""

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
