from __future__ import annotations

from pathlib import Path

import pytest

from asyncbackup import find_chain, list_backups, merge
from asyncbackup.errors import NotStored
from asyncbackup.format.age import MAGIC
from asyncbackup.storage.publication import manifest_path
from tests.catalogs import identity, write
from tests.chains import Files, copy_files


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


# Several backups of one snapshot


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return copy_files(tmp_path)


def add_cut(file: Path, name: str) -> Path:
    """Put a copy of a backup that lacks its last byte beside it."""
    cut = file.with_name(name)
    cut.write_bytes(file.read_bytes()[:-1])
    manifest_path(cut).write_bytes(manifest_path(file).read_bytes())
    return cut


async def test_a_copy_that_is_cut_off_loses_against_a_whole_one(files: Files) -> None:
    for number, file in enumerate(files.all):
        add_cut(file, f"cut-{number}")

    assert await find_chain(files.folder, "c") == [str(each) for each in files.all]


async def test_a_whole_way_round_is_taken_however_much_there_is_to_read(files: Files) -> None:
    round_about = files.folder / "round-about"
    await merge([files.a, files.ab], round_about)
    cut = add_cut(files.ab, "cut")
    cut.rename(files.ab)

    assert await find_chain(files.folder, "c") == [str(round_about), str(files.bc)]


async def test_where_all_copies_are_cut_off_the_least_is_taken(files: Files) -> None:
    add_cut(files.bc, "cut")
    least = add_cut(files.bc, "least")
    least.write_bytes(least.read_bytes()[:100])
    files.bc.unlink()

    assert await find_chain(files.folder, "c") == [str(files.a), str(files.ab), str(least)]


async def test_without_another_way_no_data_is_opened(files: Files) -> None:
    files.bc.write_bytes(MAGIC)  # which could not be opened without a key

    assert await find_chain(files.folder, "c") == [str(each) for each in files.all]
