"""Runs command lines, each in a fork of one process that has everything imported, and tells how they came out.

A fork has descriptors, memory and an end of its own. It is made by a process of one thread: ``Forks`` starts that and
sends it each ``Call`` as a line of JSON; ``python -m tests.fuzz.forks`` is that process.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TextIO, cast

import click

CRASHED: Final = 99
"""The exit code of a fork that an exception ended."""

_GRACE_S: Final = 10.0
"""How long a command may take to end after SIGTERM."""


@dataclass(frozen=True)
class Call:
    """A command line, where it runs, and what its descriptors are."""

    arguments: Sequence[str]
    folder: str
    patience_s: float
    """After so many seconds it gets SIGTERM."""
    stdin: str = "/dev/null"
    stdout: str = "file"
    """Of what kind: ``file``, ``full`` (a device without room), ``closed``, or ``broken`` (a pipe without reader)."""
    stderr: str = "file"
    encoding: str = "utf-8"


@dataclass(frozen=True)
class Outcome:
    """How a call came out."""

    code: int
    """The exit code, or minus the number of the signal that ended it."""
    out: bytes
    err: bytes
    terminated: bool
    """Whether it took a SIGTERM to end it."""
    hung: bool
    """Whether that was of no use."""
    grown: int
    """Bytes of memory that it took beyond what the process held before."""


class Forks:
    """The process that forks; close it, or leave its ``with`` block."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", __spec__.name],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"ASYNCBACKUP_DEBUG": "1"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process; idempotent."""
        self._process.communicate()

    def run(self, call: Call) -> Outcome:
        """Run one command line to its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(call)).encode() + b"\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        out, err = (Path(f"{call.folder}.{name}") for name in ("out", "err"))
        outcome = Outcome(**answer, out=out.read_bytes(), err=err.read_bytes())
        out.unlink()
        err.unlink()
        return outcome


def _serve() -> None:
    """Run the calls that come in, one after another."""
    import uvloop  # noqa: F401 - what is imported once here is there in each fork

    from asyncbackup.cli.main import program

    context = click.Context(program)
    for name in program.list_commands(context):
        program.get_command(context, name)
    with os.fdopen(os.dup(1), "w") as replies:
        for line in sys.stdin:
            call = Call(**json.loads(line))
            process = os.fork()
            if not process:
                _become(call)
            json.dump(_await(process, call.patience_s), replies)
            replies.write("\n")
            replies.flush()


def _await(process: int, patience_s: float) -> dict[str, object]:
    descriptor = os.pidfd_open(process)
    with os.fdopen(descriptor):
        ended = select.select([descriptor], [], [], patience_s)[0]
        terminated, hung = not ended, False
        if terminated:
            os.kill(process, signal.SIGTERM)
            hung = not select.select([descriptor], [], [], _GRACE_S)[0]
            if hung:
                os.kill(process, signal.SIGKILL)
    _, status, usage = os.wait4(process, 0)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "code": os.waitstatus_to_exitcode(status),
        "terminated": terminated,
        "hung": hung,
        "grown": max(0, usage.ru_maxrss - held) << 10,
    }


def _become(call: Call) -> None:
    """Turn this fork into the command, and end with it."""
    code: object = CRASHED
    try:
        os.setsid()
        os.chdir(call.folder)
        _replace(0, os.open(call.stdin, os.O_RDONLY))
        for descriptor, kind, name in ((1, call.stdout, "out"), (2, call.stderr, "err")):
            kept = os.open(f"{call.folder}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            if kind == "file":
                _replace(descriptor, kept)
                continue
            os.close(kept)
            if kind == "full":
                _replace(descriptor, os.open("/dev/full", os.O_WRONLY))
            elif kind == "broken":
                reader, writer = os.pipe()
                os.close(reader)
                _replace(descriptor, writer)
            else:
                os.close(descriptor)
        sys.stdin = _stream(0, "r", call.encoding)
        # Python has no standard stream where its descriptor was closed.
        sys.stdout = _stream(1, "w", call.encoding) if call.stdout != "closed" else None
        sys.stderr = _stream(2, "w", call.encoding, "backslashreplace") if call.stderr != "closed" else None
        code = _main(call.arguments)
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 - whatever it is, it is told
        _tell(traceback.format_exc(), call)
    for stream in (sys.stdout, sys.stderr):
        # What Python's end does: an output that cannot be flushed then is exit 120.
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except OSError:
            code = code or 120
    os._exit(code if isinstance(code, int) else CRASHED if code else 0)


def _stream(descriptor: int, mode: str, encoding: str, errors: str | None = None) -> TextIO:
    """Open a standard stream as Python does at its start."""
    return cast("TextIO", open(descriptor, mode, encoding=encoding, errors=errors))


def _main(arguments: Sequence[str]) -> int:
    from asyncbackup.__main__ import main

    sys.argv = ["asyncbackup", *arguments]
    main()


def _tell(text: str, call: Call) -> None:
    """Leave a traceback where it is found, whatever the descriptors are."""
    with Path(f"{call.folder}.err").open("a") as kept:
        kept.write(text)


def _replace(standard: int, descriptor: int) -> None:
    os.dup2(descriptor, standard)
    os.close(descriptor)


if __name__ == "__main__":
    _serve()
