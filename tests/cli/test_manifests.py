"""Which manifest belongs to which file on a command line, and what a missing one means: the same for every verb."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import Command, Served, disk_store, serving, start
from tests.damage import flip


@pytest.fixture
def served() -> Iterator[Served]:
    """A cluster of each test's own, which restores into it."""
    with serving(disk_store()) as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["info", "verify", "restore", "export", "merge", "convert"])
def test_every_verb_proves_what_is_piped(served: Served, backups: list[Path], tmp_path: Path, verb: str) -> None:
    manifest = Path(f"{backups[0]}.manifest").rename(tmp_path / "elsewhere")
    target = tmp_path / "target"
    options = {
        "info": ["--json"],
        "verify": ["--json", "--require-manifest"],
        "restore": ["--to", "new", "-p", served.port],
        "export": ["--to", str(target)],
        "merge": ["--to", str(target)],
        "convert": ["--to", str(target), "--format", "dog"],
    }[verb]

    def run() -> tuple[int | None, bytes]:
        arguments: list[str | Path] = [verb, "-", "--manifest", manifest, *options]
        process = start(*arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = process.communicate(backups[0].read_bytes(), timeout=60)
        return process.returncode, out + err

    assert run()[0] == 0
    target.unlink(missing_ok=True)
    Path(f"{target}.manifest").unlink(missing_ok=True)
    if verb == "restore":
        options[1] = "other"
    if verb != "info":  # which reads no data
        flip(backups[0], 16 + 16 + 1000)
        code, said = run()
        assert code == 1
        assert b"the data of object 0 was changed" in said
        assert not target.exists()


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["verify", "restore", "export", "merge"])
@pytest.mark.parametrize("count", [1, 3])
def test_there_is_a_manifest_for_each_file_or_none(
    command: Command, backups: list[Path], tmp_path: Path, verb: str, count: int
) -> None:
    target: list[str | Path] = [] if verb == "verify" else ["--to", tmp_path / "target"]

    outcome = command(verb, *backups, *target, *["--manifest", f"{backups[0]}.manifest"] * count)

    assert outcome.code == 64
    assert f"--manifest is given {count} times for 2 FILEs: give one for each" in outcome.err


@pytest.mark.parametrize("verb", ["info", "convert"])
def test_a_single_file_has_a_single_manifest(command: Command, backups: list[Path], tmp_path: Path, verb: str) -> None:
    target: list[str | Path] = [] if verb == "info" else ["--to", tmp_path / "target", "--format", "dog"]

    assert command(verb, backups[0], *target, *["--manifest", f"{backups[0]}.manifest"] * 2).code == 64


def test_a_chain_with_a_manifest_missing_is_refused_by_every_verb(
    command: Command, served: Served, backups: list[Path], tmp_path: Path
) -> None:
    Path(f"{backups[1]}.manifest").unlink()
    message = (
        f"{backups[1]}: it has no manifest, so nothing proves what it is a backup of and what it follows; name the "
    )

    verbs: list[list[str | Path]] = [
        ["restore", *backups, "--to", "new", "-p", served.port],
        ["export", *backups, "--to", tmp_path / "image"],
        ["merge", *backups, "--to", tmp_path / "merged"],
        ["verify", *backups, "--against", "disk", "-s", "b", "-p", served.port],
    ]
    for verb in verbs:
        outcome = command(*verb)
        assert (outcome.code, message in outcome.err) == (1, True), verb
    assert command("vdi", "list", "-p", served.port).out.count(b"new") == 0
    assert not (tmp_path / "image").exists()
    assert not (tmp_path / "merged").exists()
