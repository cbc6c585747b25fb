"""A signal ends a command in order, whenever it comes: one line, the code of a shell, and nothing left behind."""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from asyncbackup.cli.running import Interrupted, run_async
from asyncbackup.sheep import MemoryStore
from tests.chains import copy_files
from tests.cli.command import PROGRAM, playing, serving, start
from tests.folders import left_in

# Each test starts processes of its own.
pytestmark = pytest.mark.slow

SIGNALS = [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM]
NOTHING_LEFT = "nothing unfinished was left behind"


def begin(file: object, port: str, *options: str, **more: Any) -> subprocess.Popen[bytes]:
    """Start a backup that would wait an hour for an answer."""
    arguments = ["backup", "disk", str(file), "-s", "b", "-p", port, "--timeout", "3600", *options]
    return start(*arguments, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more)


def end(process: subprocess.Popen[bytes], *numbers: signal.Signals) -> tuple[int, str]:
    for number in numbers:
        process.send_signal(number)
    _, err = process.communicate(timeout=60)
    return process.returncode, err.decode()


@pytest.mark.parametrize(
    ("target", "left", "number"),
    [
        *(("file", NOTHING_LEFT, number) for number in SIGNALS),
        ("-", "nothing went to standard output", signal.SIGINT),
    ],
)
def test_a_signal_does_not_wait_for_the_server(
    store: MemoryStore, tmp_path: Path, target: str, left: str, number: signal.Signals
) -> None:
    with serving(store, "read_obj@5+:stall") as served:
        process = begin(target if target == "-" else tmp_path / target, served.port)
        assert served.is_reading.wait(60)
        code, err = end(process, number)

    assert (code, err) == (128 + number, f"asyncbackup: stopped by {number.name}; {left}\n")
    assert left_in(tmp_path) == []


def test_what_went_into_a_pipe_is_said_to_be_incomplete(store: MemoryStore, tmp_path: Path) -> None:
    with serving(store, "read_obj@11+:stall") as served:
        process = begin("-", served.port, "--manifest", str(tmp_path / "manifest"), "--in-flight", "1")
        assert process.stdout is not None
        assert os.read(process.stdout.fileno(), 1)
        code, err = end(process, signal.SIGINT)

    assert code == 130
    assert err == ("asyncbackup: stopped by SIGINT; what went to standard output is incomplete: do not keep it\n")
    assert left_in(tmp_path) == []


def test_a_failure_says_that_what_went_into_a_pipe_is_incomplete(store: MemoryStore, tmp_path: Path) -> None:
    with serving(store, "read_obj@11+:error=EIO") as served:
        process = begin("-", served.port, "--manifest", str(tmp_path / "manifest"), "--in-flight", "1")
        code, err = end(process)

    assert code == 1
    assert err.endswith("; what went to standard output is incomplete: do not keep it\n")
    assert err.count("\n") == 1
    assert left_in(tmp_path) == []


def test_a_failure_before_anything_was_piped_says_so(store: MemoryStore) -> None:
    with serving(store, "read_obj@5+:error=EIO") as served:
        code, err = end(begin("-", served.port))

    assert code == 1
    assert err.endswith("; nothing went to standard output\n")


def test_a_signal_while_nobody_reads(store: MemoryStore) -> None:
    reader, writer = os.pipe()
    with serving(store) as served:
        process = begin("-", served.port, stdout=writer)
        os.close(writer)
        os.read(reader, 8)
        code, err = end(process, signal.SIGINT)
    os.close(reader)

    assert code == 130
    assert "stopped by SIGINT; what went to standard output is incomplete" in err


def test_a_signal_while_connecting(tmp_path: Path) -> None:
    connected = threading.Event()

    async def handle(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        connected.set()
        await reader.read()

    with playing(handle) as port:
        process = begin(tmp_path / "file", port)
        assert connected.wait(60)
        code, err = end(process, signal.SIGINT)

    assert (code, err) == (130, f"asyncbackup: stopped by SIGINT; {NOTHING_LEFT}\n")
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("ignored", [signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_was_ignored_from_the_start_is_still_ignored(
    store: MemoryStore, tmp_path: Path, ignored: signal.Signals
) -> None:
    with serving(store, "read_obj@11+:stall") as served:
        arguments = ["backup", "disk", str(tmp_path / "file"), "-s", "b", "-p", served.port, "--timeout", "3600"]
        ignoring = ["bash", "-c", f'trap "" {ignored.name}; exec "$@"', "bash", *PROGRAM, *arguments]
        process = subprocess.Popen(ignoring, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert served.is_reading.wait(60)
        code, err = end(process, ignored, signal.SIGTERM)

    assert (code, err) == (143, f"asyncbackup: stopped by SIGTERM; {NOTHING_LEFT}\n")


def until_true(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Wait for what ``process`` does."""
    while not condition():
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.01)
            assert condition(), process.communicate()


def unread(pipe: int) -> int:
    """Give the bytes that are in a pipe."""
    count = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]


HELD = """
import importlib.abc, os, signal, sys, threading
from asyncbackup import __main__

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "asyncbackup.cli.main":
            print("held", flush=True)
            signal.pause()

sys.meta_path.insert(0, Finder())
__main__.main()
"""
"""Stands still while it imports what the command line needs."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_signal_during_the_start(number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HELD, "vdi", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    code, err = end(process, number)

    assert (code, err) == (128 + number, f"asyncbackup: stopped by {number.name}; {NOTHING_LEFT}\n")


def full_pipe() -> tuple[int, int]:
    """Make a pipe that takes nothing more."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, bytes(1 << 12))
    except BlockingIOError:
        os.set_blocking(writer, True)
    return reader, writer


def test_a_signal_during_the_report(tmp_path: Path) -> None:
    files = copy_files(tmp_path)
    reader, writer = full_pipe()
    process = start("export", files.a, "--to", tmp_path / "image", stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    until_true((tmp_path / "image").exists, process)
    code, err = end(process, signal.SIGHUP)
    os.close(reader)

    # The image has its name a moment before the event loop ends.
    assert code == 129
    assert err in {f"asyncbackup: stopped by SIGHUP; {left}\n" for left in (NOTHING_LEFT, "it was done already")}
    assert (tmp_path / "image").read_bytes() == files.images["a"]


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_signal_while_nobody_reads_a_listing(tmp_path: Path, form: list[str]) -> None:
    files = copy_files(tmp_path)
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writer, bytes(3800))
    process = start("info", files.a, "--records", *form, stdout=writer, stderr=subprocess.PIPE)
    until_true(lambda: unread(reader) > 3800, process)
    os.close(writer)
    code, err = end(process, signal.SIGTERM)
    os.close(reader)

    assert (code, err) == (143, f"asyncbackup: stopped by SIGTERM; {NOTHING_LEFT}\n")


TAKING_BACK = """
import asyncio, os, sys, threading
from asyncbackup import __main__
from asyncbackup.cli import running

handled, twice, signals, unlink = running.signals_handled, threading.Event(), [], os.unlink

def watch(handle):
    def count(number):
        handle(number)
        signals.append(number)
        if len(signals) == 2:
            # Once the loop had its turn after the second one.
            asyncio.get_running_loop().call_soon_threadsafe(twice.set)
    return handled(count)

def hold(*args, **more):
    print("held", flush=True)
    twice.wait()
    unlink(*args, **more)

running.signals_handled = watch
os.unlink = hold
__main__.main()
"""
"""Takes back what it has begun only when a second signal was handled."""


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_does_not_stop_what_takes_things_back(
    store: MemoryStore, tmp_path: Path, second: signal.Signals
) -> None:
    with serving(store, "read_obj@11+:stall") as served:
        arguments = ["backup", "disk", tmp_path / "file", "-s", "b", "-p", served.port, "--timeout", "3600"]
        command = [sys.executable, "-c", TAKING_BACK, *map(str, arguments)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert served.is_reading.wait(60)
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        code, err = end(process, second)

    assert (code, err) == (130, f"asyncbackup: stopped by SIGINT; {NOTHING_LEFT}\n")
    assert left_in(tmp_path) == []


def test_a_signal_that_comes_when_all_is_done_is_heeded() -> None:
    async def work() -> None:
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted, match="stopped by SIGTERM; it was done already"):
        run_async(work)
