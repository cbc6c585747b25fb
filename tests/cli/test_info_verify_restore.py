from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.cli.command import Command, Served, disk_store, serving, start
from tests.disks import OBJECT, OBJECTS

OPTIONS = ("--object-size", str(OBJECT), "--size", str(OBJECT * OBJECTS))


@pytest.fixture
def served() -> Iterator[Served]:
    with serving(disk_store()) as running:
        yield running


@pytest.fixture
def command(capfdbinary: pytest.CaptureFixture[bytes]) -> Command:
    return Command(capfdbinary)


@pytest.fixture
def files(command: Command, served: Served, tmp_path: Path) -> list[Path]:
    """A full backup and its increment."""
    made = [tmp_path / "full", tmp_path / "increment"]
    for file, options in zip(made, (("-s", "a"), ("-s", "b", "-F", "a")), strict=True):
        assert command("backup", "disk", file, *options, "-p", served.port).code == 0
    return made


def flip(file: Path, position: int) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)


def test_info_tells_what_a_file_is(command: Command, files: list[Path]) -> None:
    outcome = command("info", files[1])

    assert (outcome.code, outcome.err) == (0, "")
    told = dict(line.split(maxsplit=1) for line in outcome.out.decode().splitlines())
    assert told["format"] == "collie"
    assert told["records"] == "5"
    assert told["vdi"].startswith("disk, 8.0 MiB")
    assert told["of"].startswith("snapshot 2 'b' of VDI 'disk' (vdi id ")
    assert told["base"].startswith("snapshot 1 'a' of VDI 'disk' (vdi id ")


@pytest.fixture
def vienna(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Be in a place where it is later than in UTC."""
    monkeypatch.setenv("TZ", "CET-1")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("vienna")
def test_info_tells_the_time_of_a_snapshot_here_and_in_utc(command: Command, files: list[Path]) -> None:
    told = command("info", files[0]).out.decode()

    utc, here = re.search(r"created (\S{16})", told), re.search(r"taken +(\S+ \S+) CET\n", told)
    assert utc is not None
    assert here is not None
    assert datetime.fromisoformat(here[1]) == datetime.fromisoformat(utc[1]) + timedelta(hours=1)


def test_info_without_a_manifest_says_so(command: Command, files: list[Path]) -> None:
    Path(f"{files[0]}.manifest").unlink()

    assert b"manifest  none" in command("info", files[0]).out


def test_info_lists_records(command: Command, files: list[Path]) -> None:
    header, first, *_ = command("info", "--records", files[1]).out.decode().splitlines()

    assert header.split()[:3] == ["IDX", "OFFSET", "LENGTH"]
    assert first.split()[:3] == ["1", "0", "512"]


@pytest.mark.parametrize("options", [(), ("--records",)], ids=["summary", "records"])
def test_info_as_json_is_one_object(command: Command, files: list[Path], options: tuple[str, ...]) -> None:
    told = json.loads(command("info", "--json", *options, files[1]).out)

    assert (told["records"], told["manifest"]["base"]["tag"]) == (5, "a")
    if options:
        assert [record["idx"] for record in told["record_list"]] == [1, 2, 3, 5, 6]


def test_info_reads_from_a_pipe(files: list[Path]) -> None:
    process = start("info", "--json", "-", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    out, _ = process.communicate(files[1].read_bytes() + b"more", timeout=30)

    told = json.loads(out)
    assert (process.returncode, told["records"], told["trailing_bytes"]) == (0, 5, 4)


def test_info_of_a_damaged_file_names_the_offset(command: Command, files: list[Path]) -> None:
    flip(files[0], 5)

    outcome = command("info", files[0])

    assert outcome.code == 1
    assert "at offset 4: expected magic" in outcome.err


def test_verify_proves_a_chain(command: Command, files: list[Path]) -> None:
    outcome = command("verify", *files)

    assert outcome.code == 0
    full, increment, chain = outcome.out.decode().splitlines()
    assert full.startswith(f"{files[0]}: good, all data is as its manifest says: 5 records")
    assert increment.startswith(f"{files[1]}: good")
    assert chain == "chain: good, each file follows the one before it"


def test_verify_tells_each_problem_in_a_line(command: Command, files: list[Path]) -> None:
    for position in (100, 16 + 16 + OBJECT + 100):
        flip(files[0], position)

    outcome = command("verify", files[0])

    assert outcome.code == 1
    first, second, verdict = outcome.out.decode().splitlines()
    assert "the data of object 0 was changed" in first
    assert "the data of object 1 was changed" in second
    assert verdict.endswith("BAD, 2 problems")


def test_verify_as_json_is_one_object(command: Command, files: list[Path]) -> None:
    flip(files[0], 100)

    outcome = command("verify", "--json", *files)

    told = json.loads(outcome.out)
    assert (outcome.code, told["good"], told["against"]) == (1, False, None)
    assert [file["problems"]["count"] for file in told["files"]] == [1, 0]


def test_verify_without_a_manifest_says_what_is_not_proven(command: Command, files: list[Path]) -> None:
    Path(f"{files[0]}.manifest").unlink()

    outcome = command("verify", *files)

    assert outcome.code == 0
    assert b"without a manifest nothing proves its data" in outcome.out
    assert b"1 of 1 links cannot be proven" in outcome.out


def test_verify_quietly_prints_problems_alone(command: Command, files: list[Path]) -> None:
    assert command("verify", "-q", *files).out == b""


def test_verify_against_a_snapshot(command: Command, served: Served, files: list[Path]) -> None:
    outcome = command("verify", *files, "--against", "disk", "-s", "b", "-p", served.port)

    assert outcome.code == 0
    assert b"disk b: the same; compared" in outcome.out


@pytest.mark.parametrize("sample", ["100", "100%"])
def test_verify_audits_a_sample(command: Command, served: Served, files: list[Path], sample: str) -> None:
    outcome = command("verify", files[1], "--against", "disk", "-s", "b", "--sample", sample, "-p", served.port)

    assert outcome.code == 0
    assert b"audited 1 of 1 object without a record" in outcome.out


def test_verify_names_the_objects_that_differ(command: Command, served: Served, files: list[Path]) -> None:
    command("restore", files[0], "--to", "new", "-p", served.port)

    outcome = command("verify", *files, "--against", "new", "--assume-base", "-p", served.port)

    assert outcome.code == 1
    assert b"new differs in 5 objects: 1, 2, 3, 5, 6\n" in outcome.out


def test_verify_does_not_compare_what_is_damaged(command: Command, served: Served, files: list[Path]) -> None:
    flip(files[0], 100)

    outcome = command("verify", *files, "--against", "disk", "-s", "b", "-p", served.port)

    assert outcome.code == 1
    assert b"not compared with disk" in outcome.out


@pytest.mark.parametrize(
    "options",
    [
        ("-s", "b"),
        ("--sample", "5"),
        ("--against", "disk", "--sample", "0"),
        ("--against", "disk", "--sample", "many"),
        ("-", "-"),
        ("-", "--against", "disk"),
    ],
)
def test_verify_refuses_what_makes_no_sense(command: Command, files: list[Path], options: tuple[str, ...]) -> None:
    assert command("verify", files[0], *options).code == 64


def test_restore_makes_a_vdi_that_verifies(command: Command, served: Served, files: list[Path]) -> None:
    outcome = command("restore", *files, "--to", "new", "-p", served.port)

    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.decode().startswith("new: 8.0 MiB\nwrote 7 objects, ")
    against = ("--against", "new", "--assume-base", "--sample", "100%", "-p", served.port)
    assert command("verify", *files, *against).code == 0


def test_restore_clones_a_snapshot(command: Command, served: Served, files: list[Path]) -> None:
    outcome = command("restore", files[1], "--to", "new", "--base", "a", "-p", served.port)

    assert outcome.code == 0
    assert b"a clone of VDI 'disk' snapshot 1" in outcome.out
    assert command("verify", *files, "--against", "new", "--assume-base", "-p", served.port).code == 0


def test_restore_as_json_is_one_object(command: Command, served: Served, files: list[Path]) -> None:
    outcome = command("restore", *files, "--to", "new", "--json", "-p", served.port)

    told = json.loads(outcome.out)
    assert (told["vdi"], told["size"], told["objects_done"], told["checked"]) == ("new", OBJECT * OBJECTS, 7, True)


def test_restore_to_a_taken_name_is_3(command: Command, served: Served, files: list[Path]) -> None:
    outcome = command("restore", *files, "--to", "disk", "-p", served.port)

    assert outcome.code == 3
    assert "'disk' exists already" in outcome.err


def test_restore_on_a_missing_snapshot_is_5(command: Command, served: Served, files: list[Path]) -> None:
    outcome = command("restore", files[1], "--to", "new", "--base", "c", "-p", served.port)

    assert outcome.code == 5


def test_restore_of_a_missing_file_is_5(command: Command, served: Served, tmp_path: Path) -> None:
    assert command("restore", tmp_path / "none", "--to", "new", "-p", served.port).code == 5


def test_restore_of_an_increment_alone_says_what_it_goes_on(
    command: Command, served: Served, files: list[Path]
) -> None:
    outcome = command("restore", files[1], "--to", "new", "-p", served.port)

    assert outcome.code == 1
    assert "that snapshot with --base" in outcome.err


def test_restore_without_a_manifest_takes_sizes(command: Command, served: Served, files: list[Path]) -> None:
    for file in files:
        Path(f"{file}.manifest").unlink()

    outcome = command("restore", *files, "--to", "new", *OPTIONS, "-p", served.port)

    assert outcome.code == 0
    assert b"not every file has a manifest" in outcome.out
    comparing = ("--object-size", str(OBJECT), "--against", "new", "-p", served.port)
    assert command("verify", *files, *comparing).code == 0


def test_restore_reads_from_a_pipe(command: Command, served: Served, files: list[Path]) -> None:
    process = start("restore", "-", "--to", "new", *OPTIONS, "-p", served.port, "-q", stdin=subprocess.PIPE)
    process.communicate(files[0].read_bytes(), timeout=30)

    assert process.returncode == 0
    assert command("verify", files[0], "--against", "new", "--assume-base", "-p", served.port).code == 0


def test_restore_with_a_base_vdi_alone_is_a_usage_error(command: Command, files: list[Path]) -> None:
    assert command("restore", *files, "--to", "new", "--base-vdi", "disk").code == 64
