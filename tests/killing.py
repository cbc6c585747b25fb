"""Kills backups at moments that a test chooses, again and again, and resumes them each time."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from asyncbackup.cli.exits import ExitCode
from asyncbackup.errors import HalfReplaced
from asyncbackup.storage.backup_source import find_manifest
from tests.cli.command import start

Arm = Callable[[subprocess.Popen[bytes]], object]
"""Sees to it that a process is killed some time."""

NAMES: Final = ("file", "file.manifest")


@dataclass
class Victim:
    """A backup to ``file`` in ``folder``, made by the command ``line``; ``expected`` is what comes of it."""

    folder: Path
    line: Sequence[str]
    expected: dict[str, bytes]
    old: dict[str, bytes]
    """What is replaced, if anything is."""

    def reset(self) -> None:
        """Put back what was there before."""
        for path in self.folder.iterdir():
            path.unlink()
        for name, content in self.old.items():
            (self.folder / name).write_bytes(content)

    def contents(self) -> dict[str, bytes]:
        """Give what is there, except locks that nobody holds."""
        return {path.name: path.read_bytes() for path in self.folder.iterdir() if path.suffix != ".lock"}

    def _see(self) -> dict[str, bytes] | None:
        """Give what a reader takes for the backup; None if it is told that replacing it was interrupted."""
        with suppress(HalfReplaced):
            if (self.folder / "file").exists():
                find_manifest(self.folder / "file")
            return {name: content for name, content in self.contents().items() if name in NAMES}
        return None

    def kill(self, arm: Arm, times: int) -> None:
        """Resume until it was killed so often; begin again where it came to its end before that. Then end it."""
        self.reset()
        killed = 0
        while killed < times:
            killed += self._run(arm)
            assert self._see() in (None, self.old, self.expected)
        while self._run(lambda _: None):
            pass
        self._run(lambda _: None, is_last=True)

    def _run(self, arm: Arm, *, is_last: bool = False) -> bool:
        """Tell whether it was killed."""
        with start(*self.line, self.folder / "file", "--resume", stderr=subprocess.PIPE) as process:
            arm(process)
            _, err = process.communicate(timeout=60)
        if process.returncode == -signal.SIGKILL:
            return True
        # It exists if it was killed when only the last steps were missing, which this run did.
        assert process.returncode in (ExitCode.OK, ExitCode.EXISTS), err
        assert self.contents() == self.expected
        if not is_last:
            self.reset()
        return False
