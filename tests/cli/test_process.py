"""What the process sets up before anything else runs."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

ARENAS_OF_THREADS = """
import ctypes, sys, threading
from asyncbackup.cli import process
process.use_one_arena()
together = threading.Barrier(4)
def allocate():
    together.wait()
    kept.append([bytes(1000) for _ in range(100)])
    together.wait()
kept = []
threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
output = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, output)
libc.fflush(output)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has arenas")
def test_all_threads_allocate_from_one_arena() -> None:
    done = subprocess.run([sys.executable, "-c", ARENAS_OF_THREADS], check=True, capture_output=True, timeout=60)

    assert done.stdout.count(b"<heap nr=") == 1
