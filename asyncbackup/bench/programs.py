"""The command lines of the programs that are run: the one module here that knows options, of ours and of others."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from asyncbackup.bench.job import Job
from asyncbackup.wire.nodes import format_address

OURS: Final = "asyncbackup"
DRAIN: Final = "drain"
REFERENCES: Final = ("dog", "collie")
"""The reference client of today, and that of 2012."""

LOCAL: Final = "127.0.0.1"

_LAUNCH: Final = Path(__file__).with_name("launch.py")
_PROGRAM: Final = (sys.executable, "-m", "asyncbackup")


def launch(output: Path, command: Sequence[str]) -> list[str]:
    """Run a command, its standard output into a file, by a Python that imports as little as it can."""
    return [sys.executable, "-I", "-S", str(_LAUNCH), str(output), *command]


def ours(job: Job, target: Path, in_flight: int | None = None) -> list[str]:
    """Back up to a file, and tell it as JSON. ``in_flight`` objects at a time, with both sides of each under way."""
    command = [*_PROGRAM, "backup", "--json", "--quiet", "-a", _gateways(job), *_snapshots(job)]
    if in_flight is not None:
        command += ["--in-flight", str(in_flight), "--connections", str(in_flight)]
    if job.rate is not None:
        command += ["--rate", str(job.rate)]
    return [*command, job.vdi, str(target)]


def drain(job: Job, trace: Path) -> list[str]:
    """Read what a trace says."""
    return [sys.executable, "-m", "asyncbackup.bench.drain", job.encode(), str(trace)]


def reference(program: str, job: Job) -> list[str]:
    """Back up to standard output with a client of Sheepdog. It knows no full backup."""
    host, port = job.gateways[0]
    base = job.empty if job.base is None else job.base
    return [program, "vdi", "backup", "-a", host, "-p", str(port), "-s", str(job.snapshot), "-F", str(base), job.vdi]


def delay(near: str, far: str, round_trip_ms: float, ports: Sequence[int]) -> list[str]:
    """Lead from one address to another, over a longer way."""
    command = [sys.executable, "-m", "asyncbackup.bench.delay", near, far, str(round_trip_ms)]
    return [*command, *map(str, ports)]


def real_sheep(store: Path, members: Path, zone: int, port: int, host: str) -> list[str]:
    """Serve a node, in a cluster of those that share the file ``members``. It is named ``host`` in lists of nodes."""
    # The driver's shared memory file of its own keeps clusters on one machine apart. What is written is not for ever.
    address = ("-b", LOCAL, "-y", host, "-p", str(port))
    return ["sheep", "-f", "-n", "-c", f"local:{members}", "-z", str(zone), *address, str(store)]


def dog(group: str, verb: str, port: int, *arguments: str) -> list[str]:
    """Ask the reference client something."""
    return ["dog", group, verb, "-p", str(port), *arguments]


def node_list(port: int) -> list[str]:
    """List the nodes of a cluster, a line each."""
    return dog("node", "list", port, "-r")


def format_cluster(port: int, copies: int) -> list[str]:
    """Make a cluster usable."""
    return dog("cluster", "format", port, "-c", str(copies))


def embedded_sheep(stores: Sequence[Path], copies: int, host: str) -> list[str]:
    """Serve a cluster from folders, a node each, at free ports, which it prints. Lists name them ``host``."""
    return [sys.executable, "-m", "asyncbackup.bench.embedded", host, str(copies), *map(str, stores)]


def version(program: str) -> list[str]:
    """Ask for the version, in the first line of what is printed."""
    return [program, "-v" if program == "sheep" else "--help"]


def is_on_path(program: str) -> bool:
    """Tell whether a program can be started by its name."""
    return shutil.which(program) is not None


def _gateways(job: Job) -> str:
    return ",".join(format_address(host, port) for host, port in job.gateways)


def _snapshots(job: Job) -> list[str]:
    return ["-s", str(job.snapshot), *([] if job.base is None else ["-F", str(job.base)])]
