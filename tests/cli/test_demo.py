from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.cli.command import PROGRAM

pytestmark = pytest.mark.slow


def test_the_demo_survives_a_node_and_a_kill_and_says_what_each_cost(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    shown = subprocess.run(
        [*PROGRAM, "demo", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PATH": ""},
    )

    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.count("written  the same bytes") == 2
    assert re.search(r"killed   node 127\.0\.0\.1:\d+", shown.stdout)
    assert re.search(r"cost     \d+ requests? sent again", shown.stdout)
    assert re.search(r"resumed  after [1-9][\d.]+ MiB that were durable", shown.stdout)
    monday = (folder / "vm.monday").read_bytes()
    for name in ("vm.monday-without-a-node", "vm.monday-killed-and-resumed"):
        assert (folder / name).read_bytes() == monday
    assert len([*folder.iterdir()]) == 8, "four backups, each with its manifest"
