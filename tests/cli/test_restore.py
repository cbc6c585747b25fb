"""Restore as a user meets it: output, exit codes, pipes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import Command, Served, disk_store, serving, start
from tests.disks import OBJECT, OBJECTS

OPTIONS = ("--object-size", str(OBJECT), "--size", str(OBJECT * OBJECTS))


@pytest.fixture
def served() -> Iterator[Served]:
    """A cluster of each test's own, which restores into it."""
    with serving(disk_store()) as running:
        yield running


def test_restore_makes_a_vdi_that_verifies(command: Command, served: Served, backups: list[Path]) -> None:
    outcome = command("restore", *backups, "--to", "new", "-p", served.port)

    assert (outcome.code, outcome.err) == (0, "")
    wrote, last = outcome.out.decode().splitlines()
    assert (wrote.startswith("wrote 7 objects, "), last) == (True, "ok: new: 8.0 MiB")
    against = ("--against", "new", "--assume-base", "--sample", "100%", "-p", served.port)
    assert command("verify", *backups, *against).code == 0


def test_restore_clones_a_snapshot(command: Command, served: Served, backups: list[Path]) -> None:
    outcome = command("restore", backups[1], "--to", "new", "--base", "a", "-p", served.port)

    assert outcome.code == 0
    assert b"a clone of VDI 'disk' snapshot 1" in outcome.out
    assert command("verify", *backups, "--against", "new", "--assume-base", "-p", served.port).code == 0


def test_restore_as_json_is_one_object(command: Command, served: Served, backups: list[Path]) -> None:
    outcome = command("restore", *backups, "--to", "new", "--json", "-p", served.port)

    told = json.loads(outcome.out)
    assert (told["vdi"], told["size"], told["objects_done"], told["checked"]) == ("new", OBJECT * OBJECTS, 7, True)


def test_restore_to_a_taken_name_is_3(command: Command, served: Served, backups: list[Path]) -> None:
    outcome = command("restore", *backups, "--to", "disk", "-p", served.port)

    assert outcome.code == 3
    assert "'disk' exists already" in outcome.err


def test_restore_on_a_missing_snapshot_is_5(command: Command, served: Served, backups: list[Path]) -> None:
    outcome = command("restore", backups[1], "--to", "new", "--base", "c", "-p", served.port)

    assert outcome.code == 5


def test_restore_of_a_missing_file_is_5(command: Command, served: Served, tmp_path: Path) -> None:
    assert command("restore", tmp_path / "none", "--to", "new", "-p", served.port).code == 5


def test_restore_of_an_increment_alone_says_what_it_goes_on(
    command: Command, served: Served, backups: list[Path]
) -> None:
    outcome = command("restore", backups[1], "--to", "new", "-p", served.port)

    assert outcome.code == 1
    assert "that snapshot with --base" in outcome.err


def test_restore_without_a_manifest_takes_sizes(command: Command, served: Served, backups: list[Path]) -> None:
    for file in backups:
        Path(f"{file}.manifest").unlink()

    outcome = command("restore", backups[0], "--to", "new", *OPTIONS, "-p", served.port)

    assert outcome.code == 0
    assert b"not every file has a manifest" in outcome.out
    comparing = ("--object-size", str(OBJECT), "--against", "new", "-p", served.port)
    assert command("verify", backups[0], *comparing).code == 0


@pytest.mark.slow
def test_restore_reads_from_a_pipe(command: Command, served: Served, backups: list[Path]) -> None:
    process = start("restore", "-", "--to", "new", *OPTIONS, "-p", served.port, "-q", stdin=subprocess.PIPE)
    process.communicate(backups[0].read_bytes(), timeout=30)

    assert process.returncode == 0
    assert command("verify", backups[0], "--against", "new", "--assume-base", "-p", served.port).code == 0


def test_restore_with_a_base_vdi_alone_is_a_usage_error(command: Command, backups: list[Path]) -> None:
    assert command("restore", *backups, "--to", "new", "--base-vdi", "disk").code == 64
