"""A scheduler of Dask and its workers, each a process of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

from distributed import Client

_ROOT = Path(__file__).parent.parent
_BOUND_S = 60


class DaskCluster:
    """A scheduler, which gives a part of the work up when it was the end of three workers, and some workers."""

    def __init__(self, folder: Path, workers: int = 3, environment: Mapping[str, str] | None = None) -> None:
        self.address = ""
        """What the scheduler listens at, once it runs."""
        self._folder = folder
        self._count = workers
        self._environment = environment or {}
        self.workers: list[subprocess.Popen[bytes]] = []
        self.scheduler: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        told = self._folder / "scheduler.json"
        told.unlink(missing_ok=True)
        listens = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(told))
        self.scheduler = self._start("dask_scheduler", *listens)
        self.address = _read_address(self.scheduler, told)
        for _ in range(self._count):
            self.start_worker()
        if self._count:
            self.wait()
        return self

    def __exit__(self, *_: object) -> None:
        for process in [*self.workers, self.scheduler]:
            assert process is not None
            process.kill()
            process.wait(_BOUND_S)

    def start_worker(self) -> None:
        self.workers.append(
            self._start("dask_worker", self.address, "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny")
        )

    def kill_worker(self, number: int) -> None:
        """End a worker without notice, and start another one in its place."""
        worker = self.workers.pop(number)
        worker.kill()
        worker.wait(_BOUND_S)
        self.start_worker()

    @property
    def log(self) -> bytes:
        """What the scheduler and the workers said."""
        return (self._folder / "log").read_bytes()

    def find_writers(self, folder: Path) -> list[int]:
        """Find the workers that have a file in ``folder`` open."""
        found = []
        for number, worker in enumerate(self.workers):
            names = []
            for descriptor in Path(f"/proc/{worker.pid}/fd").iterdir():
                with suppress(OSError):  # It is closed meanwhile.
                    names.append(descriptor.readlink().parent)
            if folder in names:
                found.append(number)
        return found

    def wait(self) -> None:
        """Wait until the scheduler knows all workers, and no others."""
        with Client(self.address, timeout=_BOUND_S, set_as_default=False) as client:
            client.wait_for_workers(self._count, timeout=_BOUND_S)

    def _start(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        environment = (
            os.environ
            | self._environment
            | {
                "PYTHONPATH": str(_ROOT),
                "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "2",
                "DASK_TEMPORARY_DIRECTORY": str(self._folder),
            }
        )
        command = [sys.executable, "-m", f"distributed.cli.{program}", *arguments]
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(command, cwd=self._folder, env=environment, stdout=log, stderr=log)


def _read_address(scheduler: subprocess.Popen[bytes], told: Path) -> str:
    """Wait until a scheduler has said in a file what it listens at."""
    deadline = time.monotonic() + _BOUND_S
    while time.monotonic() < deadline and scheduler.poll() is None:
        with suppress(OSError, ValueError):  # It is not there, or not written completely.
            return str(json.loads(told.read_bytes())["address"])
        time.sleep(0.05)  # It has no other way to say that it serves.
    raise TimeoutError(f"the scheduler did not start: {scheduler.poll()}")
