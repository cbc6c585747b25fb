from __future__ import annotations

from pathlib import Path

import pytest

from asyncbackup.engine.source import ImageObjects
from asyncbackup.errors import SourceUnreadable
from asyncbackup.storage import FileSource

MIB = 1 << 20


def make_image(path: Path, size: int, *places: int) -> Path:
    """Make an image that is a hole but for a byte at each of ``places``."""
    with path.open("wb") as file:
        file.truncate(size)
        for place in places:
            file.seek(place)
            file.write(b"x")
    return path


async def found_in(image: Path, object_size: int, objects: int | None = None) -> list[int]:
    async with FileSource(image) as source:
        return list(await ImageObjects(source, object_size, objects).find_objects())


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([], []),
        ([0], [0]),
        ([4 * MIB - 1], [0]),
        ([4 * MIB], [1]),
        ([5 * MIB, 6 * MIB, 12 * MIB - 1], [1, 2]),
        ([12 * MIB], [3]),
        ([12 * MIB + 99], [3]),
    ],
)
async def test_objects_of_an_image_are_found_by_a_single_byte(
    tmp_path: Path, places: list[int], expected: list[int]
) -> None:
    image = make_image(tmp_path / "image", 12 * MIB + 100, *places)

    assert await found_in(image, 4 * MIB) == expected


async def test_objects_of_zeros_are_not_found_though_they_are_no_holes(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(9 * MIB) + b"x" + bytes(3 * MIB))

    assert await found_in(image, 4 * MIB) == [2]
    assert await found_in(image, 8 * MIB) == [1]


async def test_no_object_of_an_image_is_found_where_the_vdi_ended_in_between(tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", 12 * MIB, 0, 4 * MIB, 8 * MIB)

    assert await found_in(image, 4 * MIB, objects=2) == [0, 1]


async def test_of_an_image_only_what_is_needed_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = make_image(tmp_path / "image", 1 << 40, 64 * MIB, (1 << 40) - 1)
    read: list[int] = []
    read_now = FileSource.read_now

    def counted(source: FileSource, offset: int, view: memoryview) -> int:
        read.append(read_now(source, offset, view))
        return read[-1]

    monkeypatch.setattr(FileSource, "read_now", counted)

    assert await found_in(image, 4 * MIB) == [16, (1 << 18) - 1]
    assert sum(read) <= 4 * MIB


async def test_an_image_that_is_cut_off_while_it_is_looked_at_is_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = make_image(tmp_path / "image", MIB, 0)
    monkeypatch.setattr(FileSource, "find_data", lambda source, _: (0, source.size))
    async with FileSource(image) as source:
        make_image(image, 0)

        with pytest.raises(SourceUnreadable, match="it was cut off meanwhile"):
            await ImageObjects(source, MIB).find_objects()
