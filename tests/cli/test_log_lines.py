"""What -v shows."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncbackup.cli.log_lines import show_log_lines
from asyncbackup.sheep import MemoryStore
from tests.cli.command import Command, serving
from tests.disks import CHANGED

LINE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d "


@pytest.fixture(autouse=True)
def _quiet_afterwards() -> Iterator[None]:
    logger = logging.getLogger("asyncbackup")
    handlers, level = list(logger.handlers), logger.level
    yield
    logger.handlers, logger.level = handlers, level


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
