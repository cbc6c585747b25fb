"""Files that were named as a shell expands them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import Command, Served, disk_store, serving


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(disk_store()) as running:
        yield running


@pytest.fixture
def command(capfdbinary: pytest.CaptureFixture[bytes]) -> Command:
    return Command(capfdbinary)


@pytest.fixture
def folder(command: Command, served: Served, tmp_path: Path) -> Path:
    """A folder of a full backup and its increment, whose names sort the wrong way round."""
    for name, options in (("vm.full", ("-s", "a")), ("vm.b", ("-s", "b", "-F", "a"))):
        assert command("backup", "disk", tmp_path / name, *options, "-p", served.port).code == 0
    return tmp_path


def glob(folder: Path) -> list[Path]:
    """Expand ``vm.*``."""
    return sorted(folder.glob("vm.*"))


def test_verify_takes_what_a_shell_expands(command: Command, folder: Path) -> None:
    outcome = command("verify", *glob(folder))

    left_out, order = outcome.err.splitlines()
    assert outcome.code == 0
    assert left_out == (f"left out, as they only belong to others: {folder}/vm.b.manifest, {folder}/vm.full.manifest")
    assert order == f"taken in this order, as their manifests say: {folder}/vm.full, {folder}/vm.b"
    assert outcome.out.splitlines()[-1] == b"chain: good, each file follows the one before it"


def test_nothing_is_said_where_that_is_wanted(command: Command, folder: Path) -> None:
    outcome = command("verify", "-q", *glob(folder))

    assert (outcome.code, outcome.out, outcome.err) == (0, b"", "")


def test_json_reports_the_order(command: Command, folder: Path) -> None:
    outcome = command("verify", "--json", *glob(folder))

    assert [Path(file["file"]).name for file in json.loads(outcome.out)["files"]] == ["vm.full", "vm.b"]


@pytest.mark.parametrize(
    "verb",
    [("export", "--to", "image"), ("merge", "--to", "merged"), ("restore", "--to", "new", "-p")],
    ids=lambda verb: verb[0],
)
def test_other_verbs_put_files_in_order_too(
    command: Command, served: Served, folder: Path, verb: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    port = (served.port,) if verb[0] == "restore" else ()

    outcome = command(*verb, *port, *glob(folder))

    assert outcome.code == 0, outcome.err
    assert f"taken in this order, as their manifests say: {folder}/vm.full, {folder}/vm.b" in outcome.err


def test_a_backup_twice_is_no_chain(command: Command, folder: Path) -> None:
    full = folder / "vm.full"

    outcome = command("export", full, full, "--to", folder / "image")

    assert outcome.code == 1
    assert f"{full} and {full} are both of snapshot 1 'a'" in outcome.err
    assert not (folder / "image").exists()


def test_verify_proves_each_file_even_where_they_are_no_chain(command: Command, folder: Path) -> None:
    full = folder / "vm.full"

    outcome = command("verify", full, full)

    assert outcome.code == 1
    assert "are both of snapshot 1 'a'" in outcome.err
    assert outcome.out.count(b"vm.full: good") == 2
    assert outcome.out.splitlines()[-1] == b"chain: BROKEN"


def test_a_manifest_alone_is_told_what_it_lacks(command: Command, folder: Path) -> None:
    (folder / "vm.b").unlink()

    outcome = command("verify", *glob(folder))

    assert (outcome.code, outcome.out) == (5, b"")
    assert outcome.err == (
        f"asyncbackup: {folder}/vm.b.manifest is the manifest of the backup {folder}/vm.b, which is missing\n"
    )


def test_files_of_which_none_is_a_backup_are_wrong_use(command: Command, tmp_path: Path) -> None:
    (tmp_path / "vm.img.state").write_bytes(b'{"state":1}\n')

    outcome = command("verify", tmp_path / "vm.img.state")

    assert outcome.code == 64
    assert "none of the files is a backup" in outcome.err
