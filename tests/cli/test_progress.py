"""What is shown on a terminal while a verb works."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import click
import pytest

from asyncbackup.cli.progress import Lines, amounts, name_files, name_target, shorten, telling_progress
from asyncbackup.engine.progress import Progress
from asyncbackup.sheep import MemoryStore
from asyncbackup.wire.constants import Opcode
from tests.cli.command import Served, serving, start
from tests.cli.test_signals import until_true
from tests.waiting import turn

# Each test starts processes of its own.
pytestmark = pytest.mark.slow

MIB = 1 << 20


def run(*arguments: str | Path) -> tuple[str, str]:
    """Run a verb with standard error on a terminal; give what that shows, without its sequences, and the output."""
    ours, theirs = pty.openpty()
    process = start(
        *arguments, stdout=subprocess.PIPE, stderr=theirs, env=os.environ | {"COLUMNS": "80", "TERM": "xterm"}
    )
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 1 << 16):
            shown += data
    except OSError:  # how Linux says that nobody has the terminal open any more
        pass
    os.close(ours)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, shown
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()), out.decode()


@pytest.fixture(scope="module")
def file(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("backups") / "disk.b"
    shown, _ = run("backup", "disk", made, "-s", "b", "-q", "-p", served.port)
    assert shown == ""
    return made


def test_a_backup_shows_how_far_it_is(served: Served, tmp_path: Path) -> None:
    shown, out = run("backup", "disk", tmp_path / "file", "-s", "b", "-p", served.port)

    assert re.search(r"disk .* 7 of 7 objects, [0-9.]+ [KM]iB/s ETA 0:00:00", shown)
    assert "checking" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert out.splitlines()[-1].startswith("ok: disk b: 7 objects in ")


def test_a_report_in_json_goes_with_progress(served: Served, tmp_path: Path) -> None:
    shown, out = run("backup", "disk", tmp_path / "file", "-s", "b", "--json", "-p", served.port)

    assert "7 of 7 objects" in shown
    assert json.loads(out)["records"] == 7


def test_verify_says_that_it_checks(file: Path) -> None:
    shown, _ = run("verify", file)

    assert re.search(r"checking disk\.b .* 5\.0 MiB of 5\.0 MiB, ", shown)


def test_a_restore_names_the_new_vdi(served: Served, file: Path) -> None:
    shown, _ = run("restore", file, "--to", "new", "-p", served.port)

    assert re.search(r"\bnew .* 7 of 7 objects", shown)


def test_an_export_names_the_image(file: Path, tmp_path: Path) -> None:
    shown, _ = run("export", file, "--to", tmp_path / "disk.img")

    assert re.search(r"disk\.img .* 7 of 7 objects", shown)


def test_a_long_name_is_cut_and_markup_is_shown_as_it_is(served: Served, file: Path, tmp_path: Path) -> None:
    shown, _ = run("convert", file, "--to", tmp_path / ("[red]" + "x" * 40), "--format", "dog")

    assert "[red]xxxxxxxxxxxxxxxx... " in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_hostile_name_is_escaped(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", f"{encoding}:strict")

    shown, _ = run("convert", file, "--to", tmp_path / "\x1b]0;a\x07\u202e日本日本日本日本", "--format", "dog")

    assert r"\x1b]0;a\x07\u202e" in shown
    assert not {"\x1b", "\x07", "\u202e"} & set(shown)


def test_a_name_of_wide_characters_is_cut_by_columns() -> None:
    assert shorten("日" * 20) == "日" * 10 + "..."
    assert shorten("日" * 12) == "日" * 12


@pytest.mark.parametrize(
    ("progress", "told"),
    [
        (Progress(3, 7, 0), "3 of 7 objects"),
        (Progress(3, 7, 8 * MIB), "3 of 7 objects, 4.0 MiB/s"),
        (Progress(3, None, 8 * MIB), "3 objects, 4.0 MiB/s"),
        (Progress(3, None, 8 * MIB, 16 * MIB), "8.0 MiB of 16.0 MiB, 4.0 MiB/s"),
    ],
)
def test_each_amount_is_told_once(progress: Progress, told: str) -> None:
    assert amounts(progress, elapsed_s=2) == told


def test_files_are_named_in_a_few_words() -> None:
    assert name_files(("/backup/vm1.a",)) == "vm1.a"
    assert name_files(("/backup/vm1.a", "vm1.b", "vm1.c")) == "vm1.a and 2 more"
    assert name_target("-") == "standard output"


@pytest.mark.parametrize("mode", ["none", "lines", "auto"])
def test_a_signal_prints_how_far_it_is(store: MemoryStore, tmp_path: Path, mode: str) -> None:
    with serving(store, "read_obj@11+:stall") as served:
        arguments = ("backup", "disk", tmp_path / "file", "-s", "b", "-p", served.port, "--progress", mode)
        process = start(*arguments, stderr=subprocess.PIPE)
        assert process.stderr is not None
        assert served.is_reading.wait(60)
        process.send_signal(signal.SIGUSR1)
        line = process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)

    assert re.fullmatch(rb"disk: \d of 7 objects(, [0-9.]+ [KM]iB/s)?, \d+ s\n", line)
    assert process.returncode == 128 + signal.SIGTERM


def test_a_signal_harms_nothing_where_there_is_no_progress(store: MemoryStore) -> None:
    with serving(store, "read_obj@1+:stall") as served:
        process = start("vdi", "list", "-p", served.port, "--timeout", "3600", stderr=subprocess.PIPE)
        until_true(lambda: served.sheep.requests[Opcode.READ_OBJ] > 0, process)
        process.send_signal(signal.SIGUSR1)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)

    assert process.returncode == 128 + signal.SIGTERM


class Timers:
    """Stands in for an event loop: time passes only when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        self.pending: list[tuple[float, Callable[[], None]]] = []
        monkeypatch.setattr("time.monotonic", lambda: self.now_s)

    def call_later(self, delay_s: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        self.pending.append((self.now_s + delay_s, call))
        return cast("asyncio.TimerHandle", SimpleNamespace(cancel=self.pending.clear))

    def pass_s(self, seconds: float) -> None:
        self.now_s += seconds
        for at_s, call in self.pending[:]:
            if at_s <= self.now_s:
                self.pending.remove((at_s, call))
                call()


def test_a_line_is_printed_each_minute_also_while_nothing_is_done(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    timers, lines = Timers(monkeypatch), Lines("vm")
    with lines.printed_each(60, timers.call_later):
        timers.pass_s(59)
        timers.pass_s(1)
        lines.tell(Progress(7, 200, 0))
        timers.pass_s(60)
        timers.pass_s(60)
    timers.pass_s(60)

    assert capfd.readouterr().err == "vm: 0 objects, 60 s\nvm: 7 of 200 objects, 120 s\nvm: 7 of 200 objects, 180 s\n"


@pytest.mark.parametrize(
    ("options", "is_due"), [(("lines", True), True), (("lines", False), False), (("none", True), False)]
)
async def test_lines_are_printed_while_the_work_runs_if_they_are_wanted(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, bool],
    is_due: bool,  # noqa: FBT001 - what is expected
) -> None:
    monkeypatch.setattr("asyncbackup.cli.progress._EVERY_S", 0)
    mode, wanted = options
    with click.Context(click.Command("verb")) as context:
        context.meta["asyncbackup.progress"] = mode
        async with telling_progress("vm", wanted=wanted):
            await turn()
        printed = capfd.readouterr().err
        await turn()

    assert printed.startswith("vm: 0 objects, 0 s\n") is is_due
    assert capfd.readouterr().err == ""
