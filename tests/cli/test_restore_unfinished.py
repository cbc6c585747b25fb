"""What the command line says of an unfinished restore, and that it works when it is followed."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncbackup.storage.journal import journal_beside
from tests.cli.command import Command, Served, disk_store, serving
from tests.folders import left_in


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncbackup.verbs.discard._WATCH_S", 0)


@pytest.fixture
def served() -> Iterator[Served]:
    """A server that fails at the second object of a restore, and at the deletion after it."""
    with serving(disk_store(), "create_and_write_obj@2:error=EIO", "del_vdi@1:error=EIO") as running:
        yield running


@pytest.fixture
def backup(command: Command, served: Served, tmp_path: Path) -> Path:
    assert command("backup", "disk", tmp_path / "full", "-s", "a", "-p", served.port).code == 0
    return tmp_path / "full"


def test_the_advice_after_an_unfinished_restore_works_to_the_letter(
    command: Command, served: Served, backup: Path
) -> None:
    failed = command("restore", backup, "--to", "new disk", "-p", served.port)
    assert failed.code == 2
    assert "'new disk', tagged 'unfinished restore', may be left behind" in failed.err

    again = command("restore", backup, "--to", "new disk", "-p", served.port)
    assert again.code == 3
    assert "an unfinished restore left it" in again.err

    advised = [re.findall(r"`asyncbackup (.*)` removes it", each.err) for each in (failed, again)]
    assert advised == [["restore --discard 'new disk'"]] * 2
    discarded = command(*shlex.split(advised[0][0]), "-p", served.port)
    assert (discarded.code, discarded.err) == (0, "")
    assert discarded.out.startswith(b"ok: new disk: discarded")
    assert command("restore", backup, "--to", "new disk", "-q", "-p", served.port).code == 0


def test_discard_as_json_is_one_object(command: Command, served: Served, backup: Path) -> None:
    command("restore", backup, "--to", "new", "-p", served.port)

    outcome = command("restore", "--discard", "new", "--json", "-p", served.port)

    assert json.loads(outcome.out)["vdi"] == "new"


def test_discarding_what_is_no_unfinished_restore_is_1(command: Command, served: Served) -> None:
    outcome = command("restore", "--discard", "disk", "-p", served.port)

    assert outcome.code == 1
    assert "VDI 'disk' was not removed: it has no tag" in outcome.err


def test_discarding_what_is_not_there_is_5(command: Command, served: Served) -> None:
    assert command("restore", "--discard", "none", "-p", served.port).code == 5
    assert command("restore", "--discard", "", "-p", served.port).code == 5


@pytest.fixture
def kept(command: Command, tmp_path: Path) -> Iterator[Served]:
    """A cluster with VDI new, which a restore of tmp_path/full left together with its journal."""
    store, folder = disk_store(), tmp_path
    with serving(store) as served:
        assert command("backup", "disk", folder / "full", "-s", "a", "-p", served.port).code == 0
    with serving(store, "create_and_write_obj@4+:error=EIO") as served:
        command("restore", folder / "full", "--to", "new", "--checkpoint", "1M", "--in-flight", "1", "-p", served.port)
        assert journal_beside(folder / "full", "new").exists()
        yield served


def test_discard_removes_the_journal_beside_the_file(command: Command, kept: Served, tmp_path: Path) -> None:
    outcome = command("restore", tmp_path / "full", "--discard", "new", "-p", kept.port)

    assert (outcome.code, outcome.err) == (0, "")
    assert f"removed {journal_beside(tmp_path / 'full', 'new')}" in outcome.out.decode()
    assert left_in(tmp_path) == ["full", "full.manifest"]


def test_discard_finds_the_journal_in_a_folder_whichever_backup_was_the_first(command: Command, tmp_path: Path) -> None:
    store, folder = disk_store(), tmp_path / "backups"
    folder.mkdir()
    with serving(store) as served:
        assert command("backup", "disk", folder / "b", "-s", "b", "-F", "a", "-p", served.port).code == 0
    at, on = f"{folder}@b", ("--base", "a", "--base-vdi", "disk")
    with serving(store, "create_and_write_obj@4+:error=EIO") as served:
        command("restore", at, *on, "--to", "new", "--checkpoint", "1M", "--in-flight", "1", "-p", served.port)
        assert journal_beside(folder / "b", "new").exists()

        outcome = command("restore", at, "--discard", "new", "-p", served.port)

    assert (outcome.code, outcome.err) == (0, "")
    assert f"removed {journal_beside(folder / 'b', 'new')}" in outcome.out.decode()
    assert left_in(folder) == ["b", "b.manifest"]


def test_discard_removes_the_journal_that_is_named(command: Command, kept: Served, tmp_path: Path) -> None:
    journal = journal_beside(tmp_path / "full", "new")

    assert command("restore", "--journal", journal, "--discard", "new", "-p", kept.port).code == 0

    assert left_in(tmp_path) == ["full", "full.manifest"]


def test_discard_without_a_file_leaves_the_journal(command: Command, kept: Served, tmp_path: Path) -> None:
    assert command("restore", "--discard", "new", "-p", kept.port).code == 0

    assert journal_beside(tmp_path / "full", "new").exists()


@pytest.mark.parametrize("more", [["--base", "a"], ["--to", "new"]])
def test_discard_takes_no_target_and_no_base(command: Command, more: list[str]) -> None:
    assert command("restore", "--discard", "disk", *more).code == 64


@pytest.mark.parametrize("arguments", [["--to", "new"], ["file"], []])
def test_a_restore_needs_files_and_a_target(command: Command, arguments: list[str]) -> None:
    outcome = command("restore", *arguments)

    assert outcome.code == 64
    assert "Missing" in outcome.err


def test_a_creation_without_an_answer_says_how_to_look(command: Command, tmp_path: Path) -> None:
    store = disk_store()
    with serving(store) as served:
        assert command("backup", "disk", tmp_path / "full", "-s", "a", "-p", served.port).code == 0

    with serving(store, "new_vdi@1:stall", "get_vdi_info@2+:error=EIO") as served:
        outcome = command(
            "restore", tmp_path / "full", "--to", "new", "--timeout", "0.5", "--give-up-after", "0", "-p", served.port
        )

    assert outcome.code == 2
    assert "may be there" in outcome.err
    assert "look with `asyncbackup vdi list`" in outcome.err
    assert "`dog vdi delete new` removes it" in outcome.err
