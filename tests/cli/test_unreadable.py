"""Objects that the cluster has lost, as the command line tells of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncbackup.wire.oid import data_oid
from asyncbackup.wire.vdi_ids import first_id
from tests.cli.command import Command, Served, disk_store, serving
from tests.folders import left_in

LOST = [data_oid(first_id("disk") + 1, idx) for idx in (2, 5)]


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """The disk of tests.disks without objects 2 and 5 of snapshot b; the one replica of object 3 cannot be read."""
    store = disk_store()
    for oid in LOST:
        assert store.remove(oid)
    with serving(store, f"read_peer/{data_oid(first_id('disk') + 1, 3):016x}@1+:error=EIO") as running:
        yield running


@pytest.fixture
def file(command: Command, served: Served, tmp_path: Path) -> Path:
    """A backup that lacks them."""
    made = tmp_path / "file"
    assert command("backup", "disk", made, "-s", "b", "--skip-unreadable", "-p", served.port).code == 1
    return made


def test_a_backup_names_all_lost_objects_and_leaves_no_file(command: Command, served: Served, tmp_path: Path) -> None:
    outcome = command("backup", "disk", tmp_path / "file", "-s", "b", "-p", served.port)

    assert outcome.code == 1
    assert outcome.err.startswith("asyncbackup: 2 objects cannot be read: 2, 5; the first of them: reading object 2 (")
    assert "--skip-unreadable" in outcome.err
    assert left_in(tmp_path) == []


def test_a_backup_without_them_says_so(command: Command, served: Served, tmp_path: Path) -> None:
    outcome = command("backup", "disk", tmp_path / "file", "-s", "b", "--skip-unreadable", "-p", served.port)

    assert outcome.code == 1
    assert outcome.out.decode().splitlines()[-1].startswith("incomplete: disk b: 5 objects in ")
    assert outcome.err == f"asyncbackup: {tmp_path / 'file'} is INCOMPLETE: 2 objects (2, 5) could not be read\n"
    assert left_in(tmp_path) == ["file", "file.manifest"]


def test_json_names_them(command: Command, served: Served, tmp_path: Path) -> None:
    outcome = command("backup", "disk", tmp_path / "file", "-s", "b", "--skip-unreadable", "--json", "-p", served.port)

    assert (outcome.code, outcome.err) == (1, "")
    assert json.loads(outcome.out)["missing"] == [2, 5]


def test_where_nothing_is_lost_it_ends_well(command: Command, served: Served, tmp_path: Path) -> None:
    outcome = command("backup", "disk", tmp_path / "file", "-s", "a", "--skip-unreadable", "-p", served.port)

    assert (outcome.code, outcome.err) == (0, "")


@pytest.mark.parametrize(
    ("file", "option", "what_next"),
    [("file", "--no-manifest", "leave --no-manifest out"), ("-", "--format=dog", "write one with --manifest")],
)
def test_it_needs_a_manifest(command: Command, served: Served, file: str, option: str, what_next: str) -> None:
    outcome = command("backup", "disk", file, "-s", "b", "--skip-unreadable", option, "-p", served.port)

    assert outcome.code == 64
    assert f"--skip-unreadable needs a manifest, which names what is missing: {what_next}" in outcome.err


def test_verify_says_that_it_is_incomplete(command: Command, file: Path) -> None:
    outcome = command("verify", file)

    assert outcome.code == 1
    assert f"{file}: INCOMPLETE, 2 objects (2, 5) could not be read for it: 5 records" in outcome.out.decode()


def test_verify_compares_what_it_has(command: Command, served: Served, file: Path) -> None:
    outcome = command("verify", file, "--against", "disk", "-p", served.port, "--json")

    told = json.loads(outcome.out)
    assert (outcome.code, told["good"], told["files"][0]["missing"]) == (1, False, [2, 5])
    assert told["against"]["good"]


def test_info_shows_it(command: Command, file: Path) -> None:
    outcome = command("info", file)

    assert outcome.code == 0
    assert "missing   2 objects (2, 5) could not be read: it is INCOMPLETE" in outcome.out.decode()
    assert json.loads(command("info", file, "--json").out)["missing"] == [2, 5]


def test_only_who_allows_it_gets_an_image(command: Command, file: Path, tmp_path: Path) -> None:
    refused = command("export", file, "--to", tmp_path / "image")
    allowed = command("export", file, "--to", tmp_path / "image", "--allow-incomplete")

    assert (refused.code, allowed.code) == (1, 0)
    assert "is incomplete: 2 objects could not be read for it: 2, 5;" in refused.err
    assert "--allow-incomplete" in refused.err
    assert "INCOMPLETE: the backups lack 2 objects (2, 5)" in allowed.out.decode()


def test_only_who_allows_it_gets_a_vdi(command: Command, served: Served, file: Path) -> None:
    refused = command("restore", file, "--to", "new", "-p", served.port)
    allowed = command("restore", file, "--to", "new", "--allow-incomplete", "-p", served.port)

    assert (refused.code, allowed.code) == (1, 0)
    assert "INCOMPLETE: the backups lack 2 objects (2, 5)" in allowed.out.decode()


def test_a_vdi_that_exists_does_not_become_incomplete(command: Command, served: Served, file: Path) -> None:
    outcome = command("restore", file, "--to", "disk", "--onto", "--allow-incomplete", "-p", served.port)

    assert outcome.code == 64
    assert "leave --allow-incomplete out" in outcome.err


def test_merge_and_convert_refuse_it(command: Command, file: Path, tmp_path: Path) -> None:
    for verb in ("merge", "convert"):
        arguments = ("--format", "dog") if verb == "convert" else ()
        outcome = command(verb, file, "--to", tmp_path / verb, *arguments)
        assert outcome.code == 1
        assert "is incomplete" in outcome.err


def test_copies_that_differ_are_named(command: Command, served: Served, file: Path) -> None:
    outcome = command("verify", file, "--against", "disk", "--all-replicas", "-p", served.port)

    assert outcome.code == 1
    lines = outcome.out.decode().splitlines()
    oid = f"{data_oid(first_id('disk') + 1, 3):016x}"
    assert f"disk: the copies of object 3 (oid {oid}) differ: localhost:{served.port} I/O error" in lines
    assert "disk: read 5 copies of 5 objects: those of 1 object DIFFER" in lines
    assert any(line.startswith("disk b: the same; compared") for line in lines)


def test_copies_are_those_of_a_cluster(command: Command, file: Path) -> None:
    outcome = command("verify", file, "--all-replicas")

    assert outcome.code == 64
    assert "--all-replicas has no effect without --against" in outcome.err
