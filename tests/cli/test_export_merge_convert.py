"""The three verbs as a user meets them: output, exit codes, pipes."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from asyncbackup.engine.manifest import manifest_path
from tests import rbd_diffs
from tests.chains import SIZE, Files, copy_files
from tests.cli.command import PROGRAM, Command, left_in, start


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return copy_files(tmp_path)


@pytest.fixture
def asyncbackup(capsysbinary: pytest.CaptureFixture[bytes]) -> Command:
    return Command(capsysbinary)


def piped(*arguments: object, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the command line as a process, with pipes at both ends."""
    command = [*PROGRAM, *map(str, arguments)]
    return subprocess.run(command, input=data, capture_output=True, check=False, timeout=60)


# export


def test_export_makes_an_image_and_tells_what_it_wrote(asyncbackup: Command, files: Files, tmp_path: Path) -> None:
    outcome = asyncbackup("export", *files.all, "--to", tmp_path / "image")

    assert outcome.code == 0
    assert (tmp_path / "image").read_bytes() == files.images["c"]
    assert outcome.out.decode().startswith(f"{tmp_path / 'image'}: 8.0 MiB from 3 backups\nwrote ")
    assert outcome.err == ""


def test_export_reports_in_json(asyncbackup: Command, files: Files, tmp_path: Path) -> None:
    outcome = asyncbackup("export", *files.all, "--to", tmp_path / "image", "--json")

    fields = json.loads(outcome.out)
    assert (fields["files"], fields["size"], fields["in_place"], fields["checked"]) == (3, SIZE, False, True)


def test_export_is_silent_when_told(asyncbackup: Command, files: Files, tmp_path: Path) -> None:
    outcome = asyncbackup("export", files.a, "--to", tmp_path / "image", "-q")

    assert (outcome.code, outcome.out, outcome.err) == (0, b"", "")


def test_export_leaves_an_image_that_exists(asyncbackup: Command, files: Files, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"mine")

    outcome = asyncbackup("export", files.a, "--to", tmp_path / "image")

    assert outcome.code == 3
    assert "exists already" in outcome.err
    assert (tmp_path / "image").read_bytes() == b"mine"


def test_export_replaces_an_image_by_force(asyncbackup: Command, files: Files, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"mine")

    assert asyncbackup("export", files.a, "--to", tmp_path / "image", "--force").code == 0
    assert (tmp_path / "image").read_bytes() == files.images["a"]


def test_export_rolls_an_image_in_place(asyncbackup: Command, files: Files) -> None:
    standby = files.image("a", "standby")

    outcome = asyncbackup("export", files.ab, files.bc, "--to", standby, "--base-image", standby)

    assert outcome.code == 0
    assert "from 2 backups, in place" in outcome.out.decode()
    assert standby.read_bytes() == files.images["c"]


def test_export_refuses_a_wrong_base(asyncbackup: Command, files: Files) -> None:
    standby = files.folder / "standby"
    standby.write_bytes(bytes(SIZE))

    outcome = asyncbackup("export", files.ab, "--to", standby, "--base-image", standby)

    assert outcome.code == 1
    assert "it has no state beside it" in outcome.err
    assert standby.read_bytes() == bytes(SIZE)


def test_export_says_that_an_increment_needs_a_base(asyncbackup: Command, files: Files, tmp_path: Path) -> None:
    outcome = asyncbackup("export", files.ab, "--to", tmp_path / "image")

    assert outcome.code == 1
    assert "--base" in outcome.err


def test_export_refuses_what_another_roll_left_behind(asyncbackup: Command, files: Files) -> None:
    standby = files.image("a", "standby")
    standby.with_name("standby.rolling").write_text("of others\n")

    outcome = asyncbackup("export", files.ab, "--to", standby, "--base-image", standby)

    assert outcome.code == 2
    assert "standby: is half rolled" in outcome.err


def test_export_without_manifests_takes_sizes_from_the_command_line(
    asyncbackup: Command, files: Files, tmp_path: Path
) -> None:
    files.without_manifests()

    outcome = asyncbackup(
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


def test_export_of_a_missing_file(asyncbackup: Command, tmp_path: Path) -> None:
    outcome = asyncbackup("export", tmp_path / "none", "--to", tmp_path / "image")

    assert outcome.code == 5
    assert "no such file" in outcome.err


def test_export_of_a_damaged_file(asyncbackup: Command, files: Files, tmp_path: Path) -> None:
    os.truncate(files.a, 100_000)
    before = left_in(tmp_path)

    outcome = asyncbackup("export", files.a, "--to", tmp_path / "image")

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
        ["merge", "a"],
        ["merge", "-", "-", "--to", "b"],
        ["merge", "a", "--to", "-", "--format", "collie"],
        ["merge", "a", "--to", "b", "--base-vdi", "vm"],
        ["merge", "a", "--to", "b", "-s", "monday"],
        ["merge", "a", "--to", "b", "--base-image", "i", "--base-vdi", "vm", "-s", "monday"],
        ["convert", "a", "--to", "b"],
        ["convert", "a", "--to", "-", "--format", "collie"],
        ["convert", "a", "--to", "b", "--format", "vhd"],
        ["convert", "a", "--to", "b", "--format", "dog", "--snapshot-name", "x"],
    ],
    ids=" ".join,
)
def test_what_makes_no_sense_is_a_usage_error(asyncbackup: Command, arguments: Sequence[str]) -> None:
    assert asyncbackup(*arguments).code == 64


def test_an_image_goes_into_a_pipe(files: Files) -> None:
    ran = piped("export", *files.all, "--to", "-")

    assert ran.returncode == 0
    assert ran.stdout == files.images["c"]
    assert b"standard output: 8.0 MiB from 3 backups" in ran.stderr


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


# merge


def test_merge_makes_one_backup_with_a_manifest(asyncbackup: Command, files: Files, tmp_path: Path) -> None:
    outcome = asyncbackup("merge", *files.all, "--to", tmp_path / "merged")

    assert outcome.code == 0
    assert outcome.out.decode().startswith(f"{tmp_path / 'merged'}: 8 objects from 3 backups\n")
    assert manifest_path(tmp_path / "merged").exists()
    asyncbackup("export", tmp_path / "merged", "--to", tmp_path / "image")
    assert (tmp_path / "image").read_bytes() == files.images["c"]


def test_merge_names_what_the_base_is_needed_for(asyncbackup: Command, files: Files, tmp_path: Path) -> None:
    outcome = asyncbackup("merge", files.ab, files.bc, "--to", tmp_path / "merged")

    assert outcome.code == 1
    assert "object 1 lacks 7680 bytes at 512" in outcome.err
    assert "--base-image" in outcome.err
    assert "merged" not in left_in(tmp_path)


def test_merge_takes_an_image_of_the_base(asyncbackup: Command, files: Files, tmp_path: Path) -> None:
    base = files.image("a")

    assert asyncbackup("merge", files.ab, files.bc, "--to", tmp_path / "m", "--base-image", base).code == 0


def test_merge_writes_no_manifest_when_told(asyncbackup: Command, files: Files, tmp_path: Path) -> None:
    outcome = asyncbackup("merge", *files.all, "--to", tmp_path / "merged", "--no-manifest", "--json")

    assert json.loads(outcome.out)["has_manifest"] is False
    assert not manifest_path(tmp_path / "merged").exists()


def test_merge_replaces_a_file_and_its_manifest_by_force(asyncbackup: Command, files: Files) -> None:
    assert asyncbackup("merge", files.a, files.ab, "--to", files.bc).code == 3

    assert asyncbackup("merge", files.a, files.ab, "--to", files.bc, "--force").code == 0
    assert asyncbackup("export", files.bc, "--to", files.folder / "image").code == 0
    assert (files.folder / "image").read_bytes() == files.images["b"]


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


# convert


def test_convert_there_and_back_is_the_same_file(asyncbackup: Command, files: Files, tmp_path: Path) -> None:
    asyncbackup("convert", files.ab, "--to", tmp_path / "dog", "--format", "dog")
    asyncbackup("convert", tmp_path / "dog", "--to", tmp_path / "collie", "--format", "collie")

    assert (tmp_path / "collie").read_bytes() == files.ab.read_bytes()
    assert manifest_path(tmp_path / "collie").read_bytes() == manifest_path(files.ab).read_bytes()
    assert (tmp_path / "dog").read_bytes() != files.ab.read_bytes()


def test_convert_for_ceph(asyncbackup: Command, files: Files, tmp_path: Path) -> None:
    outcome = asyncbackup("convert", files.ab, "--to", tmp_path / "diff", "--format", "rbd-diff")

    assert outcome.code == 0
    assert outcome.out.decode().startswith(f"{tmp_path / 'diff'}: b against a, of an image of 8.0 MiB\n")
    diff = rbd_diffs.parse((tmp_path / "diff").read_bytes())
    assert diff.apply(files.images["a"]) == files.images["b"]


def test_convert_for_ceph_into_a_pipe(files: Files) -> None:
    ran = piped("convert", files.a, "--to", "-", "--format", "rbd-diff", "--snapshot-name", "first")

    diff = rbd_diffs.parse(ran.stdout)
    assert (diff.base, diff.snapshot) == (None, "first")
    assert diff.apply(b"") == files.images["a"]


def test_convert_for_ceph_in_json(asyncbackup: Command, files: Files, tmp_path: Path) -> None:
    outcome = asyncbackup("convert", files.ab, "--to", tmp_path / "diff", "--format", "rbd-diff", "--json")

    fields = json.loads(outcome.out)
    assert (fields["base"], fields["snapshot"], fields["size"]) == ("a", "b", SIZE)


def test_convert_leaves_a_file_that_exists(asyncbackup: Command, files: Files) -> None:
    outcome = asyncbackup("convert", files.a, "--to", files.ab, "--format", "rbd-diff")

    assert outcome.code == 3
