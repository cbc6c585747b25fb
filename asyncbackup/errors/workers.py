"""Processes, here or on other machines, that do part of the work, and who hands it out."""

from __future__ import annotations

from collections.abc import Sequence

from asyncbackup.errors.root import AsyncBackupError


class WorkersError(AsyncBackupError):
    """Processes, here or on other machines, that should do part of the work, or the way to them, are at fault."""


class WorkerLost(WorkersError):
    """A process that did part of the work, ``part`` in words, ended again and again, or did not start.

    ``reason`` is what the system said, if it said something.
    """

    def __init__(self, part: str, times: int, reason: str | None = None) -> None:
        what = f"the process for {part} ended {times} times before it was done"
        super().__init__(f"{what}: {reason}" if reason else what)
        self.part = part


class NoWorkers(WorkersError):
    """The scheduler at ``address`` has no workers, and none came."""

    def __init__(self, address: str) -> None:
        super().__init__(f"the scheduler at {address} has no workers")
        self.address = address


class WorkersSilent(WorkersError):
    """These ``workers`` are known to the scheduler, and did not answer within ``timeout_s``."""

    def __init__(self, workers: Sequence[str], timeout_s: float) -> None:
        super().__init__(f"{', '.join(workers)} did not answer within {timeout_s:g} s")
        self.workers = list(workers)
        self.timeout_s = timeout_s


class WorkersDiffer(WorkersError):
    """Workers cannot do the work as this machine would; ``differences`` says in words which and why."""

    def __init__(self, differences: Sequence[str]) -> None:
        super().__init__(f"workers differ from this machine: {'; '.join(differences)}")
        self.differences = list(differences)


class SchedulerUnreachable(WorkersError):
    """No scheduler answers at ``address``."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"cannot reach a scheduler at {address}: {reason}")
        self.address = address
        self.reason = reason


class SchedulerLost(WorkersError):
    """The scheduler at ``address`` ended, or the connection to it, before the work was done."""

    def __init__(self, address: str) -> None:
        super().__init__(f"lost the scheduler at {address}")
        self.address = address


class SchedulerSilent(SchedulerLost):
    """The scheduler at ``address`` did not answer within ``waited_s`` seconds."""

    def __init__(self, address: str, waited_s: float) -> None:
        AsyncBackupError.__init__(self, f"lost the scheduler at {address}: it did not answer within {waited_s:g} s")
        self.address = address
        self.waited_s = waited_s
