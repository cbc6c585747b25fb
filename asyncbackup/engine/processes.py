"""Makes pieces in other processes of this machine."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import anyio
from anyio import BrokenWorkerProcess, CapacityLimiter, to_process

from asyncbackup.engine.piece_job import Job, Made, make_piece
from asyncbackup.engine.scratch import Scratch
from asyncbackup.errors import WorkerLost, single_error

_TRIES: Final = 3
_DIE_WITH_PARENT: Final = 1
"""``PR_SET_PDEATHSIG`` of prctl."""


@dataclass(frozen=True, slots=True)
class Processes:
    """So many ``Workers`` on this machine. One that dies is replaced, and its piece is made again."""

    at_once: int

    @property
    def on_one_machine(self) -> int:
        return self.at_once

    async def check(self, job: Job, scratches: Sequence[Scratch]) -> None:
        """Find nothing: they are what this process is."""

    async def settle(self) -> None:
        """Do nothing: a process that is cancelled is dead."""

    async def make(self, job: Job) -> Made:
        lost: BrokenWorkerProcess | OSError | None = None
        for times in range(_TRIES):
            try:
                made = await to_process.run_sync(
                    _make_here, os.getpid(), job, cancellable=True, limiter=CapacityLimiter(1)
                )
            except (BrokenWorkerProcess, OSError) as error:  # The system starts none, or it ended while it started.
                lost = error
            else:
                made.sent.causes["worker process lost"] += times
                return made
        raise WorkerLost(f"objects {job.first} to {job.last}", _TRIES, getattr(lost, "strerror", None)) from lost


def _end_with(parent: int) -> None:
    """Let this process end as soon as ``parent`` does. If that has ended, another run may make the pieces now."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _make_here(parent: int, job: Job) -> Made:
    """Make a piece, in a process of its own. It ends with ``parent``, the process that wants the piece."""
    # Ctrl-C goes to all processes of a terminal. The one that was started by hand decides what happens.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with(parent)
    with single_error():
        return anyio.run(make_piece, job)
