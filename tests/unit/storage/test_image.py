from __future__ import annotations

import asyncio
import os
import shutil
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from asyncbackup.errors import BackupDamaged, HalfRolled, SourceUnreadable, TargetBusy, TargetExists, TargetUnusable
from asyncbackup.format.identity import Identity
from asyncbackup.format.image import MAX_MARKER, MAX_STATE, Marker
from asyncbackup.storage import FileSource, NewImage, StandingImage
from asyncbackup.storage.image import marker_path, read_state, refuse_half_rolled, state_path
from tests.folders import left_in

MIB = 1 << 20


async def copy(base: Path, target: Path) -> None:
    async with NewImage(target) as image, FileSource(base) as source:
        await image.copy_from(source)
        await image.resize(source.size)
        await image.complete()


async def test_a_new_image_appears_when_it_is_completed(tmp_path: Path) -> None:
    async with NewImage(tmp_path / "image") as image:
        await image.resize(10)
        await image.write_at(3, b"abc")
        assert "image" not in left_in(tmp_path)
        await image.complete()

    assert (tmp_path / "image").read_bytes() == b"\0\0\0abc\0\0\0\0"
    assert left_in(tmp_path) == ["image"]


async def test_a_new_image_without_a_commit_is_gone(tmp_path: Path) -> None:
    async with NewImage(tmp_path / "image") as image:
        await image.write_at(0, b"abc")

    assert left_in(tmp_path) == []


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


IDENTITY = Identity("disk", "a6c1f0", "2026-11-24T03:00:00.000000001Z", None, 3, "monday")
MARKER = Marker(("0" * 32,), 7, 3, None, None)


async def make(path: Path, *, replace: bool = False, identity: Identity | None = IDENTITY) -> None:
    async with NewImage(path, replace=replace) as image:
        await image.write_at(0, b"new")
        await image.finish(identity)


async def is_current(path: Path) -> bool:
    state, status = await read_state(path), await asyncio.to_thread(path.stat)
    return state is not None and state.is_of(status.st_size, status.st_mtime_ns)


async def test_a_new_image_says_what_it_is(tmp_path: Path) -> None:
    await make(tmp_path / "image")

    state = await read_state(tmp_path / "image")
    assert state is not None
    assert (state.identity, state.size, state.assumed) == (IDENTITY, 3, False)
    assert await is_current(tmp_path / "image")
    assert left_in(tmp_path) == ["image", "image.state"]


async def test_a_write_within_the_same_tick_of_the_clock_is_noticed(tmp_path: Path) -> None:
    await make(tmp_path / "image")
    with (tmp_path / "image").open("r+b") as file:
        file.write(b"NEW")

    assert not await is_current(tmp_path / "image")


async def test_the_time_of_an_image_is_the_present_one_to_the_nanosecond(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    present = 1_764_032_000_123_456_789
    monkeypatch.setattr(time, "time_ns", lambda: present)

    await make(tmp_path / "image")
    assert (tmp_path / "image").stat().st_mtime_ns == present
    present += 1
    async with StandingImage(tmp_path / "image") as image:
        await image.finish(IDENTITY)

    assert (tmp_path / "image").stat().st_mtime_ns == present
    assert await is_current(tmp_path / "image")


async def test_an_image_that_was_copied_with_its_time_is_what_it_was(tmp_path: Path) -> None:
    await make(tmp_path / "image")
    for name in ("image", "image.state"):
        shutil.copy2(tmp_path / name, tmp_path / name.replace("image", "copy"))

    assert await is_current(tmp_path / "copy")


async def test_a_new_image_of_nothing_known_leaves_no_state(tmp_path: Path) -> None:
    await make(tmp_path / "image")

    await make(tmp_path / "image", replace=True, identity=None)

    assert left_in(tmp_path) == ["image"]


async def test_a_state_without_its_image_goes_when_a_new_one_comes(tmp_path: Path) -> None:
    await make(tmp_path / "image")
    (tmp_path / "image").unlink()

    await make(tmp_path / "image", identity=None)

    assert left_in(tmp_path) == ["image"]


async def test_a_replaced_image_takes_its_marker_along(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"in pieces")
    async with StandingImage(tmp_path / "image") as image:
        await image.mark(MARKER)

    with pytest.raises(TargetExists):
        await make(tmp_path / "image")
    (tmp_path / "image").rename(tmp_path / "moved")
    with pytest.raises(TargetExists):
        await make(tmp_path / "image")
    await make(tmp_path / "image", replace=True)

    assert left_in(tmp_path) == ["image", "image.state", "moved"]
    assert await is_current(tmp_path / "image")


async def test_a_name_with_no_room_for_a_marker_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(TargetUnusable, match="leaves no room"):
        await NewImage(tmp_path / ("i" * 250)).__aenter__()

    assert left_in(tmp_path) == []


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("at", range(1, 12))
async def test_a_crash_leaves_no_state_that_speaks_of_other_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    await make(tmp_path / "image")
    with monkeypatch.context() as patch:
        calls = 0
        for name in ("fsync", "replace", "rename", "unlink", "link", "utime"):
            call = getattr(os, name)

            def count(*args: object, call: Any = call, **kwargs: object) -> object:
                nonlocal calls
                calls += 1
                if calls >= at:
                    raise Killed
                return call(*args, **kwargs)

            patch.setattr(os, name, count)
        with suppress(Killed):
            async with NewImage(tmp_path / "image", replace=True) as image:
                await image.write_at(0, b"anew")
                await image.finish(replace(IDENTITY, id=4))

    state = await read_state(tmp_path / "image")
    if state is not None:
        assert await is_current(tmp_path / "image")
        assert (state.identity.id == 4) == ((tmp_path / "image").read_bytes() == b"anew")


async def test_a_standing_image_is_marked_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"old")

    async with StandingImage(path) as image:
        assert await image.find_marker() is None
        await image.mark(MARKER)
        assert left_in(tmp_path) == [".image.lock", "image", "image.rolling"]
        await image.resize(5)
        await image.write_at(3, b"er")
        await image.finish(IDENTITY, assumed=True)

    assert path.read_bytes() == b"older"
    assert left_in(tmp_path) == ["image", "image.state"]
    state = await read_state(path)
    assert state is not None
    assert (state.identity, state.size, state.assumed) == (IDENTITY, 5, True)
    assert await is_current(path)


async def test_an_image_of_nothing_known_loses_its_state(tmp_path: Path) -> None:
    await make(tmp_path / "image")

    async with StandingImage(tmp_path / "image") as image:
        await image.mark(MARKER)
        await image.finish(None)

    assert left_in(tmp_path) == ["image"]


async def test_a_marker_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"old")
    async with StandingImage(path) as image:
        await image.mark(MARKER)

    async with StandingImage(path) as image:
        assert await image.find_marker() == MARKER
        assert image.inode == path.stat().st_ino
    with pytest.raises(HalfRolled):
        refuse_half_rolled(path)


@pytest.mark.parametrize("content", [b"", b"of others\n", b"x" * (MAX_MARKER + 2)], ids=["empty", "other", "long"])
async def test_a_marker_of_nobody_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"old")
    marker_path(path).write_bytes(content)

    async with StandingImage(path) as image:
        with pytest.raises(HalfRolled):
            await image.find_marker()


@pytest.mark.parametrize("content", [b"", b"{}\n", b"x" * (MAX_STATE + 2)], ids=["empty", "other", "long"])
async def test_a_damaged_state_is_named(tmp_path: Path, content: bytes) -> None:
    state_path(tmp_path / "image").write_bytes(content)

    with pytest.raises(BackupDamaged, match=r"image\.state.*no state of an image"):
        await read_state(tmp_path / "image")


async def test_a_state_that_is_a_fifo_is_refused_and_hangs_nobody(tmp_path: Path) -> None:
    os.mkfifo(state_path(tmp_path / "image"))

    with pytest.raises(SourceUnreadable, match=r"image\.state: is a pipe"):
        await read_state(tmp_path / "image")


async def test_a_state_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    state_path(tmp_path / "image").mkdir()

    with pytest.raises(SourceUnreadable, match="is a folder"):
        await read_state(tmp_path / "image")


def test_a_marker_is_found_by_every_name_of_an_image(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "image").touch()
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "image")

    assert marker_path(tmp_path / "link") == tmp_path / "folder" / "image.rolling"
    assert state_path(tmp_path / "link") == tmp_path / "folder" / "image.state"


async def test_a_standing_image_is_rolled_by_one_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "image").touch()

    async with StandingImage(tmp_path / "image"):
        with pytest.raises(TargetBusy, match=f"process {os.getpid()} on .* is writing it"):
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
        await image.complete()

    assert (tmp_path / "image").read_bytes() == b"\0\x000123456789"


async def test_a_marker_that_is_a_fifo_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / "image").touch()
    os.mkfifo(marker_path(tmp_path / "image"))

    async with StandingImage(tmp_path / "image") as image:
        with pytest.raises(SourceUnreadable, match="is a pipe"):
            await image.find_marker()


async def test_a_fifo_is_not_rolled(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "image")

    with pytest.raises(TargetUnusable, match="no regular file"):
        await StandingImage(tmp_path / "image").__aenter__()
