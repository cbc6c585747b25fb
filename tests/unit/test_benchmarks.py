"""The scripts of benchmarks/ still fit the code that they measure."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import __main__ as everyday
from benchmarks import contest
from benchmarks.micro import KERNELS

_ROOT = Path(__file__).parent.parent.parent
_BOUND_S = 300
"""Seconds for a script on a machine that is busy."""
_LAYERS = ("plain", "zstd", "age", "zstd in age")


def _measure(name: str, folder: Path, *arguments: str) -> list[str]:
    """Run a script once, with next to nothing to do. Give the lines that it prints."""
    command = [sys.executable, "-m", f"benchmarks.{name}", "--objects", "2", "--rounds", "1", "--folder", str(folder)]
    done = subprocess.run(
        [*command, *arguments], cwd=_ROOT, capture_output=True, text=True, check=False, timeout=_BOUND_S
    )
    assert (done.returncode, list(folder.iterdir())) == (0, []), done.stderr[-2000:]
    return done.stdout.splitlines()


def _rows(lines: list[str]) -> set[str]:
    """Give the first column of the table."""
    return {line.partition("  ")[0] for line in lines} - {""}


@pytest.mark.slow
@pytest.mark.timeout(_BOUND_S)
@pytest.mark.skipif(shutil.which("zstd") is None, reason="needs the program zstd")
def test_compression_is_measured_against_zstd(tmp_path: Path) -> None:
    lines = _measure("compression", tmp_path)

    ours = {"backup --zstd --threads 1", "backup --zstd --threads 2", "verify"}
    alone = {"the layer alone, one thread", "the layer alone, two threads"}
    assert ours | alone | {"zstd -3 -T1", "zstd -t"} <= _rows(lines)
    assert sum("times as long" in line for line in lines) == 5


@pytest.mark.slow
@pytest.mark.timeout(_BOUND_S)
def test_memory_is_measured_beside_its_limit(tmp_path: Path) -> None:
    lines = _measure("memory", tmp_path, "--memory", "32")

    wanted = {
        f"{verb}, {layers}, {place}"
        for verb in ("backup", "verify", "restore")
        for layers in _LAYERS
        for place in ("file", "S3")
    }
    assert wanted <= _rows(lines)
    assert any("limit MiB" in line for line in lines)


@pytest.mark.slow
@pytest.mark.timeout(_BOUND_S)
def test_a_store_far_away_is_measured_against_a_near_one(tmp_path: Path) -> None:
    lines = _measure("stores", tmp_path, "--delay", "1")

    assert {name for verb in ("backup", "verify", "restore") for name in (verb, f"{verb}, far")} <= _rows(lines)
    assert sum("times as long" in line for line in lines) == 3


@pytest.mark.slow
@pytest.mark.timeout(_BOUND_S)
@pytest.mark.parametrize("workload", ["full", "sector"])
def test_shards_and_workers_are_measured_against_one_process(tmp_path: Path, workload: str) -> None:
    lines = _measure("machines", tmp_path, workload, "--parts", "2")

    shared = {"backup --shard, join", "backup --dask", "backup --dask local", "verify --dask", "restore --dask"}
    assert {"backup", "verify", "restore"} | shared <= _rows(lines)
    assert sum("times as long" in line for line in lines) == len(shared)


def test_what_a_benchmark_needs_is_named_where_it_is_missing() -> None:
    with pytest.raises(SystemExit, match="needs the module no_such_one and the program no-such-one"):
        contest.require(modules=["pytest", "no_such_one"], commands=["no-such-one"])


@pytest.mark.parametrize("name", ["compression", "export", "growth", "machines", "memory", "restore", "stores"])
def test_a_folder_that_does_not_exist_is_a_usage_error(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--folder", "/no/such"])

    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"benchmarks.{name}", run_name="__main__")

    assert ended.value.code == 2
    assert "argument --folder: there is no folder '/no/such'" in capsys.readouterr().err


def test_a_folder_of_the_environment_that_does_not_exist_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_FOLDER", "/no/such")

    with pytest.raises(SystemExit, match="2"):
        contest.plain_parser_of(None, 1).parse_args([])


def test_files_that_differ_end_a_benchmark(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"same size")
    other.write_bytes(b"same sizE")

    contest.require_same(one, one)
    with pytest.raises(SystemExit, match="other is not the same as one"):
        contest.require_same(one, other)


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
