"""Export as a user meets it: output, exit codes, pipes."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from asyncbackup.storage.publication import manifest_path
from tests.chains import SIZE, Files
from tests.cli.command import Command, piped, start
from tests.folders import left_in


def test_export_makes_an_image_and_tells_what_it_wrote(command: Command, files: Files, tmp_path: Path) -> None:
    outcome = command("export", *files.all, "--to", tmp_path / "image")

    assert outcome.code == 0
    assert (tmp_path / "image").read_bytes() == files.images["c"]
    wrote, last = outcome.out.decode().splitlines()
    assert wrote.startswith("wrote ")
    assert last == f"ok: {tmp_path / 'image'}: 8.0 MiB from 3 backups"
    assert outcome.err == ""


def test_export_reports_in_json(command: Command, files: Files, tmp_path: Path) -> None:
    outcome = command("export", *files.all, "--to", tmp_path / "image", "--json")

    fields = json.loads(outcome.out)
    assert (fields["files"], fields["size"], fields["in_place"], fields["checked"]) == (3, SIZE, False, True)


def test_export_is_silent_when_told(command: Command, files: Files, tmp_path: Path) -> None:
    outcome = command("export", files.a, "--to", tmp_path / "image", "-q")

    assert (outcome.code, outcome.out, outcome.err) == (0, b"", "")


def test_export_leaves_an_image_that_exists(command: Command, files: Files, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"mine")

    outcome = command("export", files.a, "--to", tmp_path / "image")

    assert outcome.code == 3
    assert "exists already" in outcome.err
    assert (tmp_path / "image").read_bytes() == b"mine"


def test_export_replaces_an_image_by_force(command: Command, files: Files, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"mine")

    assert command("export", files.a, "--to", tmp_path / "image", "--force").code == 0
    assert (tmp_path / "image").read_bytes() == files.images["a"]


def test_export_rolls_an_image_in_place(command: Command, files: Files) -> None:
    standby = files.image("a", "standby")

    outcome = command("export", files.ab, files.bc, "--to", standby, "--base-image", standby)

    assert outcome.code == 0
    assert "from 2 backups, in place" in outcome.out.decode()
    assert standby.read_bytes() == files.images["c"]


def test_export_refuses_a_wrong_base(command: Command, files: Files) -> None:
    standby = files.folder / "standby"
    standby.write_bytes(bytes(SIZE))

    outcome = command("export", files.ab, "--to", standby, "--base-image", standby)

    assert outcome.code == 1
    assert "it has no state beside it" in outcome.err
    assert standby.read_bytes() == bytes(SIZE)


def test_export_says_that_an_increment_needs_a_base(command: Command, files: Files, tmp_path: Path) -> None:
    outcome = command("export", files.ab, "--to", tmp_path / "image")

    assert outcome.code == 1
    assert "--base" in outcome.err


def test_export_refuses_what_another_roll_left_behind(command: Command, files: Files) -> None:
    standby = files.image("a", "standby")
    standby.with_name("standby.rolling").write_text("of others\n")

    outcome = command("export", files.ab, "--to", standby, "--base-image", standby)

    assert outcome.code == 2
    assert "standby: is half rolled" in outcome.err


def test_export_without_manifests_takes_sizes_from_the_command_line(
    command: Command, files: Files, tmp_path: Path
) -> None:
    files.without_manifests()

    outcome = command(
        "export",
        files.a,
        "--to",
        tmp_path / "image",
        "--size",
        str(SIZE),
        "--object-size",
        "1M",
        "--input-format",
        "collie",
    )

    assert outcome.code == 0
    assert "not checked: no manifest" in outcome.out.decode()
    assert (tmp_path / "image").read_bytes() == files.images["a"]


def test_export_of_a_missing_file(command: Command, tmp_path: Path) -> None:
    outcome = command("export", tmp_path / "none", "--to", tmp_path / "image")

    assert outcome.code == 5
    assert "no such file" in outcome.err


def test_export_of_a_damaged_file(command: Command, files: Files, tmp_path: Path) -> None:
    os.truncate(files.a, 100_000)
    before = left_in(tmp_path)

    outcome = command("export", files.a, "--to", tmp_path / "image")

    assert outcome.code == 1
    assert "at offset" in outcome.err
    assert left_in(tmp_path) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "a"],
        ["export", "--to", "image"],
        ["export", "-", "-", "--to", "image"],
        ["export", "a", "--to", "image", "--memory", "1K"],
        ["export", "a", "--to", "image", "--size", "much"],
    ],
    ids=" ".join,
)
def test_what_makes_no_sense_is_a_usage_error(command: Command, arguments: Sequence[str]) -> None:
    assert command(*arguments).code == 64


def test_an_image_goes_into_a_pipe(files: Files) -> None:
    ran = piped("export", *files.all, "--to", "-")

    assert ran.returncode == 0
    assert ran.stdout == files.images["c"]
    assert b"standard output: 8.0 MiB from 3 backups" in ran.stderr


@pytest.mark.slow
def test_a_backup_comes_from_a_pipe(files: Files, tmp_path: Path) -> None:
    manifests = [manifest_path(files.a).rename(tmp_path / "elsewhere"), manifest_path(files.ab)]

    ran = piped(
        *("export", "-", files.ab, "--to", tmp_path / "image"),
        *(argument for manifest in manifests for argument in ("--manifest", manifest)),
        data=files.a.read_bytes(),
    )

    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "image").read_bytes() == files.images["b"]


def test_a_reader_that_goes_away_is_an_error(files: Files) -> None:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with start("export", *files.all, "--to", "-", **pipes) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.read(10)
        process.stdout.close()

        assert b"Broken pipe" in process.stderr.read()
        assert process.wait(60) == 2
