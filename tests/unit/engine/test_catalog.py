from __future__ import annotations

from dataclasses import replace

import pytest

from asyncbackup.engine.catalog import Backup, Catalog, State, Stored, below, find_named, group_files
from asyncbackup.format.piece import PieceRange
from tests.catalogs import identity, stored, subject


def grouped(*names: str) -> dict[str, tuple[State, str | None]]:
    return {each.name: (each.state, each.manifest) for each in group_files(dict.fromkeys(names, 5))}


def test_a_file_and_its_manifest_are_a_backup() -> None:
    assert list(group_files({"f/vm.manifest": 300, "f/vm": 5})) == [Stored("f/vm", 5, State.GOOD, "f/vm.manifest")]


def test_a_manifest_in_another_folder_is_not_that_of_a_file() -> None:
    assert grouped("f/vm.manifest", "vm") == {
        "f/vm": (State.NO_DATA, "f/vm.manifest"),
        "vm": (State.NO_MANIFEST, None),
    }


def test_what_is_being_written_is_unfinished() -> None:
    assert grouped(".vm.partial", ".vm.partial.manifest", ".vm.lock", ".db.partial", ".db.manifest.partial") == {
        ".vm.partial": (State.UNFINISHED, ".vm.partial.manifest"),
        ".db.partial": (State.UNFINISHED, None),
    }


def test_a_backup_whose_manifest_is_due_is_half_replaced() -> None:
    assert grouped("vm", ".vm.manifest.new") == {"vm": (State.HALF_REPLACED, ".vm.manifest.new")}


def test_a_file_that_is_about_to_be_replaced_has_only_lost_its_manifest() -> None:
    assert grouped("vm", ".vm.partial", ".vm.manifest.new")["vm"] == (State.NO_MANIFEST, None)


def test_images_and_what_belongs_to_them_are_no_backups() -> None:
    assert grouped("vm.img", "vm.img.state", "db.img", "db.img.rolling") == {}


def test_all_else_has_no_manifest() -> None:
    assert grouped("notes") == {"notes": (State.NO_MANIFEST, None)}


def test_a_catalog_is_sorted_and_has_good_backups_apart() -> None:
    said = subject(identity(1), None)
    catalog = Catalog.of(
        "f",
        [
            Stored("b", 1, State.GOOD, "b.manifest", said),
            Stored("x", 1, State.NO_MANIFEST),
            Stored("a", 1, State.GOOD, "a.manifest", said),
        ],
    )

    assert catalog.backups == (Backup("a", 1, said), Backup("b", 1, said))
    assert catalog.others == (Stored("x", 1, State.NO_MANIFEST),)
    assert (catalog.count(State.NO_MANIFEST), catalog.count(State.ENCRYPTED)) == (1, 0)


def test_of_one_vdi_it_has_what_is_known_to_be_of_it() -> None:
    of_vm, of_db = subject(identity(1), None), subject(identity(1, "db"), None)
    catalog = Catalog.of(
        "f",
        [
            Stored("a", 1, State.GOOD, "m", of_vm),
            Stored("b", 1, State.GOOD, "m", of_db),
            Stored("c", 1, State.NO_DATA, "m", of_vm),
            Stored("d", 1, State.NO_MANIFEST),
        ],
    )

    only = catalog.only("vm")

    assert ([each.name for each in only.backups], [each.name for each in only.others]) == (["a"], ["c"])


@pytest.mark.parametrize(("folder", "path"), [("f", "f/a"), ("f/", "f/a"), ("/", "/a"), ("s3://b/f", "s3://b/f/a")])
def test_what_is_below_a_folder_has_a_path(folder: str, path: str) -> None:
    assert below(folder, "a") == path


# Names of snapshots


TUESDAY = identity(24, tag="tuesday")


def named(*names: str, snapshot: Backup | None = None) -> list[bool]:
    backup = snapshot or Backup("f", 1, subject(TUESDAY, None))
    return [bool(find_named([backup], name)) for name in names]


def test_a_snapshot_goes_by_tag_id_and_time() -> None:
    assert all(named("tuesday", "24", "024", "2026-11-24T01:00:00.000000000Z"))


def test_each_of_them_may_stand_behind_the_vdi() -> None:
    assert all(named("vm:tuesday", "vm:24", "vm:2026-11-24T01:00:00.000000000Z"))


def test_nothing_else_is_its_name() -> None:
    assert not any(named("", "vm:", "vm", ":tuesday", "db:tuesday", "Tuesday", "2", "٢٤", "0"))


def test_a_snapshot_without_a_tag_is_not_called_nothing() -> None:
    assert named("", "vm:", "7", snapshot=stored("f", 7)) == [False, False, True]


def test_a_tag_of_digits_is_no_name_because_only_an_id_is_written_so() -> None:
    assert named("24", snapshot=Backup("f", 1, subject(identity(3, tag="24"), None))) == [False]


def test_a_vdi_may_have_a_colon_in_its_name() -> None:
    assert named("a:b:tuesday", snapshot=Backup("f", 1, subject(identity(2, "a:b", tag="tuesday"), None))) == [True]


def test_two_backups_of_one_snapshot_name_it_once() -> None:
    assert find_named([stored("a", 1), stored("b", 1)], "1") == [identity(1)]


def test_a_cluster_that_one_of_them_does_not_say_makes_no_other_snapshot() -> None:
    said = identity(1, cluster="2026-01-01T00:00:00.000000000Z")
    backups = [stored("a", 1), Backup("b", 1, subject(said, None))]

    assert find_named(backups, "1") == [identity(1)]


def test_what_was_backed_up_live_is_no_snapshot() -> None:
    live = identity(1)
    live = type(live)(live.vdi, live.vdi_id, None, None, 1, "")

    assert find_named([Backup("a", 1, subject(live, None))], "1") == []


def test_a_piece_is_no_backup_of_a_catalog() -> None:
    piece = replace(subject(identity(1), None), piece=PieceRange(2, 2, first=1, end=2, planned=2, plan="0" * 32))

    catalog = Catalog.of("f", [Stored("p", 1, State.GOOD, "p.manifest", piece)])

    assert catalog.backups == ()
    assert catalog.others == (Stored("p", 1, State.PIECE, "p.manifest", piece, "2 of 2"),)
