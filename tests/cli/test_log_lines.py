"""What -v shows."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from asyncbackup.cli.log_lines import show_log_lines
from asyncbackup.sheep import MemoryStore
from tests.cli.command import Command, Outcome, Served, disk_store, serving
from tests.disks import CHANGED

LINE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d "


def test_what_is_sent_again_is_said_with_its_time(command: Command, store: MemoryStore, tmp_path: Path) -> None:
    with serving(store, f"read_obj/{CHANGED}@1:error=AGAIN") as served:
        outcome = command("backup", "disk", tmp_path / "file", "-s", "b", "-v", "-p", served.port)

    assert outcome.code == 0
    assert re.search(rf"^{LINE}client: try again: sending 1 of \d+ READ_OBJ again$", outcome.err, re.MULTILINE)


def test_without_it_nothing_is_said(command: Command, store: MemoryStore, tmp_path: Path) -> None:
    with serving(store, f"read_obj/{CHANGED}@1:error=AGAIN") as served:
        outcome = command("backup", "disk", tmp_path / "file", "-s", "b", "-p", served.port)

    assert (outcome.code, outcome.err) == (0, "")


def test_what_others_wrote_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show_log_lines()
    show_log_lines()

    logging.getLogger("asyncbackup.client.node").info("%s", "\x1b[2Jgone")

    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(r" client: \x1b[2Jgone")


def said(outcome: Outcome) -> list[str]:
    """Give what the packages other than the client said, without the times."""
    lines = [re.sub(f"^{LINE}", "", line) for line in outcome.err.splitlines()]
    return [line for line in lines if not line.startswith("client:")]


def test_checkpoints_and_a_published_file_are_said(command: Command, store: MemoryStore, tmp_path: Path) -> None:
    with serving(store) as served:
        line = ("backup", "disk", tmp_path / "file", "-s", "b", "-v", "--checkpoint", "4M", "-p", served.port)
        outcome = command(*line)

    *checkpoints, published = said(outcome)
    assert checkpoints
    assert all(re.fullmatch(rf"engine: {tmp_path}/file: wrote a checkpoint at byte \d+", line) for line in checkpoints)
    assert published == f"storage: {tmp_path}/file: is complete, with what belongs to it"


def test_from_where_a_backup_goes_on_is_said(command: Command, store: MemoryStore, tmp_path: Path) -> None:
    line = ("backup", "disk", tmp_path / "file", "-s", "b", "--checkpoint", "1M", "--in-flight", "1", "-p")
    with serving(store, "read_obj@11+:error=EIO") as served:
        assert command(*line, served.port).code == 1
    with serving(store) as served:
        outcome = command(*line, served.port, "--resume", "-v")

    expected = rf"engine: {tmp_path}/file: goes on at byte \d+, behind [1-9]\d* records; \d+ bytes .* are cut off"
    assert re.fullmatch(expected, said(outcome)[0])


def test_which_files_were_verified_and_merged_is_said(command: Command, served: Served, tmp_path: Path) -> None:
    files = [str(tmp_path / name) for name in "ab"]
    for file, more in zip(files, ([], ["-F", "a"]), strict=True):
        assert command("backup", "disk", file, "-s", file[-1], *more, "-p", served.port).code == 0

    verified = command("verify", *files, "-v")
    merged = command("merge", *files, "--to", tmp_path / "merged", "-v")

    assert [re.sub(r"\d+ records", "N records", line) for line in said(verified)] == [
        f"verbs: {file}: verified N records, found 0 problems" for file in files
    ]
    assert [line.partition(": is ")[0] for line in said(merged)] == [
        *(f"engine: {file}" for file in files),
        f"storage: {tmp_path}/merged",
    ]


def test_from_where_a_restore_goes_on_is_said(command: Command, tmp_path: Path) -> None:
    store, full = disk_store(), tmp_path / "full"
    line = ("restore", full, "--to", "new", "--checkpoint", "1M", "--in-flight", "1", "-p")
    with serving(store) as served:
        assert command("backup", "disk", full, "-s", "b", "-p", served.port).code == 0
    with serving(store, "create_and_write_obj@4+:error=EIO") as served:
        assert command(*line, served.port).code == 1
    with serving(store) as served:
        outcome = command(*line, served.port, "--resume", "-v")

    assert any(re.fullmatch(r"engine: VDI 'new': goes on at object [1-9]", each) for each in said(outcome))
