"""The scripts of benchmarks/ still fit the code that they measure."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import __main__ as everyday
from benchmarks.micro import KERNELS


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_can_be_called_again_and_again(name: str) -> None:
    with contextmanager(KERNELS[name].make)() as kernel:
        kernel()
        kernel()


def test_what_is_measured_is_kept_under_its_time_and_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(everyday, "RESULTS", tmp_path / "results")
    monkeypatch.setenv("PATH", "")

    arguments = everyday.complete(["--rounds", "2"])

    assert arguments[:2] == ["--local", "1"]
    assert arguments[-2:] == ["--rounds", "2"]
    file = Path(arguments[arguments.index("--json") + 1])
    assert file.parent.resolve() == tmp_path / "results"


def test_without_a_file_the_newest_results_are_compared_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(everyday, "RESULTS", tmp_path)
    for name in ("2026-01-31-0900-abc.json", "2026-02-01-0800-def.json"):
        (tmp_path / name).touch()

    assert everyday.complete(["--compare"])[-2:] == ["--compare", str(tmp_path / "2026-02-01-0800-def.json")]


@pytest.mark.parametrize("given", ["-h", "--help"])
def test_help_is_asked_for_and_nothing_else(given: str) -> None:
    assert everyday.complete([given]) == [given]
