from __future__ import annotations

import errno
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from asyncbackup.errors import TargetBusy, TargetExists, TargetFull, TargetUnfinished, TargetUnusable
from asyncbackup.storage import BackupTarget, FileTarget, Partial, open_target, publish
from tests.folders import left_in

KEPT = [".file.partial", ".file.partial.manifest"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@asynccontextmanager
async def opened(folder: Path, **arguments: Any) -> AsyncIterator[tuple[BackupTarget, Partial]]:
    async with open_target(folder / "file", **arguments) as target:
        assert target.partial is not None
        yield target, target.partial


async def begin(folder: Path, **arguments: Any) -> None:
    """Leave an unfinished backup."""
    async with opened(folder, **arguments) as (target, partial):
        assert target.manifest is not None
        for each in (target.data, target.manifest):
            await each.append([b"begun"])
            await each.sync()
        await partial.keep()


async def complete(target: BackupTarget) -> None:
    assert target.manifest is not None
    await target.data.append([b", ended"])
    await target.manifest.append([b", proved"])
    await publish(target.data, target.manifest)


async def test_what_is_kept_stays_and_nothing_else_does(tmp_path: Path) -> None:
    await begin(tmp_path)

    assert contents(tmp_path) == dict.fromkeys(KEPT, b"begun")


async def test_what_is_kept_stays_after_an_error(tmp_path: Path) -> None:
    async def fail() -> None:
        async with opened(tmp_path) as (_, partial):
            await partial.keep()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()

    assert left_in(tmp_path) == KEPT


async def test_what_is_kept_can_be_read_and_cut_and_gone_on_with(tmp_path: Path) -> None:
    await begin(tmp_path)

    async with opened(tmp_path, resume=True) as (target, partial):
        assert partial.is_begun
        assert partial.is_kept
        assert partial.size == 5
        async with partial.read() as (data, manifest):
            assert data.size == 5
            assert await manifest.peek(9) == b"begun"
        await partial.write_beginning_of_manifest(b"M")
        await partial.go_back(b"B", 3, 4)
        await complete(target)

    assert contents(tmp_path) == {"file": b"Beg, ended", "file.manifest": b"Megu, proved"}


async def test_what_is_kept_is_as_it_was_if_nothing_is_done_with_it(tmp_path: Path) -> None:
    await begin(tmp_path)

    async with opened(tmp_path, resume=True):
        pass

    assert contents(tmp_path) == dict.fromkeys(KEPT, b"begun")


async def test_a_new_file_is_not_begun(tmp_path: Path) -> None:
    async with opened(tmp_path, resume=True) as (target, partial):
        assert not partial.is_begun
        assert not partial.is_kept
        await complete(target)

    assert left_in(tmp_path) == ["file", "file.manifest"]


async def test_what_is_complete_is_not_kept(tmp_path: Path) -> None:
    async with opened(tmp_path) as (target, partial):
        await partial.keep()
        await complete(target)

        assert not partial.is_kept
        await partial.drop()

    assert left_in(tmp_path) == ["file", "file.manifest"]


async def test_what_is_dropped_goes_at_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, partial):
        await partial.keep()
        await partial.drop()

        assert not partial.is_kept
        assert not {*KEPT} & {*left_in(tmp_path)}

    assert left_in(tmp_path) == []


async def test_what_is_kept_is_in_the_way_of_who_does_not_go_on(tmp_path: Path) -> None:
    await begin(tmp_path)

    with pytest.raises(TargetUnfinished) as caught:
        async with opened(tmp_path):
            pytest.fail("entered")
    with pytest.raises(TargetUnfinished):
        async with FileTarget(tmp_path / "file"):
            pytest.fail("entered")

    assert (caught.value.partial, caught.value.size) == (str(tmp_path / KEPT[0]), 5)
    assert contents(tmp_path) == dict.fromkeys(KEPT, b"begun")


async def test_what_is_kept_goes_where_all_may_be_replaced_and_that_is_told(tmp_path: Path) -> None:
    await begin(tmp_path)
    told: list[str] = []

    async with opened(tmp_path, replace=True, on_leftover=told.append) as (target, partial):
        assert not partial.is_begun
        await complete(target)

    assert contents(tmp_path) == {"file": b", ended", "file.manifest": b", proved"}
    assert told == [f"{tmp_path / 'file'}: this is begun anew; the unfinished one in .file.partial is removed"]


async def test_a_file_that_is_there_is_replaced_only_where_it_may_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    await begin(tmp_path, replace=True)

    with pytest.raises(TargetExists):
        async with opened(tmp_path, resume=True):
            pytest.fail("entered")
    async with opened(tmp_path, resume=True, replace=True) as (target, _):
        assert (tmp_path / "file").read_bytes() == b"old"
        await complete(target)

    assert contents(tmp_path) == {"file": b"begun, ended", "file.manifest": b"begun, proved"}


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


async def test_what_is_kept_has_the_permissions_of_the_file_that_it_replaces(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "file").chmod(0o600)
    await begin(tmp_path, replace=True)

    async with opened(tmp_path, resume=True, replace=True) as (target, _):
        await complete(target)

    assert modes(tmp_path) == {0o600}


async def test_nobody_else_goes_on_with_what_is_being_gone_on_with(tmp_path: Path) -> None:
    await begin(tmp_path)

    async with opened(tmp_path, resume=True):
        with pytest.raises(TargetBusy):
            async with opened(tmp_path, resume=True):
                pytest.fail("entered")

    assert contents(tmp_path) == dict.fromkeys(KEPT, b"begun")


async def test_what_is_no_file_is_not_gone_on_with(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / KEPT[0])
    (tmp_path / KEPT[1]).touch()

    with pytest.raises(TargetUnusable):
        async with opened(tmp_path, resume=True):
            pytest.fail("entered")


@pytest.mark.parametrize("left", [[KEPT[0]], [KEPT[1]], [KEPT[1], ".file.manifest.partial"]], ids=str)
async def test_one_without_the_other_is_removed(tmp_path: Path, left: list[str]) -> None:
    for name in left:
        (tmp_path / name).write_bytes(b"left")
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "file.manifest").write_bytes(b"old proof")
    told: list[str] = []

    async with opened(tmp_path, resume=True, replace=True, on_leftover=told.append) as (_, partial):
        assert not partial.is_begun

    assert contents(tmp_path) == {"file": b"old", "file.manifest": b"old proof"}
    assert all(name in told[0] for name in left)


@pytest.mark.parametrize("length", [229, 230, 246])
async def test_long_names_can_be_kept(tmp_path: Path, length: int) -> None:
    path = tmp_path / ("n" * length)
    async with open_target(path) as target:
        assert target.partial is not None
        await target.partial.keep()
    with pytest.raises(TargetUnfinished):
        async with open_target(path):
            pytest.fail("entered")

    async with open_target(path, resume=True) as target:
        await complete(target)

    assert left_in(tmp_path) == [path.name, f"{path.name}.manifest"]


def failing(code: int) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


async def test_where_there_are_no_links_the_manifest_is_copied_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begin(tmp_path)
    monkeypatch.setattr(os, "link", failing(errno.EPERM))

    async with opened(tmp_path, resume=True) as (target, _):
        await complete(target)

    assert contents(tmp_path) == {"file": b"begun, ended", "file.manifest": b"begun, proved"}


@pytest.mark.parametrize("call", ["link", "replace"])
async def test_what_cannot_be_completed_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    await begin(tmp_path)
    (tmp_path / "file").write_bytes(b"old")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, failing(errno.ENOSPC))
        with pytest.raises(TargetFull):
            async with opened(tmp_path, resume=True, replace=True) as (target, _):
                await complete(target)

    assert left_in(tmp_path) == [*KEPT, "file"]
    async with opened(tmp_path, resume=True, replace=True) as (target, partial):
        await partial.go_back(b"", 5, 5)
        await complete(target)
    assert contents(tmp_path) == {"file": b"begun, ended", "file.manifest": b"begun, proved"}
