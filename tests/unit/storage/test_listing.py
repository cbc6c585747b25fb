from __future__ import annotations

import os
import tempfile
from contextlib import aclosing
from pathlib import Path

import pytest
from obstore import put
from obstore.store import MemoryStore

from asyncbackup.errors import FolderNeeded, SourceMissing, SourceUnreadable, StoreMisconfigured
from asyncbackup.storage import Access, listing
from asyncbackup.storage.listing import Entry, list_files
from tests.descriptors import open_descriptors
from tests.object_stores import Request, S3Server, always, cut_after_half, times
from tests.privileges import unprivileged


async def listed(folder: Path | str) -> set[Entry]:
    return {entry async for batch in list_files(str(folder)) for entry in batch}


async def test_files_are_listed_with_their_sizes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    (tmp_path / ".hidden").write_bytes(b"")

    assert await listed(tmp_path) == {Entry("a", 3), Entry(".hidden", 0)}


async def test_folders_in_it_are_listed_too(tmp_path: Path) -> None:
    (tmp_path / "1" / "2").mkdir(parents=True)
    (tmp_path / "1" / "2" / "a").write_bytes(b"123")

    assert await listed(tmp_path) == {Entry("1/2/a", 3)}


async def test_hidden_folders_and_links_to_folders_are_not_entered(tmp_path: Path) -> None:
    (tmp_path / ".vm.pieces").mkdir()
    (tmp_path / ".vm.pieces" / "a").write_bytes(b"")
    (tmp_path / "round").symlink_to(tmp_path)

    assert await listed(tmp_path) == set()


async def test_what_is_no_file_is_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "nowhere").symlink_to("missing")
    (tmp_path / "loop").symlink_to("loop")

    assert await listed(tmp_path) == set()


async def test_a_link_to_a_file_counts_as_the_file(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a").write_bytes(b"123")
    (tmp_path / "link").symlink_to("elsewhere/a")

    assert Entry("link", 3) in await listed(tmp_path)


async def test_files_come_a_bounded_number_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_BATCH", 2)
    for number in range(5):
        (tmp_path / str(number)).touch()

    assert [len(batch) async for batch in list_files(str(tmp_path))] == [2, 2, 1]


async def test_who_stops_listing_leaves_no_folder_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_BATCH", 1)
    for number in range(5):
        (tmp_path / str(number)).touch()
    before = open_descriptors()

    async with aclosing(list_files(str(tmp_path))) as batches:
        await anext(batches)

    assert open_descriptors() == before


@pytest.mark.parametrize(("name", "kind"), [("missing", SourceMissing), ("file", FolderNeeded), ("", SourceUnreadable)])
async def test_what_is_no_folder_is_told(tmp_path: Path, name: str, kind: type[Exception]) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(kind):
        await listed(f"{tmp_path}/{name}" if name else "")


async def test_a_folder_that_cannot_be_read_is_told_and_the_others_are_listed() -> None:
    with tempfile.TemporaryDirectory() as readable:  # unlike tmp_path, below folders that everybody may enter
        os.chmod(readable, 0o755)  # noqa: PTH101 - a name is all there is
        os.mkdir(f"{readable}/closed", 0o000)  # noqa: PTH102 - the same
        os.mknod(f"{readable}/a")

        with unprivileged():
            found = await listed(readable)

    assert found == {Entry("a", 0), Entry("closed", 0, "Permission denied")}


# Object stores


def stored(*keys: str) -> Access:
    """Make a store with these objects of 3 bytes."""
    store = MemoryStore()
    for key in keys:
        put(store, key, b"123")
    return Access(memory_store=store)


async def objects(url: str, *keys: str) -> set[Entry]:
    return {entry async for batch in list_files(url, stored(*keys)) for entry in batch}


async def test_objects_are_listed_by_what_stands_behind_the_folder() -> None:
    wanted = {Entry("a", 3), Entry("1/b", 3)}

    assert await objects("memory://bucket/f", "bucket/f/a", "bucket/f/1/b", "bucket/fa", "other/f/a") == wanted
    assert await objects("memory://bucket/", "bucket/a", "bucket/1/b", "other/a") == wanted


async def test_objects_in_hidden_folders_are_left_out() -> None:
    assert await objects("memory://bucket", "bucket/.f/a", "bucket/f/.vm.partial") == {Entry("f/.vm.partial", 3)}


async def test_a_folder_without_objects_is_empty() -> None:
    assert await objects("memory://bucket/f") == set()


@pytest.mark.parametrize("url", ["ftp://host/f", "s3://", "s3://user:pass@bucket/f", "memory://b/../c"])
async def test_a_url_of_no_folder_is_told(url: str) -> None:
    with pytest.raises(SourceUnreadable) as caught:
        await objects(url)

    assert "pass" not in str(caught.value).replace("passwords", "")


async def test_a_url_may_name_a_folder_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "c").touch()

    assert await listed(f"file://{tmp_path}/a%20b") == {Entry("c", 0)}


async def test_memory_that_nobody_handed_in_is_told() -> None:
    with pytest.raises(StoreMisconfigured, match="memory:// is a store within one program"):
        await anext(list_files("memory://bucket"))


def _lists(request: Request) -> bool:
    return "list-type" in request.query


def folder_of(s3: S3Server, *names: str) -> tuple[str, Access]:
    bucket = s3.new_bucket()
    for name in names:
        s3.backend.put_object(bucket, f"f/{name}", name.encode())
    return f"s3://{bucket}/f", Access(s3.options)


async def test_a_listing_that_is_cut_begins_anew_and_gives_each_object_once(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "_BATCH", 1)
    monkeypatch.setattr("moto.settings.get_s3_default_max_keys", lambda: 1)
    url, access = folder_of(s3, "a", "b")
    # The first page comes whole, and the second one is cut.
    s3.faults.append(times(1, cut_after_half, lambda request: _lists(request) and "continuation" in request.query))
    names = [each.name async for batch in list_files(url, access) for each in batch]
    assert sorted(names) == ["a", "b"]
    assert sum(map(_lists, s3.requests)) == 4


async def test_a_listing_that_is_always_cut_is_told(s3: S3Server) -> None:
    url, access = folder_of(s3, "a")
    s3.faults.append(always(cut_after_half, _lists))
    with pytest.raises(SourceUnreadable, match="the connection was cut"):
        [batch async for batch in list_files(url, access)]
    assert sum(map(_lists, s3.requests)) == 3
