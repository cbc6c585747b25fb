"""Merge as a user meets it: output, exit codes, pipes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from asyncbackup.storage.publication import manifest_path
from tests.chains import SIZE, Files
from tests.cli.command import Command, piped
from tests.folders import left_in


def test_merge_makes_one_backup_with_a_manifest(command: Command, files: Files, tmp_path: Path) -> None:
    outcome = command("merge", *files.all, "--to", tmp_path / "merged")

    assert outcome.code == 0
    assert outcome.out.decode().endswith(f"\nok: {tmp_path / 'merged'}: 8 objects from 3 backups\n")
    assert manifest_path(tmp_path / "merged").exists()
    command("export", tmp_path / "merged", "--to", tmp_path / "image")
    assert (tmp_path / "image").read_bytes() == files.images["c"]


def test_merge_names_what_the_base_is_needed_for(command: Command, files: Files, tmp_path: Path) -> None:
    outcome = command("merge", files.ab, files.bc, "--to", tmp_path / "merged")

    assert outcome.code == 1
    assert "object 1 lacks 7680 bytes at 512" in outcome.err
    assert "--base-image" in outcome.err
    assert "merged" not in left_in(tmp_path)


def test_merge_takes_an_image_of_the_base(command: Command, files: Files, tmp_path: Path) -> None:
    base = files.image("a")

    assert command("merge", files.ab, files.bc, "--to", tmp_path / "m", "--base-image", base).code == 0


def test_merge_writes_no_manifest_when_told(command: Command, files: Files, tmp_path: Path) -> None:
    outcome = command("merge", *files.all, "--to", tmp_path / "merged", "--no-manifest", "--json")

    assert json.loads(outcome.out)["has_manifest"] is False
    assert not manifest_path(tmp_path / "merged").exists()


def test_merge_replaces_a_file_and_its_manifest_by_force(command: Command, files: Files) -> None:
    assert command("merge", files.a, files.ab, "--to", files.bc).code == 3

    assert command("merge", files.a, files.ab, "--to", files.bc, "--force").code == 0
    assert command("export", files.bc, "--to", files.folder / "image").code == 0
    assert (files.folder / "image").read_bytes() == files.images["b"]


@pytest.mark.slow
def test_merge_into_a_pipe(files: Files, tmp_path: Path) -> None:
    ran = piped("merge", *files.all, "--to", "-")
    (tmp_path / "merged").write_bytes(ran.stdout)

    exported = piped(
        "export",
        tmp_path / "merged",
        "--to",
        "-",
        "-q",
        "--size",
        str(SIZE),
        "--object-size",
        "1M",
        "--input-format",
        "dog",
    )

    assert exported.stdout == files.images["c"], exported.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["merge", "a"],
        ["merge", "-", "-", "--to", "b"],
        ["merge", "a", "--to", "-", "--format", "collie"],
        ["merge", "a", "--to", "b", "--base-vdi", "vm"],
        ["merge", "a", "--to", "b", "-s", "monday"],
        ["merge", "a", "--to", "b", "--base-image", "i", "--base-vdi", "vm", "-s", "monday"],
    ],
    ids=" ".join,
)
def test_what_makes_no_sense_is_a_usage_error(command: Command, arguments: Sequence[str]) -> None:
    assert command(*arguments).code == 64
