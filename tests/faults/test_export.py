"""What can interrupt an export, a merge, a roll: nothing is left, or what is left says what it is."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from asyncbackup import WindowOptions, convert_to_rbd_diff, export, merge
from asyncbackup.errors import AlreadyApplied, HalfRolled, TargetFull, TargetWriteFailed
from tests.chains import Files, copy_files
from tests.faults.steps import WAYS, Cancel, run_cancelled
from tests.folders import left_in

Work = Callable[[Files, Path], Awaitable[object]]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    made = tmp_path / "backups"
    made.mkdir()
    return copy_files(made)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    made = tmp_path / "target"
    made.mkdir()
    return made / "made"


def content(path: Path) -> bytes:
    return path.read_bytes()


def failing(code: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


async def export_new(files: Files, target: Path) -> object:
    return await export(files.all, target)


async def export_onto(files: Files, target: Path) -> object:
    return await export([files.ab, files.bc], target, base=files.image("a"))


async def merge_all(files: Files, target: Path) -> object:
    return await merge(files.all, target)


async def convert_first(files: Files, target: Path) -> object:
    return await convert_to_rbd_diff(files.a, target)


NEW = pytest.mark.parametrize("work", [export_new, export_onto, merge_all, convert_first], ids=lambda it: it.__name__)
"""What makes a new file."""


# The disk


@NEW
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO], ids=["full", "quota", "broken"])
async def test_a_disk_that_takes_no_more(
    files: Files, target: Path, monkeypatch: pytest.MonkeyPatch, work: Work, code: int
) -> None:
    for call in ("pwrite", "writev"):
        monkeypatch.setattr(os, call, failing(code))

    with pytest.raises(TargetWriteFailed if code == errno.EIO else TargetFull):
        await work(files, target)

    assert left_in(target.parent) == []


@NEW
@pytest.mark.parametrize("call", ["fsync", "link"])
async def test_a_disk_that_fails_at_the_end(
    files: Files, target: Path, monkeypatch: pytest.MonkeyPatch, work: Work, call: str
) -> None:
    monkeypatch.setattr(os, call, failing(errno.EIO))

    with pytest.raises(TargetWriteFailed):
        await work(files, target)

    assert left_in(target.parent) == []


async def test_a_file_system_without_large_files(files: Files, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "ftruncate", failing(errno.EFBIG))

    with pytest.raises(TargetFull):
        await export(files.all, target)

    assert left_in(target.parent) == []


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EOPNOTSUPP])
async def test_a_base_that_the_kernel_cannot_copy_is_copied_all_the_same(
    files: Files, target: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(os, "copy_file_range", failing(code))

    await export([files.ab, files.bc], target, base=files.image("a"))

    assert content(target) == files.images["c"]


async def test_a_base_on_a_file_system_that_knows_no_holes(
    files: Files, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "lseek", failing(errno.EINVAL))

    await export([files.ab, files.bc], target, base=files.image("a"))

    assert content(target) == files.images["c"]


# An image in place


@pytest.mark.parametrize("call", ["pwrite", "ftruncate"])
async def test_an_image_that_cannot_be_rolled_to_the_end_says_so_and_can_later(
    files: Files, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    image = files.image("a", "standby")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(errno.ENOSPC))
        with pytest.raises(HalfRolled, match="No space left on device") as told:
            await export([files.ab], image, base=image)
    assert isinstance(told.value.cause, TargetFull)

    with pytest.raises(HalfRolled):
        await export([files.bc], image, base=image)
    await export([files.ab], image, base=image)

    assert image.read_bytes() == files.images["b"]


async def test_an_image_without_a_marker_was_not_touched(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    image = files.image("a", "standby")
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))  # the marker's

    with pytest.raises(TargetWriteFailed):
        await export([files.ab], image, base=image)

    assert image.read_bytes() == files.images["a"]
    assert [name for name in left_in(files.folder) if "standby" in name] == ["standby", "standby.state"]


# Cancellation

EVERY = 3
"""Steps from one cancellation to the next: each run syncs several files, and two ways and loops count differently."""


@pytest.mark.slow
@NEW
@pytest.mark.parametrize("cancel", WAYS, ids=["task", "scope"])
async def test_a_cancellation_leaves_all_or_nothing(files: Files, target: Path, work: Work, cancel: Cancel) -> None:
    await work(files, target)
    whole = left_in(target.parent)
    expected = content(target)
    was_cut = True
    for at in itertools.count(step=EVERY):
        for name in left_in(target.parent):
            (target.parent / name).unlink()
        was_cut = await run_cancelled(cancel, lambda: work(files, target), at)

        assert left_in(target.parent) in ([], whole), at
        if left_in(target.parent):
            assert content(target) == expected
        if not was_cut:
            break
    assert left_in(target.parent) == whole


@pytest.mark.slow
@pytest.mark.parametrize("cancel", WAYS, ids=["task", "scope"])
async def test_a_cancelled_roll_is_whole_or_finished_by_the_same_call(files: Files, cancel: Cancel) -> None:
    was_cut = True
    seen = set()
    for at in itertools.count(step=EVERY):
        image = files.image("a", "standby")

        async def roll(image: Path = image) -> object:
            return await export([files.ab, files.bc], image, base=image, options=WindowOptions(workers=2))

        was_cut = await run_cancelled(cancel, roll, at)

        is_half = image.with_name("standby.rolling").exists()
        seen.add(is_half)
        if not is_half:
            assert content(image) in (files.images["a"], files.images["c"]), at
        with suppress(AlreadyApplied):
            await roll()
        assert content(image) == files.images["c"], at
        assert [name for name in left_in(image.parent) if "standby" in name] == ["standby", "standby.state"]
        if not was_cut:
            break
    assert seen == {True, False}


# Processes that die

HELD = """
import asyncio, os, sys, threading
from asyncbackup.cli import running

handled, cancelled, calls = running.signals_handled, threading.Event(), 0

def watch(handle):
    def both(number):
        handle(number)
        asyncio.get_running_loop().call_soon_threadsafe(cancelled.set)
    return handled(both)

name, at = sys.argv[1], int(sys.argv[2])
call = getattr(os, name)

def hold(*args):
    global calls
    if threading.current_thread() is threading.main_thread():
        return call(*args)  # Nobody would hear the signal if this one stood still.
    calls += 1
    if calls == at:
        print("held", flush=True)
        cancelled.wait()
    return call(*args)

running.signals_handled = watch
setattr(os, name, hold)
from asyncbackup.cli.main import run
sys.exit(run(sys.argv[3:]))
"""
"""Runs the command line, and holds the n-th call of a function in a thread until a signal cancelled the work."""


class Held:
    """A process of ours that stands still inside of a system call."""

    def __init__(self, call: str, at: int, *arguments: object) -> None:
        command = [sys.executable, "-c", HELD, call, str(at), *map(str, arguments)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdout is not None
        if self.process.stdout.readline() != b"held\n":
            raise AssertionError(self.process.communicate()[1].decode())

    def end(self, number: signal.Signals) -> tuple[int, str]:
        """Send a signal, and give the exit code and what was said."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said.decode()


COMMANDS = pytest.mark.parametrize(
    ("verb", "call"), [("export", "pwrite"), ("merge", "writev")], ids=["export", "merge"]
)


@pytest.mark.slow
@COMMANDS
def test_a_killed_process_leaves_no_file_of_that_name(files: Files, target: Path, verb: str, call: str) -> None:
    held = Held(call, 3, verb, *files.all, "--to", target)

    assert held.end(signal.SIGKILL)[0] == -signal.SIGKILL

    assert not target.exists()
    assert not target.with_name("made.manifest").exists()
    assert all(name.endswith((".partial", ".lock")) for name in left_in(target.parent))
    again = [sys.executable, "-m", "asyncbackup", verb, *map(str, files.all), "--to", str(target)]
    subprocess.run(again, check=True, stdout=subprocess.DEVNULL)
    assert not [name for name in left_in(target.parent) if name.startswith(".")]


@pytest.mark.slow
@COMMANDS
def test_an_interrupted_process_leaves_nothing(files: Files, target: Path, verb: str, call: str) -> None:
    held = Held(call, 3, verb, *files.all, "--to", target)

    code, said = held.end(signal.SIGINT)

    assert code == 130
    assert "nothing unfinished was left behind" in said
    assert left_in(target.parent) == []


def roll(files: Files, image: Path) -> list[object]:
    return ["export", files.ab, files.bc, "--to", image, "--base-image", image, "--in-flight", 1]


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 2, 4])
def test_a_roll_that_was_killed_is_finished_by_the_same_command(files: Files, at: int) -> None:
    image = files.image("a", "standby")
    held = Held("pwrite", at, *roll(files, image))

    assert held.end(signal.SIGKILL)[0] == -signal.SIGKILL

    assert image.with_name("standby.rolling").exists()
    again = [sys.executable, "-m", "asyncbackup", *map(str, roll(files, image))]
    subprocess.run(again, check=True, stdout=subprocess.DEVNULL)
    assert image.read_bytes() == files.images["c"]
    assert not image.with_name("standby.rolling").exists()


def test_a_roll_that_was_killed_is_not_taken_for_an_image(files: Files, target: Path) -> None:
    image = files.image("a", "standby")
    Held("pwrite", 2, *roll(files, image)).end(signal.SIGKILL)

    with pytest.raises(HalfRolled):
        asyncio.run(export_from(files, image, target))


async def export_from(files: Files, image: Path, target: Path) -> None:
    await export([files.bc], target, base=image)


def test_an_interrupted_roll_says_what_is_left(files: Files) -> None:
    image = files.image("a", "standby")
    held = Held("pwrite", 2, *roll(files, image))

    code, said = held.end(signal.SIGINT)

    assert code == 130
    assert "standby is half rolled: the same command finishes it" in said
    assert image.with_name("standby.rolling").exists()


def test_a_roll_interrupted_before_it_wrote_leaves_the_image_as_it_was(files: Files) -> None:
    image = files.image("a", "standby")
    # The openings of two files, and the headers of seven records, are read before.
    held = Held("preadv", 2 + 7 + 1, *roll(files, image))

    code, said = held.end(signal.SIGINT)

    assert code == 130
    assert "nothing unfinished was left behind" in said
    assert image.read_bytes() == files.images["a"]
