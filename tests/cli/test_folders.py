"""FOLDER@SNAPSHOT in place of FILEs, as a user meets it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from asyncbackup.storage.publication import manifest_path
from tests.catalogs import write
from tests.chains import Files, declare
from tests.cli.command import Command, Served


@pytest.fixture
def folder(files: Files, monkeypatch: pytest.MonkeyPatch) -> Files:
    """The backups of tests.chains, in a folder that is called ``f``; the current one is the folder above it."""
    below = files.folder / "f"
    below.mkdir()
    for file in files.all:
        shutil.move(file, below)
        shutil.move(manifest_path(file), below)
    monkeypatch.chdir(files.folder)
    return Files(below, below / "a", below / "ab", below / "bc", files.images, files.identities)


def exported(command: Command, *arguments: object) -> bytes:
    outcome = command("export", *arguments, "--to", "made.img", "--force")
    assert outcome.code == 0, outcome.err
    return Path("made.img").read_bytes()


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("snapshot", "used"), [("a", "f/a"), ("b", "f/a, f/ab"), ("c", "f/a, f/ab, f/bc"), ("3", "f/a, f/ab, f/bc")]
)
def test_the_files_that_lead_to_the_snapshot_are_used_and_named(command: Command, snapshot: str, used: str) -> None:
    outcome = command("verify", f"f@{snapshot}")

    assert (outcome.code, outcome.err) == (0, f"used, oldest first: {used}\n")


def test_an_image_is_made_of_them(command: Command, folder: Files) -> None:
    assert exported(command, "f@c") == folder.images["c"]
    assert exported(command, "f/@disk:b") == folder.images["b"]
    assert exported(command, f"{folder.folder}@{folder.identities['a'].created}") == folder.images["a"]


def test_a_vdi_is_made_of_them(command: Command, backups: list[Path], served: Served) -> None:
    outcome = command("restore", f"{backups[0].parent}@b", "--to", "of-a-folder", "-p", served.port)

    assert outcome.code == 0, outcome.err


def test_one_backup_is_made_of_them(command: Command, folder: Files) -> None:
    assert command("merge", "f@c", "--to", "merged").code == 0

    assert exported(command, "merged") == folder.images["c"]


def test_they_begin_on_the_base_that_is_named(command: Command, folder: Files) -> None:
    shutil.copy(folder.image("b", "../b.img"), "copy.img")
    for name in ("b.img.state",):
        assert Path(name).exists()

    outcome = command("export", "f@c", "--base-image", "b.img", "--to", "made.img")

    assert (outcome.code, "used, oldest first: f/bc\n" in outcome.err) == (0, True)
    assert Path("made.img").read_bytes() == folder.images["c"]


def test_a_base_goes_by_its_name_and_that_of_its_vdi(command: Command, folder: Files) -> None:
    folder.a.unlink()

    for options in (("--base", "a"), ("--base", "1", "--base-vdi", "disk")):
        assert command("merge", "f@c", *options, "--to", "merged", "--force").err.startswith(
            "used, oldest first: f/ab, f/bc\n"
        )


def test_of_an_image_without_a_state_nobody_knows_where_they_would_begin(command: Command, folder: Files) -> None:
    folder.image("b", "../b.img", has_state=False)

    outcome = command("export", "f@c", "--base-image", "b.img", "--to", "made.img")

    assert (outcome.code, "nothing says which snapshot b.img equals: name FILEs" in outcome.err) == (64, True)


def test_a_gap_is_an_error_that_names_what_is_missing(command: Command, folder: Files) -> None:
    folder.ab.unlink()

    outcome = command("verify", "f@c")

    assert outcome.code == 1
    assert "bc is the difference to snapshot 2 'b' of VDI 'disk'" in outcome.err
    assert "no backup there is of that, except for ab (no data); bring back" in outcome.err


def test_a_snapshot_that_is_not_there_is_an_error_that_names_those_that_are(command: Command, folder: Files) -> None:
    outcome = command("verify", "f@x")

    assert outcome.code == 5
    assert "f has no backup of a snapshot 'x'; it has disk:c, disk:b, disk:a; " in outcome.err
    assert folder.a.exists()


def test_a_snapshot_of_several_vdis_is_an_error_that_says_how_to_choose(command: Command, tmp_path: Path) -> None:
    write(tmp_path, "a", 1, tag="mon")
    write(tmp_path, "b", 1, vdi="db", tag="mon")

    outcome = command("verify", f"{tmp_path}@mon")

    assert outcome.code == 1
    assert f"several snapshots in {tmp_path} may be meant by 'mon'; they are vm:mon, db:mon; put one of" in outcome.err
    assert "used" in command("verify", f"{tmp_path}@db:mon").err


def test_a_file_with_this_sign_in_its_name_is_a_file(command: Command, folder: Files) -> None:
    shutil.move(folder.a, "f@a")
    shutil.move(manifest_path(folder.a), "f@a.manifest")

    assert command("verify", "f@a").err == ""


def test_folders_and_tags_may_have_this_sign_in_their_names(command: Command, tmp_path: Path) -> None:
    (tmp_path / "at@home").mkdir()
    write(tmp_path / "at@home", "a", 1, tag="m@n")

    assert f"used, oldest first: {tmp_path}/at@home/a\n" in command("verify", f"{tmp_path}/at@home@m@n").err


def test_a_folder_may_be_named_by_a_url(command: Command, folder: Files) -> None:
    assert command("verify", f"file://{folder.folder}@a").err == f"used, oldest first: {folder.a}\n"


def test_what_is_in_no_folder_is_a_file_that_is_missing(command: Command, tmp_path: Path) -> None:
    outcome = command("export", f"{tmp_path}/missing@a", "--to", tmp_path / "made")

    assert (outcome.code, "missing@a: no such file" in outcome.err) == (5, True)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("more", [("f/a",), ("f@b",), ("--manifest", "f/a.manifest")])
def test_nothing_else_can_be_named_with_it(command: Command, more: tuple[str, ...]) -> None:
    outcome = command("verify", "f@a", *more)

    assert (outcome.code, "FOLDER@SNAPSHOT stands for all FILEs" in outcome.err) == (64, True)


def test_quiet_says_nothing_of_them(command: Command, folder: Files) -> None:
    assert command("verify", "f@a", "--quiet").err == ""
    assert folder.a.exists()


def test_names_of_files_cannot_command_the_terminal(command: Command, tmp_path: Path) -> None:
    write(tmp_path, "\x1b[2J", 1)

    assert "\x1b" not in command("verify", f"{tmp_path}@1").err


def test_a_hostile_manifest_that_claims_the_snapshot_is_judged_when_it_is_read(command: Command, folder: Files) -> None:
    shutil.copy(folder.ab, "f/cheap")
    shutil.copy(manifest_path(folder.ab), "f/cheap.manifest")
    declare(folder.folder / "cheap", base_identity=None, base_size=None)
    Path("f/cheap").write_bytes(bytes(Path("f/cheap").stat().st_size))

    outcome = command("export", "f@b", "--to", "made.img")

    assert (outcome.code, "f/cheap: " in outcome.err) == (1, True)
    assert not Path("made.img").exists()
