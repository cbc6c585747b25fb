"""`asyncbackup bench` with real nodes and the reference client."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from asyncbackup.bench.cases import Results, decode
from tests.cli.command import PROGRAM
from tests.clusters import MISSING
from tests.processes import processes_of

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.skipif(bool(MISSING), reason=MISSING)]


def measured(folder: Path, *arguments: str) -> Results:
    told = folder / "told.json"
    command = ["bench", "--rounds", "2", "--against", "dog", "--folder", folder, "--json", told, *arguments]
    done = subprocess.run([*PROGRAM, *map(str, command)], capture_output=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == [told]
    return decode(told.read_text(), str(told))


@pytest.mark.parametrize("workload", ["sector", "full", "sparse", "large-objects", "short-records"])
def test_dog_backs_the_same_workload_up(tmp_path: Path, workload: str) -> None:
    results = measured(tmp_path, "--local", "1", "--objects", "16", "--workload", workload)

    (case,) = results.cases
    assert {name: len(runs) for name, runs in case.runs.items()} == {"asyncbackup": 2, "drain": 2, "dog": 2}
    assert results.machine["cluster"].startswith("Sheepdog")


def test_a_longer_way_is_longer_for_everybody(tmp_path: Path) -> None:
    results = measured(tmp_path, "--local", "2", "--objects", "8", "--workload", "sector", "--delay", "0,20")

    near, far = results.cases
    for name in ("asyncbackup", "drain", "dog"):
        assert min(run.wall_s for run in far.runs[name]) > min(run.wall_s for run in near.runs[name]) + 0.04
    inside = far.runs["asyncbackup"][0].inside
    assert inside is not None
    assert inside.latencies_s["1"] >= 0.02


def test_an_interruption_ends_every_process_and_removes_the_folder(tmp_path: Path) -> None:
    arguments = (
        "bench",
        "--local",
        "2",
        "--objects",
        "8",
        "--rounds",
        "1000",
        "--folder",
        str(tmp_path),
        "--delay",
        "5",
    )
    command = [*PROGRAM, *arguments, "--workload", "sector", "--against", "dog"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        while not list(tmp_path.glob("*/trace")):
            assert process.poll() is None
        assert len(list(processes_of(tmp_path))) >= 3, "the benchmark, and two nodes"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)

    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []
    assert list(processes_of(tmp_path)) == []
