"""A test that hangs ends the run, whatever it does about it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"

CLEANS_UP_FOREVER = """
import threading

def test_that_hangs():
    try:
        threading.Event().wait()
    finally:
        threading.Event().wait()
"""

SWALLOWS_WHAT_SHOULD_END_IT = """
import anyio

async def test_that_hangs():
    while True:
        try:
            await anyio.sleep_forever()
        except BaseException:
            pass
"""


@pytest.mark.slow
@pytest.mark.parametrize("hanging", [CLEANS_UP_FOREVER, SWALLOWS_WHAT_SHOULD_END_IT])
def test_a_hang_ends_the_run(tmp_path: Path, hanging: str) -> None:
    (tmp_path / "test_inner.py").write_text(hanging)
    command = ["-m", "pytest", "-c", PYPROJECT, "--rootdir", tmp_path, "-p", "no:cacheprovider", "--timeout", "1", "."]

    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode == 1
    assert "Timeout" in done.stdout
