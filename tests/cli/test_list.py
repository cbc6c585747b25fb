"""What list says of a folder, as a user meets it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from asyncbackup.storage.publication import MANIFEST, Place, manifest_path
from tests.catalogs import write
from tests.chains import Files
from tests.cli.command import Command


def listed(command: Command, folder: Path) -> list[str]:
    outcome = command("list", folder)
    assert (outcome.code, outcome.err) == (0, "")
    return outcome.out.decode().splitlines()


def test_a_chain_is_listed_in_its_order(command: Command, files: Files) -> None:
    title, header, *rows, blank, total = listed(command, files.folder)

    assert title == "VDI disk"
    assert header.split() == ["SNAPSHOT", "KIND", "SIZE", "TAKEN", "FILE"]
    assert [(row.split()[:3], row.split()[-1]) for row in rows] == [
        (["1", "a", "full"], "a"),
        (["2", "b", "increment"], "ab"),
        (["3", "c", "increment"], "bc"),
    ]
    assert (blank, total) == ("", f"{files.folder}: 3 backups of 1 VDI, 6.0 MiB")


def test_branches_are_drawn_and_the_longest_line_goes_straight_on(command: Command, tmp_path: Path) -> None:
    for name, to, base in (
        ("a", 1, None),
        ("b", 2, 1),
        ("b1", 3, 2),
        ("b2", 4, 3),
        ("c", 5, 2),
        ("d", 6, 5),
        ("e", 7, 6),
    ):
        write(tmp_path, name, to, base)

    rows = listed(command, tmp_path)[2:-2]

    assert [row.split("increment")[0].split("full")[0].rstrip() for row in rows] == [
        "1",
        "2",
        "├─ 3",
        "│  4",
        "5",
        "6",
        "7",
    ]


def test_a_gap_is_shown_where_it_is(command: Command, files: Files) -> None:
    files.ab.unlink()
    manifest_path(files.ab).unlink()

    *rows, _, total = listed(command, files.folder)

    assert [row.split()[:3] for row in rows[2:]] == [
        ["1", "a", "full"],
        ["(2", "b)", "MISSING"],
        ["3", "c", "increment"],
    ]
    assert total.endswith("; 1 snapshot is MISSING")


def test_what_is_special_of_a_backup_is_noted(command: Command, tmp_path: Path) -> None:
    write(tmp_path, "a", 1)
    write(tmp_path, "copy", 1)
    write(tmp_path, "on", 9, 8)
    write(tmp_path, "back", 8, 9)
    manifest = manifest_path(tmp_path / "copy")
    manifest.write_bytes(manifest.read_bytes().replace(b'{"manifest":2', b'{"manifest":3'))

    notes = [row.partition("(")[2] for row in listed(command, tmp_path)]

    assert "the same snapshot as a; may lack objects)" in notes
    assert "what it goes on goes on it)" in notes


def test_what_is_no_good_backup_is_named(command: Command, tmp_path: Path) -> None:
    write(tmp_path, "lost", 1).unlink()
    manifest_path(write(tmp_path, "damaged", 1)).write_bytes(b"{}\n")
    half = write(tmp_path, "half", 1)
    manifest_path(half).rename(Place(half).beside(MANIFEST).new)
    begun = write(tmp_path, "begun", 1)
    manifest_path(begun).rename(Place(begun).beside(MANIFEST).kept)
    begun.rename(Place(begun).partial)
    for name in "vwxyz":
        (tmp_path / name).write_bytes(b"")

    lines = listed(command, tmp_path)

    assert [line[:40] for line in lines] == [
        "unfinished: .begun.partial, 6 B of snaps",
        "no data: lost, 0 B of snapshot 1 of VDI ",
        "no manifest, so nothing says what it is:",
        "half replaced: half, 6 B of snapshot 1 o",
        "damaged: damaged, 6 B: at offset 0: line",
        f"{tmp_path}: no backups"[:40],
    ]
    assert lines[2].endswith(": v, w, x and 2 more")


def test_an_empty_folder_is_said_to_hold_no_backups(command: Command, tmp_path: Path) -> None:
    assert listed(command, tmp_path) == [f"{tmp_path}: no backups"]


def test_two_clusters_that_have_a_vdi_of_one_name_are_told_apart(command: Command, tmp_path: Path) -> None:
    for name, year in (("a", b"2024"), ("b", b"2025")):
        manifest = manifest_path(write(tmp_path, name, 1))
        formatted = b'"cluster":"%s-01-01T00:00:00.000000000Z"' % year
        manifest.write_bytes(manifest.read_bytes().replace(b'"cluster":null', formatted))

    titles = [line for line in listed(command, tmp_path) if line.startswith("VDI")]

    assert titles == [f"VDI vm, of the cluster formatted {year}-01-01T00:00:00.000000000Z" for year in (2024, 2025)]


def test_names_cannot_command_the_terminal(command: Command, tmp_path: Path) -> None:
    write(tmp_path, "\x1b[2J", 1, vdi="\x1b]0;vm\x07", tag="\x9b1m\u202e")
    (tmp_path / "\x1b[8m").write_bytes(b"")
    os.close(os.open(os.fsencode(tmp_path) + b"/\xff", os.O_CREAT))

    outcome = command("list", tmp_path)

    assert outcome.code == 0
    assert all(line.decode().isprintable() for line in outcome.out.splitlines())
    assert command("list", tmp_path, "--json").out.isascii()


def test_json_has_all_facts(command: Command, files: Files) -> None:
    (files.folder / "other").write_bytes(b"123")

    said = json.loads(command("list", files.folder, "--json").out)

    assert said["folder"] == str(files.folder)
    assert [(each["file"], each["on"], each["snapshot"]["tag"]) for each in said["backups"]] == [
        ("a", None, "a"),
        ("ab", "a", "b"),
        ("bc", "ab", "c"),
    ]
    assert said["backups"][0]["file_bytes"] == files.a.stat().st_size
    assert [(each["file"], each["state"], each["file_bytes"]) for each in said["others"]] == [
        ("other", "no manifest", 3)
    ]


def test_one_vdi_is_listed_alone(command: Command, tmp_path: Path) -> None:
    write(tmp_path, "a", 1)
    write(tmp_path, "b", 1, vdi="db")

    assert b"VDI vm" not in command("list", tmp_path, "--vdi", "db").out
    assert command("list", tmp_path, "--vdi", "web").code == 5


def test_a_file_in_place_of_a_folder_is_wrong_use_and_says_how_to_show_it(command: Command, files: Files) -> None:
    outcome = command("list", files.a)

    assert outcome.code == 64
    assert f"expected a folder, got the file {files.a}; `asyncbackup info {files.a}` shows it" in outcome.err


@pytest.mark.parametrize(("name", "code"), [("missing", 5), ("file/", 64), ("file/below", 2)])
def test_what_is_no_folder_is_an_error(command: Command, tmp_path: Path, name: str, code: int) -> None:
    (tmp_path / "file").write_bytes(b"")

    assert command("list", tmp_path / name).code == code


def test_a_thousand_files_are_listed(command: Command, tmp_path: Path) -> None:
    for number in range(500):
        write(tmp_path, f"{number:03}", number % 28 + 1, number % 28 or None)

    lines = listed(command, tmp_path)

    assert lines[-1] == f"{tmp_path}: 500 backups of 1 VDI, 2.9 KiB"
    assert len(lines) == 504


def test_deep_branches_do_not_fill_lines(command: Command, tmp_path: Path) -> None:
    write(tmp_path, "root", 1)
    # Each branch is shorter than the line that goes straight on, so it takes more and more to be one level deeper.
    before, number = 1, 1
    for level in range(6, 0, -1):
        for step in range(level):
            number += 1
            write(tmp_path, f"{level}-{step}", number, before if step == 0 else number - 1)
        before = number - level + 1

    *rows, _ = listed(command, tmp_path)
    assert max(map(len, rows)) < 100
