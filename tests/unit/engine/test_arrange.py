from __future__ import annotations

import asyncio
import itertools
import os
import shutil
from pathlib import Path

import pytest

from asyncbackup.engine.arrange import find_backups, find_order
from asyncbackup.errors import BackupMissing, ChainBroken
from asyncbackup.format import Dialect
from asyncbackup.storage.publication import manifest_path
from tests import catalogs


def write(folder: Path, name: str, to: int, base: int | None, vdi: str = "vm") -> str:
    return str(catalogs.write(folder, name, to, base, vdi=vdi))


@pytest.fixture
def chain(tmp_path: Path) -> list[str]:
    return [write(tmp_path, "c", 1, None), write(tmp_path, "a", 2, 1), write(tmp_path, "b", 3, 2)]


async def test_files_of_a_chain_come_into_its_order(chain: list[str]) -> None:
    for files in itertools.permutations(chain):
        assert [files[place] for place in await find_order(files)] == chain


async def test_increments_alone_come_into_their_order(chain: list[str]) -> None:
    assert await find_order([chain[2], chain[1]]) == [1, 0]


async def test_a_way_back_stays_as_it_was_named(tmp_path: Path) -> None:
    files = [write(tmp_path, "full", 1, None), write(tmp_path, "on", 2, 1), write(tmp_path, "back", 1, 2)]

    assert await find_order(files) == [0, 1, 2]


async def test_manifests_that_are_named_go_with_their_backups(chain: list[str], tmp_path: Path) -> None:
    manifests = []
    for number, file in enumerate(chain):
        manifests.append(str(tmp_path / f"manifest{number}"))
        shutil.move(f"{file}.manifest", manifests[-1])

    assert await find_order(chain[::-1]) == [0, 1, 2]
    assert await find_order(chain[::-1], manifests[::-1]) == [2, 1, 0]


@pytest.mark.parametrize("content", [None, b"", b"{}\n", b'{"manifest":2}\n', b"\xff" * 100])
async def test_without_a_good_manifest_files_stay_as_they_were_named(chain: list[str], content: bytes | None) -> None:
    manifest = manifest_path(chain[0])
    manifest.unlink()
    if content is not None:
        manifest.write_bytes(content)

    assert await find_order(chain[::-1]) == [0, 1, 2]


@pytest.mark.parametrize("name", ["-", "", "/", "."])
async def test_what_has_no_manifest_beside_it_changes_nothing(chain: list[str], name: str) -> None:
    assert await find_order([chain[1], name, chain[0]]) == [0, 1, 2]
    assert await find_order([name]) == [0]


async def test_backups_of_two_vdis_have_no_order(chain: list[str], tmp_path: Path) -> None:
    other = write(tmp_path, "other", 2, None, "db")

    with pytest.raises(ChainBroken, match=r"c is of VDI 'vm', but .*other of 'db'$"):
        await find_order([chain[0], other, chain[1]])


async def test_two_full_backups_begin_two_chains(chain: list[str], tmp_path: Path) -> None:
    second = write(tmp_path, "second", 4, None)

    with pytest.raises(
        ChainBroken, match=r"c and .*second are both full backups.*by the time .*c, .*a, .*b, .*second$"
    ):
        await find_order([*chain, second])


async def test_a_copy_of_a_backup_has_no_place(chain: list[str], tmp_path: Path) -> None:
    shutil.copy(chain[1], tmp_path / "copy")
    shutil.copy(manifest_path(chain[1]), tmp_path / "copy.manifest")

    with pytest.raises(ChainBroken, match=r"a and .*copy are both of snapshot 2.*$"):
        await find_order([*chain, str(tmp_path / "copy")])


async def test_two_increments_on_one_snapshot_have_no_order(chain: list[str], tmp_path: Path) -> None:
    branch = write(tmp_path, "branch", 4, 2)

    with pytest.raises(ChainBroken, match=r"b and .*branch are both the difference to snapshot 2.*$"):
        await find_order([*chain, branch])


@pytest.mark.parametrize("kept", [(0, 2), (2, 0)])
async def test_what_is_missing_in_a_chain_is_told(chain: list[str], kept: tuple[int, int]) -> None:
    with pytest.raises(
        ChainBroken, match=r"b is the difference to snapshot 2 .*, and none of the files is of that.*c, .*b$"
    ):
        await find_order([chain[place] for place in kept])


async def test_of_increments_the_later_one_lacks_its_base(tmp_path: Path) -> None:
    files = [write(tmp_path, "late", 6, 5), write(tmp_path, "early", 3, 2)]

    with pytest.raises(ChainBroken, match=r"late is the difference to snapshot 5 .*, and none of the files is of that"):
        await find_order(files)


async def test_a_cluster_formatted_anew_is_another_chain(tmp_path: Path) -> None:
    files = [write(tmp_path, "inc", 2, 1), write(tmp_path, "full", 1, None)]
    for file, formatted in zip(
        files, ("2026-01-01T00:00:00.000000000Z", "2026-02-01T00:00:00.000000000Z"), strict=True
    ):
        manifest = manifest_path(file)
        manifest.write_bytes(manifest.read_bytes().replace(b'"cluster":null', f'"cluster":"{formatted}"'.encode()))

    with pytest.raises(ChainBroken, match="none of the files is of that"):
        await find_order(files)


# Files that are no backups


async def test_what_belongs_to_a_backup_is_left_out(chain: list[str]) -> None:
    others = [f"{chain[0]}{ending}" for ending in (".manifest", ".state", ".rolling")]

    assert await find_backups([chain[0], *others]) == ((chain[0],), tuple(others))


async def test_a_damaged_manifest_is_left_out_with_its_backup(chain: list[str]) -> None:
    manifest_path(chain[0]).write_bytes(b"damaged")

    assert (await find_backups([f"{chain[0]}.manifest", chain[0]])).backups == (chain[0],)


async def test_files_in_the_making_are_left_out(chain: list[str], tmp_path: Path) -> None:
    hidden = [str(tmp_path / name) for name in (".c.partial", ".c.manifest.new", ".c.manifest.old", ".c.lock")]

    assert await find_backups([*hidden, chain[0]]) == ((chain[0],), tuple(hidden))


@pytest.mark.parametrize(
    ("is_there", "where"), [(True, "which is there, but was not named"), (False, "which is missing")]
)
async def test_a_manifest_without_its_backup_is_told(chain: list[str], *, is_there: bool, where: str) -> None:
    if not is_there:
        await asyncio.to_thread(os.unlink, chain[0])

    with pytest.raises(BackupMissing) as caught:
        await find_backups([f"{chain[0]}.manifest", chain[1]])

    assert str(caught.value) == f"{chain[0]}.manifest is the manifest of the backup {chain[0]}, {where}"


async def test_the_state_of_an_image_alone_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "image.state").write_bytes(b'{"state":1}\n')

    assert (await find_backups([str(tmp_path / "image.state")])).backups == ()


@pytest.mark.parametrize("name", ["vm.manifest", "vm.state", "vm.partial", ".vm", "missing.manifest"])
async def test_a_backup_may_have_any_name(tmp_path: Path, name: str) -> None:
    if not name.startswith("missing"):
        (tmp_path / name).write_bytes(Dialect.DOG.opening)

    assert (await find_backups([str(tmp_path / name)])).backups == (str(tmp_path / name),)
