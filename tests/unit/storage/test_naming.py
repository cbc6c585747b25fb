from __future__ import annotations

from pathlib import Path

import pytest

from asyncbackup.storage.naming import Part, identify_name
from asyncbackup.storage.publication import JOURNAL, MANIFEST, Place

MANIFEST_PLACE = Place(Path("f/vm")).beside(MANIFEST)
JOURNAL_PLACE = Place(Path("f/vm")).beside(JOURNAL)


@pytest.mark.parametrize(
    ("path", "part"),
    [
        (Place(Path("f/vm")).partial, Part.UNFINISHED),
        (MANIFEST_PLACE.kept, Part.UNFINISHED_MANIFEST),
        (MANIFEST_PLACE.new, Part.DUE_MANIFEST),
        (MANIFEST_PLACE.final, Part.MANIFEST),
        (MANIFEST_PLACE.partial, Part.LEFTOVER),
        (JOURNAL_PLACE.partial, Part.LEFTOVER),
        (JOURNAL_PLACE.kept, Part.LEFTOVER),
        (Place(Path("f/vm")).lock, Part.LEFTOVER),
        (Path("f/.vm.state.partial"), Part.LEFTOVER),
        (Path("f/vm.state"), Part.OF_IMAGE),
        (Path("f/vm.rolling"), Part.OF_IMAGE),
    ],
)
def test_a_name_that_storage_gives_is_known_with_its_owner(path: Path, part: Part) -> None:
    assert identify_name(str(path)) == (part, "f/vm")


@pytest.mark.parametrize("path", [MANIFEST_PLACE.old, MANIFEST_PLACE.lock])
def test_what_a_run_leaves_of_a_manifest_is_a_leftover(path: Path) -> None:
    assert identify_name(str(path)).part is Part.LEFTOVER


def test_the_journal_of_a_restore_is_no_unfinished_backup() -> None:
    assert identify_name(".vm.restore-0123456789abcdef.partial").part is Part.LEFTOVER


@pytest.mark.parametrize(
    "name", ["vm", ".vm", "vm.partial", "vm.lock", "vm.manifest.gz", ".manifest", "a.state/vm", ""]
)
def test_any_other_name_may_be_that_of_a_backup(name: str) -> None:
    assert identify_name(name) == (Part.DATA, name)
