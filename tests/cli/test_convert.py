"""Convert as a user meets it: output, exit codes, pipes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from asyncbackup.storage.publication import manifest_path
from tests import rbd_diffs
from tests.chains import SIZE, Files
from tests.cli.command import Command, piped


def test_convert_there_and_back_is_the_same_file(command: Command, files: Files, tmp_path: Path) -> None:
    command("convert", files.ab, "--to", tmp_path / "dog", "--format", "dog")
    command("convert", tmp_path / "dog", "--to", tmp_path / "collie", "--format", "collie")

    assert (tmp_path / "collie").read_bytes() == files.ab.read_bytes()
    assert manifest_path(tmp_path / "collie").read_bytes() == manifest_path(files.ab).read_bytes()
    assert (tmp_path / "dog").read_bytes() != files.ab.read_bytes()


def test_convert_for_ceph(command: Command, files: Files, tmp_path: Path) -> None:
    outcome = command("convert", files.ab, "--to", tmp_path / "diff", "--format", "rbd-diff")

    assert outcome.code == 0
    assert outcome.out.decode().endswith(f"\nok: {tmp_path / 'diff'}: b against a, of an image of 8.0 MiB\n")
    diff = rbd_diffs.parse((tmp_path / "diff").read_bytes())
    assert diff.apply(files.images["a"]) == files.images["b"]


@pytest.mark.slow
def test_convert_for_ceph_into_a_pipe(files: Files) -> None:
    ran = piped("convert", files.a, "--to", "-", "--format", "rbd-diff", "--snapshot-name", "first")

    diff = rbd_diffs.parse(ran.stdout)
    assert (diff.base, diff.snapshot) == (None, "first")
    assert diff.apply(b"") == files.images["a"]


def test_convert_for_ceph_in_json(command: Command, files: Files, tmp_path: Path) -> None:
    outcome = command("convert", files.ab, "--to", tmp_path / "diff", "--format", "rbd-diff", "--json")

    fields = json.loads(outcome.out)
    assert (fields["base"], fields["snapshot"], fields["size"]) == ("a", "b", SIZE)


def test_convert_leaves_a_file_that_exists(command: Command, files: Files) -> None:
    outcome = command("convert", files.a, "--to", files.ab, "--format", "rbd-diff")

    assert outcome.code == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ["convert", "a", "--to", "b"],
        ["convert", "a", "--to", "-", "--format", "collie"],
        ["convert", "a", "--to", "b", "--format", "vhd"],
        ["convert", "a", "--to", "b", "--format", "dog", "--snapshot-name", "x"],
    ],
    ids=" ".join,
)
def test_what_makes_no_sense_is_a_usage_error(command: Command, arguments: Sequence[str]) -> None:
    assert command(*arguments).code == 64
