"""Places for pieces: what is there of one piece, whatever place it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import obstore
import pytest
from anyio import to_thread
from obstore.store import MemoryStore

from asyncbackup.engine import scratch as scratches
from asyncbackup.engine.scratch import FolderScratch, PieceName, Scratch, StoreScratch, find_scratch
from asyncbackup.errors import SourceUnreadable, single_error
from asyncbackup.storage import Access, FileTarget, Layers, NullTarget, open_target
from asyncbackup.storage.age_keys import load_pyrage
from asyncbackup.storage.location import ObjectLocation
from tests.folders import left_in

A, B, OTHER = PieceName(1, "a"), PieceName(1, "b"), PieceName(10, "a")


class Place(NamedTuple):
    scratch: Scratch
    left: Callable[[], list[str]]
    """What is there, or beside it."""


@pytest.fixture(params=["folder", "store"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return Place(FolderScratch(tmp_path / "pieces", "file"), lambda: left_in(tmp_path))
    store = MemoryStore()
    location = ObjectLocation("memory", "box", "pieces")
    return Place(StoreScratch(location, Access(memory_store=store)), lambda: keys(store))


def keys(store: MemoryStore) -> list[str]:
    return sorted(found["path"] for found in obstore.list(store).collect())


async def write(scratch: Scratch, piece: PieceName, content: bytes = b"content") -> None:
    async with scratch.write(piece, "backup") as target:
        await target.append([content])
        await target.complete()


async def test_attempts_at_a_piece_are_counted_and_removed_with_it(place: Place) -> None:
    await place.scratch.prepare()
    for piece in (A, B, OTHER):
        await write(place.scratch, piece)

    assert await place.scratch.count(1) == 2
    await place.scratch.discard(A)

    assert await place.scratch.count(1) == 0
    assert await place.scratch.count(10) == 1


async def test_a_piece_that_another_one_has_removed_is_discarded(place: Place) -> None:
    await place.scratch.prepare()

    await place.scratch.discard(A)


async def test_nothing_is_left_of_a_place(place: Place) -> None:
    await place.scratch.prepare()
    await write(place.scratch, A)
    await place.scratch.mark("mark")

    await place.scratch.remove()

    assert place.left() == []


async def test_a_mark_is_seen_until_it_is_removed(place: Place) -> None:
    await place.scratch.prepare()
    assert not await place.scratch.sees("mark")
    await place.scratch.mark("mark")
    assert await place.scratch.sees("mark")
    await place.scratch.unmark("mark")
    assert not await place.scratch.sees("mark")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def small(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> StoreScratch:
    """A place beside memory://box/f with segments of 10 bytes."""
    return StoreScratch(ObjectLocation("memory", "box", ".f.pieces"), Access(memory_store=store), 10)


@pytest.mark.parametrize("length", [0, 9, 10, 105])
async def test_a_piece_in_a_store_is_appended_as_it_was_written(
    store: MemoryStore, small: StoreScratch, tmp_path: Path, length: int
) -> None:
    content = bytes(range(length))
    async with small.write(A, "backup") as target:
        for start in range(0, length, 7):
            await target.append([content[start : start + 3], content[start + 3 : start + 7]])
        await target.complete()

    assert len(keys(store)) == -(-length // 10)
    async with FileTarget(tmp_path / "file") as target:
        await small.append(A, length, target)
        await target.complete()
    assert (tmp_path / "file").read_bytes() == content


@pytest.mark.parametrize("spoil", ["remove", "cut"])
async def test_a_segment_that_is_not_what_was_written_is_an_error(
    store: MemoryStore, small: StoreScratch, spoil: str
) -> None:
    await write(small, A, bytes(25))
    if spoil == "remove":
        await to_thread.run_sync(obstore.delete, store, "box/.f.pieces/1/a.1")
    else:
        await to_thread.run_sync(obstore.put, store, "box/.f.pieces/1/a.1", b"short")

    message = "was removed meanwhile" if spoil == "remove" else "expected 10 bytes, got 5"
    with pytest.raises(SourceUnreadable, match=rf"/1/a\.1.*{message}"):
        await small.append(A, 25, NullTarget())


async def test_a_store_that_takes_no_segment_is_the_error_of_the_piece(
    small: StoreScratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refused(Exception):
        """The store takes nothing."""

    async def refuse(*_: object) -> None:
        raise Refused

    monkeypatch.setattr("asyncbackup.storage.segments.put", refuse)

    with pytest.raises(Refused), single_error():
        await write(small, A, bytes(100))


def test_segments_are_as_large_as_memory_allows() -> None:
    scratch = StoreScratch(ObjectLocation("s3", "box", "p"), Access())

    assert scratch.within(1 << 20).segment_size == scratches._LEAST_SEGMENT
    assert scratch.within(64 << 20).segment_size == 4 << 20
    assert scratch.within(1 << 40).segment_size == scratches._MOST_SEGMENT


async def test_pieces_stand_hidden_beside_their_backup(tmp_path: Path, store: MemoryStore) -> None:
    access = Access(memory_store=store)
    for layers in (None, Layers(zstd_level=1)):
        async with open_target("memory://box/folder/f", access=access, layers=layers) as stored:
            found = find_scratch(stored.data)
        assert isinstance(found, StoreScratch)
        assert str(found.location) == "memory://box/folder/.f.pieces"
        async with open_target(tmp_path / "f", layers=layers) as file:
            found = find_scratch(file.data)
        assert isinstance(found, FolderScratch)
        assert found.folder == tmp_path / ".f.pieces"


async def test_what_is_encrypted_or_has_no_place_has_no_pieces(tmp_path: Path, store: MemoryStore) -> None:
    recipient = str(load_pyrage().x25519.Identity.generate().to_public())
    for name in (tmp_path / "f", "memory://box/f"):
        layers = Layers(zstd_level=1, recipients=(recipient,))
        async with open_target(name, access=Access(memory_store=store), layers=layers) as encrypted:
            assert find_scratch(encrypted.data) is None
    assert find_scratch(NullTarget()) is None
