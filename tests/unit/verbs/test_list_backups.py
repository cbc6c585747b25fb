from __future__ import annotations

from pathlib import Path

import pytest

from asyncbackup import find_chain, list_backups
from asyncbackup.errors import NotStored
from tests.catalogs import identity, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, "full", 1)
    write(tmp_path, "second", 2, 1)
    write(tmp_path, "fourth", 4, 3)
    write(tmp_path, "db", 1, vdi="db")
    return tmp_path


async def test_it_says_what_goes_on_what(folder: Path) -> None:
    said = (await list_backups(folder)).as_dict()

    assert {each["file"]: (each["on"], each["restorable"], each["chain_bytes"]) for each in said["backups"]} == {
        "db": (None, True, 6),
        "full": (None, True, 6),
        "second": ("full", True, 12),
        "fourth": (None, False, 6),
    }
    assert (said["bytes"], said["others"]) == (24, [])


async def test_it_says_which_snapshots_are_missing(folder: Path) -> None:
    assert (await list_backups(folder)).missing == [identity(3)]


async def test_it_lists_one_vdi_alone(folder: Path) -> None:
    assert [each.backup.name for each in (await list_backups(folder, vdi="db")).placed] == ["db"]


async def test_a_vdi_without_a_backup_is_told_with_those_that_have_one(folder: Path) -> None:
    with pytest.raises(NotStored) as caught:
        await list_backups(folder, vdi="web")

    assert str(caught.value) == f"{folder} has no backup of VDI 'web'; it has db, vm"


async def test_the_paths_of_a_chain_are_found(folder: Path) -> None:
    assert await find_chain(folder, "vm:2") == [f"{folder}/full", f"{folder}/second"]
    assert await find_chain(str(folder), "2", base="1") == [f"{folder}/second"]
