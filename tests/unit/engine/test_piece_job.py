"""Attempts at a piece: which files are theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncbackup.engine.piece_job import find_attempts, remove_attempts
from tests.folders import left_in


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("1.a", "1.b", "1.b.manifest", "10.a", "claim.1"):
        (tmp_path / name).touch()
    return tmp_path


def test_attempts_are_found_by_their_data(folder: Path) -> None:
    assert sorted(path.name for path in find_attempts(folder / "1")) == ["1.a", "1.b"]


def test_a_piece_goes_with_what_other_attempts_at_it_left(folder: Path) -> None:
    remove_attempts(folder / "1.a")

    assert left_in(folder) == ["10.a", "claim.1"]
