"""`asyncbackup bench`, on clusters that are small: what it says is right, however slow it all is."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from asyncbackup.bench.cases import decode
from asyncbackup.cli.exits import ExitCode
from asyncbackup.sheep import MemoryStore
from asyncbackup.wire.constants import Opcode
from tests.cli.command import PROGRAM, Command, Served, serving
from tests.processes import processes_of

pytestmark = pytest.mark.slow

_WRITES = {Opcode.WRITE_OBJ, Opcode.CREATE_AND_WRITE_OBJ, Opcode.REMOVE_OBJ, Opcode.NEW_VDI, Opcode.DEL_VDI}
_NO_PROGRAMS = {**os.environ, "PATH": ""}


def bench(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    """Measure, where there is no program of Sheepdog."""
    command = [*PROGRAM, "bench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=_NO_PROGRAMS)


def local(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return bench("--local", "1", "--objects", "8", "--rounds", "2", "--folder", folder, *arguments)


def test_a_cluster_for_the_occasion_is_measured_and_leaves_nothing(tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    folder = tmp_path / "folder"
    folder.mkdir()
    done = local(folder, "--workload", "sector", "--workload", "full", "--json", told)

    assert (done.returncode, list(folder.iterdir())) == (0, []), done.stderr
    assert re.search(r"^asyncbackup +\d+\.\d\d \(\d+\.\d\d-\d+\.\d\d\) ", done.stdout, re.MULTILINE)
    assert re.search(r"^drain .* of its speed$", done.stdout, re.MULTILINE)
    assert re.search(
        r"^seconds: start \d.*, plan \d.*, read \d.*, sync \d.*; while it read: compare \d", done.stdout, re.MULTILINE
    )
    assert done.stdout.splitlines()[-1].startswith("ok: asyncbackup has ")
    results = decode(told.read_text(), str(told))
    assert [(case.name, case.bytes_needed >> 22) for case in results.cases] == [("sector", 16), ("full", 8)]
    assert all(len(runs) == 2 for case in results.cases for runs in case.runs.values())
    assert results.machine["cluster"].startswith("the embedded server")


@pytest.mark.parametrize("workload", ["rewritten", "hundredth", "sparse", "large-objects", "short-records"])
def test_each_workload_can_be_backed_up(tmp_path: Path, workload: str) -> None:
    done = local(tmp_path, "--workload", workload, "--rounds", "1", "-q")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_later_run_says_what_changed(tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    assert local(tmp_path, "--workload", "sector", "-q", "--json", told).returncode == 0

    again = local(tmp_path, "--workload", "sector", "--compare", told)

    assert again.returncode == 0, again.stderr
    compared = re.findall(r"^sector  +(\S.*?)  .* (?:changed|perhaps noise)$", again.stdout, re.MULTILINE)
    assert compared == ["seconds", "CPU seconds", "peak MiB", "times as fast as drain"]
    assert "another machine" not in again.stdout


def test_what_is_no_results_is_told_before_anything_is_measured(command: Command, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}")

    damaged = command("bench", "--local", "1", "--compare", tmp_path / "other.json")
    missing = command("bench", "--local", "1", "--compare", tmp_path / "missing.json")

    assert (damaged.code, missing.code) == (ExitCode.FAILURE, ExitCode.MISSING)
    assert "other.json: expected results of a benchmark, got something else" in damaged.err


def test_several_nodes_are_measured_over_a_longer_way(tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    arguments = ("--workload", "sector", "--delay", "0,5", "--json", told)
    done = bench("--local", "2", "--objects", "8", "--rounds", "1", *arguments)

    assert done.returncode == 0, done.stderr
    near, far = decode(told.read_text(), str(told)).cases
    assert (near.situation.nodes, near.situation.copies, near.situation.delay_ms) == (2, 2, 0)
    assert far.situation.delay_ms == 5
    inside = far.runs["asyncbackup"][0].inside
    assert inside is not None
    assert inside.latencies_s["1"] >= 0.005


def test_a_running_cluster_is_read_and_never_written(served: Served, tmp_path: Path) -> None:
    before = Counter(served.sheep.requests)
    told = tmp_path / "told.json"
    done = bench("-p", served.port, "--rounds", "1", "--folder", tmp_path, "--json", told)

    assert done.returncode == 0, done.stderr
    sent = served.sheep.requests - before
    assert sent[Opcode.READ_OBJ] > 0
    assert not _WRITES & sent.keys()
    assert list(tmp_path.iterdir()) == [told]
    (case,) = decode(told.read_text(), str(told)).cases
    assert case.name.startswith("disk, snapshot ")
    assert case.bytes_needed > 0
    assert " bounds it: " in done.stdout.splitlines()[-2]


def test_what_to_read_of_a_running_cluster_can_be_named(served: Served, tmp_path: Path) -> None:
    arguments = ("-p", served.port, "--rounds", "1", "--folder", tmp_path)
    done = bench(*arguments, "--vdi", "disk", "-s", "b", "-F", "a", "--rate", "1G")

    assert done.returncode == 0, done.stderr
    assert "disk, snapshot b since a: on a running cluster" in done.stdout


def test_a_cluster_without_snapshots_has_nothing_to_read(command: Command, tmp_path: Path) -> None:
    with serving(MemoryStore()) as empty:
        outcome = command("bench", "-p", empty.port)

    assert (outcome.code, outcome.out) == (ExitCode.MISSING, b"")
    assert "has a snapshot with data; take one" in outcome.err


def test_the_reference_client_must_be_there_to_be_measured(tmp_path: Path) -> None:
    done = local(tmp_path, "--against", "dog")

    assert (done.returncode, done.stdout) == (ExitCode.MISSING, "")
    assert done.stderr == "asyncbackup: no dog on PATH; install it, or leave --against out\n"


USAGE = {
    "a workload of a running cluster": ("--workload", "sector"),
    "a delay of a running cluster": ("--delay", "2"),
    "a VDI of a local one": ("--local", "1", "--vdi", "vm", "-s", "a"),
    "a rate of a local one": ("--local", "1", "--rate", "1M"),
    "a VDI without a snapshot": ("--vdi", "vm"),
    "a snapshot without a VDI": ("-s", "a"),
    "a delay that is no number": ("--local", "1", "--delay", "0,x"),
    "more copies than nodes": ("--local", "2", "--copies", "3"),
    "a rate that dog does not keep to": ("--rate", "1M", "--against", "dog"),
}


@pytest.mark.parametrize("name", USAGE)
def test_options_that_do_not_go_together_are_refused(command: Command, name: str) -> None:
    outcome = command("bench", *USAGE[name])

    assert (outcome.code, outcome.out) == (ExitCode.USAGE, b"")


def test_a_report_that_cannot_be_written_is_told_before_anything_is_measured(command: Command, tmp_path: Path) -> None:
    outcome = command("bench", "--local", "1", "--json", tmp_path / "missing" / "told.json")

    assert outcome.code == ExitCode.SYSTEM_FAILURE
    assert "missing/told.json: No such file or directory" in outcome.err


def test_a_disk_without_room_is_told_before_anything_is_written(command: Command, tmp_path: Path) -> None:
    outcome = command("bench", "--local", "1", "--objects", 1 << 20, "--folder", tmp_path, "-q")

    assert outcome.code == ExitCode.FULL
    assert "make room for at least" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_ends_every_process_and_removes_the_folder(tmp_path: Path) -> None:
    arguments = ("bench", "--local", "1", "--objects", "8", "--rounds", "1000", "--folder", str(tmp_path))
    told = [*PROGRAM, *arguments, "--workload", "sector"]
    with subprocess.Popen(told, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=_NO_PROGRAMS) as process:
        assert process.stderr is not None
        while not list(tmp_path.glob("*/trace")):
            assert process.poll() is None
        assert len(list(processes_of(tmp_path))) >= 2, "the benchmark, and the cluster"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)

    assert process.returncode == 130
    assert said.decode().splitlines()[-1] == "asyncbackup: stopped by SIGINT; nothing unfinished was left behind"
    assert list(tmp_path.iterdir()) == []
    assert list(processes_of(tmp_path)) == []


@pytest.mark.timeout(320)  # It measures a cluster for each point of some plots.
def test_a_report_has_all_plots(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    done = local(tmp_path, "--workload", "sector", "--rounds", "1", "--html", report, "-q")

    assert (done.returncode, done.stderr) == (0, "")
    names = ("speed", "stages", "in-flight", "share", "delay", "nodes", "memory", "latency")
    page = report.read_text()
    assert [name for name in names if f'<svg id="{name}"' not in page and f' id="{name}" role="img"' not in page] == []
    assert re.search(r"<code>asyncbackup bench --local 1 .*--html ", page)
    assert list(tmp_path.iterdir()) == [report]


def test_a_report_of_a_running_cluster_shows_how_much_was_in_flight(served: Served, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    done = bench("-p", served.port, "--rounds", "1", "--folder", tmp_path, "--html", report, "-q")

    assert (done.returncode, done.stderr) == (0, "")
    assert 'id="in-flight.series.1"' in report.read_text()


def test_a_report_without_the_library_that_draws_is_told_before_anything_is_measured(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    outcome = command("bench", "--local", "1", "--html", tmp_path / "report.html")

    assert outcome.code == ExitCode.FAILURE
    assert "install it with `pip install 'asyncbackup[report]'`" in outcome.err
