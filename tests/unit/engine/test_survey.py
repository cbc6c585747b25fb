from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from asyncbackup.engine import survey as module
from asyncbackup.engine.catalog import State
from asyncbackup.engine.survey import find_damaged, survey
from asyncbackup.errors import SourceMissing, SourceUnreadable
from asyncbackup.storage import Access, Layers
from asyncbackup.storage.age_keys import load_pyrage
from asyncbackup.storage.listing import Entry
from asyncbackup.storage.publication import MANIFEST, Place, manifest_path
from asyncbackup.storage.zstd import load_zstd
from tests.catalogs import identity, write
from tests.chains import Files, copy_files
from tests.layered import write_layered


async def states(folder: Path) -> dict[str, tuple[State, str | None]]:
    return {each.name: (each.state, each.problem) for each in (await survey(str(folder))).others}


async def test_a_backup_is_what_its_manifest_says(tmp_path: Path) -> None:
    write(tmp_path, "chain/full", 1)
    write(tmp_path, "chain/more", 2, 1)

    catalog = await survey(str(tmp_path))

    assert [(each.name, each.size, each.identity, each.subject.base_identity) for each in catalog.backups] == [
        ("chain/full", 6, identity(1), None),
        ("chain/more", 6, identity(2), identity(1)),
    ]
    assert catalog.others == ()


async def test_only_the_beginning_of_a_manifest_is_read(tmp_path: Path) -> None:
    with manifest_path(write(tmp_path, "full", 1)).open("ab") as manifest:
        manifest.write(b"\xff" * 100_000)

    assert len((await survey(str(tmp_path))).backups) == 1


async def test_data_is_not_read(tmp_path: Path) -> None:
    file = write(tmp_path, "full", 1)
    file.chmod(0)
    os.truncate(file, 1 << 40)

    assert (await survey(str(tmp_path))).backups[0].size == 1 << 40


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "line 1: expected a whole line"),
        (b"{}", "line 1: expected a whole line"),
        (b"\n", "line 1: expected JSON: Expecting value at column 1"),
        (b"[" * 16383 + b"\n", "line 1: expected no arrays or objects in one another"),
        (b"x" * 100_000, "line 1: expected at most 16384 bytes"),
    ],
)
async def test_a_manifest_that_does_not_begin_as_one_is_damaged(tmp_path: Path, content: bytes, problem: str) -> None:
    manifest_path(write(tmp_path, "full", 1)).write_bytes(content)

    assert await states(tmp_path) == {"full": (State.DAMAGED, f"at offset 0: {problem}")}


async def test_a_manifest_without_its_backup_has_no_data(tmp_path: Path) -> None:
    write(tmp_path, "full", 1).unlink()

    assert await states(tmp_path) == {"full": (State.NO_DATA, None)}


async def test_another_file_may_be_named_like_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "app.manifest").write_bytes(b"other")

    assert await states(tmp_path) == {"app.manifest": (State.NO_MANIFEST, None)}


async def test_a_manifest_that_is_no_file_is_none(tmp_path: Path) -> None:
    manifest = manifest_path(write(tmp_path, "full", 1))
    manifest.unlink()
    os.mkfifo(manifest)

    assert await states(tmp_path) == {"full": (State.NO_MANIFEST, None)}


async def test_what_is_unfinished_says_what_it_is_of(tmp_path: Path) -> None:
    file = write(tmp_path, "vm", 1)
    manifest_path(file).rename(Place(file).beside(MANIFEST).kept)
    file.rename(Place(file).partial)

    (unfinished,) = (await survey(str(tmp_path))).others

    assert (unfinished.name, unfinished.state, unfinished.size) == (".vm.partial", State.UNFINISHED, 6)
    assert unfinished.subject is not None
    assert unfinished.subject.identity == identity(1)


async def test_a_manifest_that_is_due_is_told(tmp_path: Path) -> None:
    file = write(tmp_path, "vm", 1)
    manifest_path(file).rename(Place(file).beside(MANIFEST).new)

    assert await states(tmp_path) == {
        "vm": (State.HALF_REPLACED, ".vm.manifest.new is to become vm.manifest"),
    }


async def test_a_manifest_that_is_removed_meanwhile_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        manifest_path(write(tmp_path, name, 1)).unlink()
    sizes = {"a": 1, "a.manifest": 1, "b.manifest": 1}
    monkeypatch.setattr(module, "list_files", lambda *_: _listed(sizes))

    assert await states(tmp_path) == {"a": (State.NO_MANIFEST, None)}


async def _listed(sizes: dict[str, int]) -> AsyncGenerator[list[Entry], None]:
    yield [Entry(name, size) for name, size in sizes.items()]


@pytest.fixture
def identity_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private key of age, in a file."""
    file = tmp_path_factory.mktemp("keys") / "key"
    file.write_text(f"{load_pyrage().x25519.Identity.generate()}\n")
    return file


def encrypt(file: Path, identity_file: Path) -> None:
    pyrage = load_pyrage()
    recipient = pyrage.x25519.Identity.from_str(identity_file.read_text().strip()).to_public()
    file.write_bytes(pyrage.encrypt(file.read_bytes(), [recipient]))


async def test_an_encrypted_manifest_is_read_with_the_key(tmp_path: Path, identity_file: Path) -> None:
    encrypt(manifest_path(write(tmp_path, "vm", 1)), identity_file)

    catalog = await survey(str(tmp_path), Access(identities=(str(identity_file),)))

    assert [each.identity for each in catalog.backups] == [identity(1)]


async def test_without_the_key_it_is_told_that_it_is_encrypted(tmp_path: Path, identity_file: Path) -> None:
    encrypt(manifest_path(write(tmp_path, "vm", 1)), identity_file)

    assert await states(tmp_path) == {"vm": (State.ENCRYPTED, "this is encrypted with age")}


async def test_an_encrypted_manifest_without_its_backup_still_has_no_data(tmp_path: Path, identity_file: Path) -> None:
    file = write(tmp_path, "vm", 1)
    encrypt(manifest_path(file), identity_file)
    file.unlink()

    assert await states(tmp_path) == {"vm": (State.NO_DATA, "this is encrypted with age")}


async def test_a_key_that_is_missing_is_told_and_nothing_else_is_taken_for_missing(tmp_path: Path) -> None:
    write(tmp_path, "vm", 1)

    with pytest.raises(SourceMissing, match="no-key"):
        await survey(str(tmp_path), Access(identities=(str(tmp_path / "no-key"),)))


async def test_more_files_than_memory_is_for_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_FILES", 1)
    write(tmp_path, "vm", 1)

    with pytest.raises(SourceUnreadable, match="holds more than 1 files: name a folder in it"):
        await survey(str(tmp_path))


async def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing):
        await survey(str(tmp_path / "missing"))


async def test_a_thousand_backups_are_found(tmp_path: Path) -> None:
    for number in range(500):
        write(tmp_path, f"f{number}", number % 28 + 1, number % 28 or None)

    assert len((await survey(str(tmp_path))).backups) == 500


# What is damaged


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return copy_files(tmp_path)


async def damaged(files: Files, *identities: Path) -> set[str]:
    access = Access(identities=tuple(map(str, identities)))
    return await find_damaged(str(files.folder), (await survey(str(files.folder), access)).backups, access)


async def test_what_has_the_size_that_its_manifest_says_is_not_damaged(files: Files) -> None:
    assert await damaged(files) == set()


async def test_what_has_fewer_or_more_bytes_than_its_manifest_says_is_damaged(files: Files) -> None:
    files.a.write_bytes(files.a.read_bytes()[:-1])
    files.bc.write_bytes(files.bc.read_bytes() + b"1")

    assert await damaged(files) == {"a", "bc"}


async def test_what_has_only_a_part_of_its_manifest_is_damaged(files: Files) -> None:
    manifest = manifest_path(files.ab)
    manifest.write_bytes(manifest.read_bytes()[:-10])

    assert await damaged(files) == {"ab"}


async def test_what_is_compressed_is_judged_by_its_seek_table(files: Files) -> None:
    content = {file: file.read_bytes() for file in files.all}
    for file, size in ((files.a, -1), (files.ab, None)):
        file.unlink()
        await write_layered(file, content[file][:size], Layers(zstd_level=1))

    assert await damaged(files) == {"a"}


async def test_what_is_encrypted_or_has_no_seek_table_has_no_size_to_judge(files: Files, identity_file: Path) -> None:
    files.ab.write_bytes(load_zstd().compress(b"less than there was"))
    files.bc.write_bytes(b"less than there was")
    encrypt(files.bc, identity_file)
    encrypt(manifest_path(files.a), identity_file)

    assert await damaged(files, identity_file) == set()
