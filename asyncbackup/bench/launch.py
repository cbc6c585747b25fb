"""Runs a program and tells what it took: ``launch.py OUTPUT PROGRAM ARGUMENT...``.

Prints its seconds, its processor's seconds, its peak memory in bytes and its exit code, as JSON. It is a process of its
own, and imports little: a child's peak memory, as the kernel counts it, is never below that of what started it.
"""

from __future__ import annotations

import json
import os
import sys
import time


def main() -> None:
    """Start the program, its standard output into a file, and wait for it without looking at a clock."""
    output, *command = sys.argv[1:]
    into = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    started_s = time.monotonic()
    process = os.posix_spawnp(command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, into, 1)])
    _, status, usage = os.wait4(process, 0)
    cost = {
        "wall_s": time.monotonic() - started_s,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss << 10,
        "code": os.waitstatus_to_exitcode(status),
    }
    os.write(1, json.dumps(cost).encode())


if __name__ == "__main__":
    main()
