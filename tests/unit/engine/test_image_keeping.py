from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from asyncbackup.engine.image_keeping import ImageKeeping
from asyncbackup.errors import BegunOtherwise, ChangedMeanwhile, PartialDamaged
from asyncbackup.format.image import Exporting
from asyncbackup.storage import NewImage
from tests.folders import left_in

ENTRY = Exporting(("0" * 32,), 8, 0)
KEPT = [".image.partial", ".image.partial.journal"]


@asynccontextmanager
async def keeping_in(folder: Path, entry: Exporting = ENTRY, *, resume: bool = False) -> AsyncIterator[ImageKeeping]:
    """Open an image of eight bytes, with a checkpoint after each two of them."""
    async with NewImage(folder / "image", resume=resume) as image, image.open_journal() as (journal, partial):
        if not resume:
            await image.resize(8)
        yield ImageKeeping(image, journal, partial, entry, 2)


def lines(folder: Path) -> list[int]:
    """Give how far the journal says that the image is, line by line."""
    return [Exporting.decode(line).done for line in (folder / KEPT[1]).read_bytes().splitlines(keepends=True)]


async def test_a_line_is_written_whenever_enough_was(tmp_path: Path) -> None:
    async with keeping_in(tmp_path) as keeping:
        assert await keeping.find() == -1
        for done in range(6):
            await keeping.advance(done, written=done + 1)

    assert lines(tmp_path) == [2, 4, 6]
    assert left_in(tmp_path) == KEPT


async def test_before_the_first_line_nothing_is_kept(tmp_path: Path) -> None:
    async with keeping_in(tmp_path) as keeping:
        await keeping.advance(0, written=1)

    assert left_in(tmp_path) == []


async def test_the_last_line_says_where_to_go_on(tmp_path: Path) -> None:
    async with keeping_in(tmp_path) as keeping:
        await keeping.advance(3, written=2)
        await keeping.advance(7, written=4)

    async with keeping_in(tmp_path, resume=True) as keeping:
        assert await keeping.find() == 7


@pytest.mark.parametrize("torn", [b"torn", b'{"exporting":1,', b"\0\0\0\n"])
async def test_a_torn_line_does_not_count(tmp_path: Path, torn: bytes) -> None:
    async with keeping_in(tmp_path) as keeping:
        await keeping.advance(3, written=2)
    with (tmp_path / KEPT[1]).open("ab") as journal:
        journal.write(torn)

    async with keeping_in(tmp_path, resume=True) as keeping:
        assert await keeping.find() == 3


async def test_what_says_nothing_or_speaks_of_another_image_is_refused(tmp_path: Path) -> None:
    async with keeping_in(tmp_path) as keeping:
        await keeping.advance(3, written=2)

    for entry in (replace(ENTRY, size=9), replace(ENTRY, backups=("1" * 32,))):
        async with keeping_in(tmp_path, entry, resume=True) as keeping:
            with pytest.raises(BegunOtherwise):
                await keeping.find()
    (tmp_path / KEPT[0]).write_bytes(b"short")
    async with keeping_in(tmp_path, resume=True) as keeping:
        with pytest.raises(BegunOtherwise, match="another size: expected 8, got 5"):
            await keeping.find()
    (tmp_path / KEPT[1]).write_bytes(b"")
    async with keeping_in(tmp_path, resume=True) as keeping:
        with pytest.raises(PartialDamaged):
            await keeping.find()

    assert left_in(tmp_path) == KEPT


async def leave(keeping: ImageKeeping, error: BaseException) -> None:
    async with keeping.leaving():
        await keeping.advance(3, written=2)
        await keeping.advance(4, written=3)
        raise error


@pytest.mark.parametrize("error", [ZeroDivisionError(), asyncio.CancelledError()], ids=repr)
async def test_the_way_out_says_how_far_it_came(tmp_path: Path, error: BaseException) -> None:
    async with keeping_in(tmp_path) as keeping:
        with pytest.raises(type(error)):
            await leave(keeping, error)

    assert lines(tmp_path) == [4, 5]


async def test_nothing_stays_of_what_somebody_changed(tmp_path: Path) -> None:
    async with keeping_in(tmp_path) as keeping:
        with pytest.raises(ChangedMeanwhile):
            await leave(keeping, ChangedMeanwhile("it", "it is another"))

    assert left_in(tmp_path) == []


async def test_the_journal_goes_when_the_image_has_its_name(tmp_path: Path) -> None:
    async with keeping_in(tmp_path) as keeping:
        await keeping.advance(3, written=2)
        await keeping.image.finish(None)

    assert left_in(tmp_path) == ["image"]
