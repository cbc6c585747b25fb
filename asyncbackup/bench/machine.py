"""What a machine is, and which versions of programs run on it: numbers mean nothing without."""

from __future__ import annotations

import fcntl
import os
import platform
import re
import socket
import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from asyncbackup import __version__
from asyncbackup.bench import programs
from asyncbackup.bench.measure import run
from asyncbackup.errors import ProgramFailed

_GET_ADDRESS: Final = 0x8915
"""SIOCGIFADDR of Linux: the IPv4 address of a network interface."""
_NAME_SIZE: Final = 15


async def describe(*, reference: Sequence[str], sheep: str) -> dict[str, str]:
    """Describe this machine, and what is measured on it, in words for people."""
    described = {
        "time": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{_memory() / (1 << 30):.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "asyncbackup": __version__,
        "cluster": sheep,
    }
    return described | {name: await version(name) for name in reference}


async def version(program: str) -> str:
    """Ask a program of Sheepdog which version it is."""
    try:
        said = await run(programs.version(program))
    except ProgramFailed:
        return "does not say its version"
    return said.decode(errors="replace").strip().partition("\n")[0]


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.machine()


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def find_link(host: str) -> float | None:
    """Give how many bytes a second the interface takes that leads to ``host``; None if the system does not say it."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))  # Nothing is sent: this only chooses a way.
            mine = probe.getsockname()[0]
            names = [name for _, name in socket.if_nameindex() if _address(probe, name) == mine]
        megabits = max(int(Path("/sys/class/net", name, "speed").read_text()) for name in names)
    except (OSError, ValueError):
        return None
    return megabits * 1e6 / 8 if megabits > 0 else None


def _address(probe: socket.socket, name: str) -> str | None:
    try:
        answer = fcntl.ioctl(probe, _GET_ADDRESS, struct.pack("256s", name.encode()[:_NAME_SIZE]))
    except OSError:
        return None
    return socket.inet_ntoa(answer[20:24])
