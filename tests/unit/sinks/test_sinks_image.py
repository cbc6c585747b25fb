from __future__ import annotations

import os
from pathlib import Path

import pytest

from asyncbackup.errors import HalfRolled, SourceUnreadable, TargetBusy, TargetExists, TargetUnusable
from asyncbackup.sinks import FileSource, NewImage, StandingImage
from asyncbackup.sinks.image import marker_path, refuse_half_rolled

MIB = 1 << 20


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


async def copy(base: Path, target: Path) -> None:
    async with NewImage(target) as image, FileSource(base) as source:
        await image.copy_from(source)
        await image.resize(source.size)
        await image.commit(b"")


async def test_a_new_image_appears_when_it_is_committed(tmp_path: Path) -> None:
    async with NewImage(tmp_path / "image") as image:
        await image.resize(10)
        await image.write_at(3, b"abc")
        assert "image" not in names(tmp_path)
        await image.commit(b"")

    assert (tmp_path / "image").read_bytes() == b"\0\0\0abc\0\0\0\0"
    assert names(tmp_path) == ["image"]


async def test_a_new_image_without_a_commit_is_gone(tmp_path: Path) -> None:
    async with NewImage(tmp_path / "image") as image:
        await image.write_at(0, b"abc")

    assert names(tmp_path) == []


async def test_a_new_image_does_not_replace_another_one(tmp_path: Path) -> None:
    (tmp_path / "image").touch()

    with pytest.raises(TargetExists):
        await NewImage(tmp_path / "image").__aenter__()


@pytest.mark.parametrize("in_kernel", [True, False])
async def test_a_copy_has_the_holes_of_its_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, in_kernel: bool
) -> None:
    if not in_kernel:
        monkeypatch.setattr(os, "copy_file_range", lambda *_: (_ for _ in ()).throw(OSError(18, "Cross-device link")))
    base = tmp_path / "base"
    with base.open("wb") as file:
        file.seek(8 * MIB)
        file.write(b"x" * 3 * MIB)
        file.truncate(40 * MIB)

    await copy(base, tmp_path / "image")

    assert (tmp_path / "image").read_bytes() == base.read_bytes()
    assert (tmp_path / "image").stat().st_blocks * 512 <= 4 * MIB


async def test_a_copy_of_nothing_but_a_hole(tmp_path: Path) -> None:
    (tmp_path / "base").touch()
    os.truncate(tmp_path / "base", MIB)

    await copy(tmp_path / "base", tmp_path / "image")

    assert (tmp_path / "image").stat().st_size == MIB
    assert (tmp_path / "image").stat().st_blocks == 0


async def test_a_base_that_is_cut_off_meanwhile_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "copy_file_range", lambda *_: 0)
    base = tmp_path / "base"
    base.write_bytes(b"x" * 4096)

    async with NewImage(tmp_path / "image") as image, FileSource(base) as source:
        os.truncate(base, 0)
        monkeypatch.setattr(os, "lseek", lambda _, offset, whence: offset if whence == os.SEEK_DATA else source.size)
        with pytest.raises(SourceUnreadable, match="expected 4096 bytes, got 0"):
            await image.copy_from(source)


async def test_a_standing_image_is_marked_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"old")

    async with StandingImage(path) as image:
        assert not await image.begin("one")
        await image.mark("one")
        assert names(tmp_path) == [".image.lock", "image", "image.rolling"]
        await image.resize(5)
        await image.write_at(3, b"er")
        await image.finish()

    assert path.read_bytes() == b"older"
    assert names(tmp_path) == ["image"]


async def test_a_marker_is_for_those_who_made_it(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"old")
    async with StandingImage(path) as image:
        await image.mark("one")

    async with StandingImage(path) as image:
        assert await image.begin("one")
        with pytest.raises(HalfRolled):
            await image.begin("other")
    with pytest.raises(HalfRolled):
        refuse_half_rolled(path)


async def test_an_empty_marker_is_nobodys(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"old")
    marker_path(path).touch()

    async with StandingImage(path) as image:
        with pytest.raises(HalfRolled):
            await image.begin("one")


def test_a_marker_is_found_by_every_name_of_an_image(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "image").touch()
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "image")

    assert marker_path(tmp_path / "link") == tmp_path / "folder" / "image.rolling"


async def test_a_standing_image_is_rolled_by_one_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "image").touch()

    async with StandingImage(tmp_path / "image"):
        with pytest.raises(TargetBusy, match=f"process {os.getpid()} is writing it"):
            await StandingImage(tmp_path / "image").__aenter__()
    async with StandingImage(tmp_path / "image"):
        pass


async def test_a_device_is_not_rolled() -> None:
    with pytest.raises(TargetUnusable, match="no regular file"):
        await StandingImage("/dev/null").__aenter__()


async def test_an_image_that_is_not_there_is_not_rolled(tmp_path: Path) -> None:
    with pytest.raises(TargetUnusable, match="No such file"):
        await StandingImage(tmp_path / "image").__aenter__()


async def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: pwrite(descriptor, data[:3], offset))

    async with NewImage(tmp_path / "image") as image:
        await image.write_at(2, b"0123456789")
        await image.commit(b"")

    assert (tmp_path / "image").read_bytes() == b"\0\x000123456789"


async def test_a_marker_that_is_a_fifo_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / "image").touch()
    os.mkfifo(marker_path(tmp_path / "image"))

    async with StandingImage(tmp_path / "image") as image:
        with pytest.raises(SourceUnreadable, match="is a pipe"):
            await image.begin("one")


async def test_a_fifo_is_not_rolled(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "image")

    with pytest.raises(TargetUnusable, match="no regular file"):
        await StandingImage(tmp_path / "image").__aenter__()
