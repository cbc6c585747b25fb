from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

import asyncbackup
from asyncbackup import Volume, __version__, connect
from asyncbackup.cli import text
from asyncbackup.cli.exits import ExitCode
from asyncbackup.sheep import Sheep
from asyncbackup.storage.lock import NameLock
from asyncbackup.storage.publication import Place
from tests.cli.command import PROGRAM, Command, Served, disk_store, start
from tests.disks import OBJECT, PARTS
from tests.faults.deletion import Deletable
from tests.folders import left_in
from tests.property import reference


def test_a_file_is_collie_and_has_a_manifest(command: Command, served: Served, tmp_path: Path) -> None:
    outcome = command("backup", "disk", tmp_path / "file", "-s", "b", "-F", "a", "-p", served.port)

    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.decode().splitlines()[-1].startswith("ok: disk b against a: 5 objects in ")
    assert len(reference.parse((tmp_path / "file").read_bytes(), "collie", OBJECT)) == 5
    assert left_in(tmp_path) == ["file", "file.manifest"]


@pytest.mark.parametrize("option", ["-F", "--from", "--base"])
def test_the_base_has_several_names(command: Command, served: Served, tmp_path: Path, option: str) -> None:
    outcome = command("backup", "disk", tmp_path / "file", "-s", "b", option, "a", "-p", served.port)

    assert outcome.out.decode().splitlines()[-1].startswith("ok: disk b against a: 5 objects in ")


def test_a_manifest_can_be_done_without(command: Command, served: Served, tmp_path: Path) -> None:
    command("backup", "disk", tmp_path / "file", "-s", "b", "--no-manifest", "-p", served.port)

    assert left_in(tmp_path) == ["file"]


def test_the_other_dialect_can_be_asked_for(command: Command, served: Served, tmp_path: Path) -> None:
    command("backup", "disk", tmp_path / "file", "-s", "b", "--format", "dog", "-p", served.port)

    assert len(reference.parse((tmp_path / "file").read_bytes(), "dog", OBJECT)) == 7


def test_standard_output_gets_dog_and_nothing_else(command: Command, served: Served, tmp_path: Path) -> None:
    outcome = command("backup", "disk", "-", "-s", "b", "-F", "a", "-p", served.port)

    assert outcome.code == 0
    assert len(reference.parse(outcome.out, "dog", OBJECT)) == 5
    assert outcome.err.splitlines()[-1].startswith("ok: disk b against a: 5 objects in ")


@pytest.mark.slow
def test_a_pipe_gets_the_same_as_a_file(served: Served, tmp_path: Path) -> None:
    arguments = ("-s", "b", "-p", served.port, "-q")
    process = start("backup", "disk", "-", *arguments, stdout=subprocess.PIPE)
    piped, _ = process.communicate(timeout=30)
    file = tmp_path / "file"

    assert start("backup", "disk", file, "--format", "dog", *arguments).wait(30) == process.returncode == 0
    assert piped == file.read_bytes()


def test_quiet_prints_nothing(command: Command, served: Served, tmp_path: Path) -> None:
    outcome = command("backup", "disk", tmp_path / "file", "-q", "--live", "-p", served.port)

    assert (outcome.code, outcome.out, outcome.err) == (0, b"", "")


def test_json_tells_what_was_done(command: Command, served: Served, tmp_path: Path) -> None:
    outcome = command("backup", "disk", tmp_path / "file", "-s", "b", "-F", "a", "--json", "-p", served.port)

    told = json.loads(outcome.out)
    elapsed_s, read_s = told.pop("elapsed_s"), told.pop("read_s")
    assert elapsed_s == pytest.approx(told.pop("plan_s") + read_s + told.pop("sync_s"))
    assert all(0 < told.pop(stage) < read_s for stage in ("compare_s", "digest_s", "write_s"))
    latencies_s = list(told.pop("latencies_s").values())
    assert len(latencies_s) == 11
    assert latencies_s[0] > 0
    assert latencies_s == sorted(latencies_s)
    assert told.pop("most_in_flight") > 0
    assert told == {
        "vdi": "disk",
        "snapshot": "b",
        "base": "a",
        "dialect": "collie",
        "objects_planned": 6,
        "objects_shared": 1,
        "objects_done": 6,
        "objects_read": 10,
        "bytes_read": 10 * OBJECT,
        "records": 5,
        "bytes_written": (tmp_path / "file").stat().st_size,
        "bytes_resumed": 0,
        "objects_discarded": 0,
        "bases_unreadable": 0,
        "missing": [],
        "also": [],
        # the snapshots at the beginning and at the end, the working VDI, the cluster, the objects
        "requests": 2 * 6 + 4 + 1 + 10 * PARTS,
        "retries": 0,
        "retry_causes": {},
        "hedges": 0,
        "piece": None,
    }


def test_json_goes_to_standard_error_when_data_goes_to_standard_output(command: Command, served: Served) -> None:
    outcome = command("backup", "disk", "-", "-s", "b", "--json", "-p", served.port)

    assert json.loads(outcome.err)["dialect"] == "dog"
    assert len(reference.parse(outcome.out, "dog", OBJECT)) == 7


def test_all_digits_are_an_id(command: Command, served: Served, tmp_path: Path) -> None:
    outcome = command("backup", "disk", tmp_path / "file", "-s", "2", "-F", "1", "--json", "-p", served.port)

    told = json.loads(outcome.out)
    assert (told["snapshot"], told["base"], told["records"]) == ("2", "1", 5)


def test_a_live_backup_comes_with_a_warning(command: Command, served: Served, tmp_path: Path) -> None:
    outcome = command("backup", "disk", tmp_path / "file", "--live", "-F", "a", "-p", served.port)

    assert outcome.code == 0
    assert (
        outcome.err
        == "warning: if a guest writes to disk while it is backed up, the backup mixes older and newer data\n"
    )
    assert outcome.out.decode().splitlines()[-1].startswith("ok: disk (live) against a: 5 objects in ")


def test_force_replaces_a_file(command: Command, served: Served, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")

    outcome = command("backup", "disk", tmp_path / "file", "-s", "b", "--force", "-p", served.port)

    assert outcome.code == 0
    assert len(reference.parse((tmp_path / "file").read_bytes(), "collie", OBJECT)) == 7


def test_little_memory_is_enough(command: Command, served: Served, tmp_path: Path) -> None:
    for memory in ("1M", "128MiB", "1g"):
        command("backup", "disk", tmp_path / memory, "-s", "b", "-F", "a", "--memory", memory, "-p", served.port)

    assert len({(tmp_path / memory).read_bytes() for memory in ("1M", "128MiB", "1g")}) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["backup"], "Missing argument 'VDI'"),
        (["backup", "disk"], "Missing argument 'FILE'"),
        (["backup", "disk", "file"], "name the snapshot to back up with -s, or use --live"),
        (["backup", "disk", "file", "-s", "a", "--live"], "give either -s or --live, not both"),
        (
            ["backup", "disk", "-", "-s", "a", "--manifest", "proof", "--no-manifest"],
            "give either --manifest or --no-manifest, not both",
        ),
        (["backup", "disk", "file", "-s", "0"], "snapshot ids start at 1"),
        (["backup", "disk", "file", "-s", "a", "--memory", "1K"], "expected at least 1.0 MiB"),
        (["backup", "disk", "file", "-s", "a", "--memory", "lots"], "expected a size such as 64M or 1.5G, got 'lots'"),
        (["backup", "disk", "file", "-s", "a", "--format", "tar"], "'tar' is not one of 'collie', 'dog'"),
        (["backup", "disk", "file", "-s", "a", "--timeout", "0"], "0.0 is not in the range"),
        (["backup", "disk", "file", "-s", "a", "--timeout", "nan"], "expected a number of seconds, got nan"),
        (["backup", "disk", "file", "-s", "a", "-p", "70000"], "70000 is not in the range"),
        (["backup", "disk", "file", "-s", "a", "--manifest", "m"], "--manifest is only for `-` and FIFOs"),
        (["backup", "disk", "-", "-s", "a", "--format", "collie"], "cannot go to `-`; use --format dog"),
        (["backup", "--colour"], "No such option"),
        (["back-up"], "No such command 'back-up'"),
    ],
)
def test_a_wrong_use_is_told_with_the_usage(command: Command, arguments: list[str], message: str) -> None:
    outcome = command(*arguments)

    assert (outcome.code, outcome.out) == (64, b"")
    assert outcome.err.startswith("Usage: asyncbackup ")
    assert message in " ".join(outcome.err.split())


def test_a_terminal_gets_no_backup() -> None:
    ours, theirs = pty.openpty()
    process = start("backup", "disk", "-", "-s", "a", stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)

    _, err = process.communicate(timeout=30)
    os.close(ours)
    assert process.returncode == 64
    assert b"Usage: asyncbackup backup" in err
    assert b"a backup is not for a terminal" in err


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["backup", "--help"], ["vdi", "-h"], ["vdi", "list", "-h"]])
def test_help_is_there_for_the_asking(command: Command, arguments: list[str]) -> None:
    outcome = command(*arguments)

    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith(b"Usage: asyncbackup")


def test_the_version_is_told(command: Command) -> None:
    assert command("--version").out.decode() == f"asyncbackup, version {__version__}\n"


def test_what_the_guest_discarded_meanwhile_is_told(command: Command, tmp_path: Path) -> None:
    server = Deletable(disk_store())
    sheep = Sheep(server.store, on_request=server.note)

    async def write_and_discard() -> None:
        async with connect(sheep.host, sheep.port) as cluster:
            volume = await Volume.open(cluster, "disk")
            await volume.write(3 * OBJECT, b"data".ljust(512))
            server.at_read(1, lambda: server.discard(volume.inode, 3))

    with start_blocking_portal() as portal, portal.wrap_async_context_manager(sheep):
        portal.call(write_and_discard)
        told = command("backup", "disk", tmp_path / "one", "--live", "-p", str(sheep.port))
        portal.call(write_and_discard)
        summary = json.loads(command("backup", "disk", tmp_path / "two", "--live", "--json", "-p", str(sheep.port)).out)

    assert told.out.decode().splitlines()[-2] == "1 object discarded by the guest meanwhile: zeros in the backup"
    assert summary["objects_discarded"] == 1


def test_a_dry_run_says_what_it_would_do_and_does_nothing(command: Command, served: Served, tmp_path: Path) -> None:
    outcome = command("backup", "disk", tmp_path / "file", "-s", "b", "-F", "a", "--dry-run", "-p", served.port)

    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.decode().splitlines() == [
        "would compare 6 objects, and skip 1 shared",
        f"ok: would read at most {text.size(10 * OBJECT)} of 10 objects, and write at most {text.size(6 * OBJECT)}",
    ]
    assert left_in(tmp_path) == []


def leave_unfinished(folder: Path) -> None:
    (folder / ".file.partial").write_bytes(b"begun")
    (folder / ".file.partial.manifest").touch()


OBSTACLES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "nothing": (lambda _: None, ["file"]),
    "no folder": (lambda _: None, ["missing/file"]),
    "a file as folder": (lambda folder: (folder / "other").touch(), ["other/file"]),
    "a folder": (lambda folder: (folder / "file").mkdir(), ["file"]),
    "a file": (lambda folder: (folder / "file").touch(), ["file"]),
    "a file to replace": (lambda folder: (folder / "file").touch(), ["file", "--force"]),
    "a manifest": (lambda folder: (folder / "file.manifest").touch(), ["file"]),
    "a link to nothing": (lambda folder: (folder / "file").symlink_to("other"), ["file"]),
    "an unfinished run": (leave_unfinished, ["file"]),
    "an unfinished run to replace": (leave_unfinished, ["file", "--force"]),
    "a manifest of a file elsewhere": (lambda _: None, ["file", "--manifest", "manifest"]),
    "a manifest of standard output": (lambda folder: (folder / "manifest").touch(), ["-", "--manifest", "manifest"]),
}


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_a_dry_run_meets_the_obstacles_of_a_real_run_and_changes_nothing(
    command: Command, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, obstacle: str
) -> None:
    prepare, line = OBSTACLES[obstacle]
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    before = left_in(tmp_path)
    arguments = ("backup", "disk", *line, "-s", "b", "-q", "-p", served.port)

    dry = command(*arguments, "--dry-run")
    after = left_in(tmp_path)
    real = command(*arguments)

    assert after == before
    assert dry.code == real.code
    assert dry.err == (real.err if real.code else "")


def test_a_dry_run_says_that_another_run_writes_the_file(command: Command, served: Served, tmp_path: Path) -> None:
    lock = NameLock(Place(tmp_path / "file").lock, "file")
    lock.acquire()
    arguments = ("backup", "disk", tmp_path / "file", "-s", "b", "-p", served.port)

    dry, real = command(*arguments, "--dry-run"), command(*arguments)
    lock.release()

    assert "is writing it" in dry.err
    assert (dry.code, dry.err) == (real.code, real.err)


def test_a_dry_run_with_resume_goes_on_with_what_is_there(command: Command, served: Served, tmp_path: Path) -> None:
    leave_unfinished(tmp_path)
    arguments = ("backup", "disk", tmp_path / "file", "-s", "b", "--dry-run", "-p", served.port)

    assert command(*arguments, "--resume").code == 0
    assert left_in(tmp_path) == [".file.partial", ".file.partial.manifest"]


def test_a_dry_run_does_not_wait_for_a_reader(command: Command, served: Served, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "file")

    assert command("backup", "disk", tmp_path / "file", "-s", "b", "--dry-run", "-p", served.port).code == 0


def test_a_dry_run_tells_it_as_json(command: Command, served: Served, tmp_path: Path) -> None:
    outcome = command("backup", "disk", tmp_path / "file", "-s", "b", "--dry-run", "--json", "-p", served.port)

    assert json.loads(outcome.out)["objects_planned"] == 7


def test_other_backups_are_made_in_the_same_pass(command: Command, served: Served, tmp_path: Path) -> None:
    night, week, odd = tmp_path / "night", tmp_path / "week", tmp_path / "a=b"
    also = ("--also", f"{week}=1", "--also", f"{odd}=")

    outcome = command("backup", "disk", night, "-s", "b", "-F", "a", *also, "-p", served.port)

    assert outcome.code == 0
    assert night.read_bytes() == week.read_bytes()
    assert f"also against 1: 5 objects in {text.size(week.stat().st_size)} to {week}" in outcome.out.decode()
    assert f"also in full: 7 objects in {text.size(odd.stat().st_size)} to {odd}" in outcome.out.decode()
    assert command("verify", odd).code == 0


def test_a_dry_run_looks_where_each_backup_would_go(command: Command, served: Served, tmp_path: Path) -> None:
    (tmp_path / "week").write_bytes(b"mine")
    arguments = ("backup", "disk", tmp_path / "night", "-s", "b", "-F", "a", "--also", tmp_path / "week")

    outcome = command(*arguments, "--dry-run", "-p", served.port)

    assert outcome.code == ExitCode.EXISTS
    assert f"'{tmp_path / 'week'}'" in outcome.err or str(tmp_path / "week") in outcome.err


def test_several_processes_make_what_one_makes(command: Command, served: Served, tmp_path: Path) -> None:
    for name, workers in (("one", "1"), ("several", "2")):
        outcome = command("backup", "disk", tmp_path / name, "-s", "b", "--workers", workers, "-p", served.port)
        assert outcome.code == 0

    assert (tmp_path / "one").read_bytes() == (tmp_path / "several").read_bytes()
    assert left_in(tmp_path) == ["one", "one.manifest", "several", "several.manifest"]


def test_new_processes_import_nothing_from_the_current_folder(served: Served, tmp_path: Path) -> None:
    (tmp_path / "pickle.py").write_text("raise SystemExit")
    program = [sys.executable, "-P", *PROGRAM[1:]]
    environment = os.environ | {"PYTHONPATH": str(Path(asyncbackup.__file__).parents[1])}

    run = [*program, "backup", "disk", "file", "-s", "b", "--workers", "2", "-p", served.port]
    subprocess.run(run, cwd=tmp_path, env=environment, check=True, timeout=60)

    assert left_in(tmp_path) == ["file", "file.manifest", "pickle.py"]


@pytest.mark.parametrize("file", ["pipe", "file"])
def test_a_pipe_has_no_manifest_that_could_name_what_is_skipped(
    command: Command, served: Served, tmp_path: Path, file: str
) -> None:
    os.mkfifo(tmp_path / "pipe")
    also = [] if file == "pipe" else ["--also", tmp_path / "pipe"]

    outcome = command("backup", "disk", tmp_path / file, "-s", "b", *also, "--skip-unreadable", "-p", served.port)

    assert outcome.code == ExitCode.USAGE
    assert "--skip-unreadable needs a manifest" in outcome.err


def test_a_link_to_another_file_of_the_pass_is_the_same_file(command: Command, served: Served, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")

    outcome = command(
        "backup", "disk", tmp_path / "file", "-s", "b", "--also", tmp_path / "link", "--force", "-p", served.port
    )

    assert outcome.code == ExitCode.USAGE
    assert "are one file" in outcome.err


def test_one_file_that_is_complete_can_be_left_out_to_go_on_with_the_others(
    command: Command, served: Served, tmp_path: Path
) -> None:
    (tmp_path / "week").write_bytes(b"complete")
    arguments = ("backup", "disk", tmp_path / "night", "-s", "b", "--also", tmp_path / "week", "-p", served.port)

    outcome = command(*arguments, "--resume")

    assert outcome.code == ExitCode.EXISTS
    assert "if it is complete already, leave it out: --resume goes on with the others" in outcome.err
