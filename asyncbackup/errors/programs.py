"""Other programs that are run, and libraries that only some need."""

from __future__ import annotations

from asyncbackup.errors.root import AsyncBackupError


class ProgramFailed(AsyncBackupError):
    """``command``, which was run, failed; ``problem`` says how."""

    def __init__(self, command: str, problem: str) -> None:
        super().__init__(f"`{command}` {problem}")
        self.command = command
        self.problem = problem


class PlotsUnavailable(AsyncBackupError):
    """The library that draws plots is not installed."""

    def __init__(self) -> None:
        super().__init__("matplotlib, which draws the plots, is not installed")


class ExtraMissing(AsyncBackupError):
    """The ``library`` that does ``what`` is not installed. The package's ``extra`` brings it."""

    def __init__(self, extra: str, library: str, what: str) -> None:
        super().__init__(f"{library}, which {what}, is not installed")
        self.extra = extra
        self.library = library
