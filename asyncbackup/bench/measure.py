"""Runs programs, and measures what each takes as a whole: from its start to its end."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import ByteReceiveStream, Process

from asyncbackup.bench.programs import launch
from asyncbackup.errors import ProgramFailed

_SHOWN: Final = 300
"""Characters of what a program said, and of its command, to show."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run of a program took."""

    wall_s: float
    cpu_s: float
    """User and system time."""
    peak_bytes: int
    """Resident at most."""


async def measure(command: Sequence[str], output: Path, limit_s: float) -> Cost:
    """Run ``command``, its standard output into ``output``.

    Raises ProgramFailed if it fails, or takes more than ``limit_s`` seconds. A cancellation ends it.
    """
    said = await _run(launch(output, command), command, limit_s)
    told = json.loads(said.out)
    code = told.pop("code")
    if code:
        raise ProgramFailed(_shorten(shlex.join(command)), f"ended with {code}{_quote(said.err)}")
    return Cost(**told)


async def run(command: Sequence[str], limit_s: float = 60) -> bytes:
    """Run ``command`` without measuring it, and give its standard output. Raises as ``measure`` does."""
    return (await _run(command, command, limit_s)).out


@dataclass(slots=True)
class _Said:
    out: bytes = b""
    err: bytes = b""


async def _run(command: Sequence[str], told: Sequence[str], limit_s: float) -> _Said:
    """Run ``command`` in a session of its own; all of that ends with it."""
    said = _Said()

    async def read_out(stream: ByteReceiveStream) -> None:
        said.out = b"".join([piece async for piece in stream])

    async def read_err(stream: ByteReceiveStream) -> None:
        async for piece in stream:
            said.err = (said.err + piece)[-4 * _SHOWN :]

    process = await anyio.open_process(
        command, stdin=subprocess.DEVNULL, env=_environment(), start_new_session=True, stderr=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        with anyio.fail_after(limit_s):
            async with anyio.create_task_group() as group:
                group.start_soon(read_out, process.stdout)
                group.start_soon(read_err, process.stderr)
            await process.wait()
    except TimeoutError as error:
        raise ProgramFailed(_shorten(shlex.join(told)), f"did not end within {limit_s:g} s") from error
    finally:
        await end_group(process)
    if process.returncode:
        raise ProgramFailed(_shorten(shlex.join(told)), f"ended with {process.returncode}{_quote(said.err)}")
    return said


async def end_group(process: Process) -> None:
    """End a process that leads its session, and what it started. It is gone afterwards, whatever is cancelled."""
    with anyio.CancelScope(shield=True):
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        await process.aclose()


def _environment() -> dict[str, str]:
    # An installed program has its byte code beside it, so one in a checkout may write it, whatever the shell says.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    # As the command line has it: what is compared with it should not pay for threads that nobody uses.
    return kept | {"OPENBLAS_NUM_THREADS": "1"}


def _quote(err: bytes) -> str:
    lines = err.decode(errors="replace").strip().splitlines()
    return f": {_shorten(lines[-1])}" if lines else ""


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
