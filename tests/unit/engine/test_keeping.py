"""When checkpoints are taken, and what an interruption leaves."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from asyncbackup import Dialect
from asyncbackup.engine.keeping import Keeping
from asyncbackup.engine.record_writer import RecordWriter
from asyncbackup.errors import AsyncBackupError, BackupDamaged, ChangedMeanwhile, TargetFull
from asyncbackup.storage import BackupTarget, open_target
from tests.folders import left_in
from tests.unit.engine.test_record_writer import LONG, SUBJECT, record

KEPT = [".file.partial", ".file.partial.manifest"]


def keeping_of(target: BackupTarget, interval: int = 2 * LONG) -> Keeping:
    writer = RecordWriter(target.data, Dialect.DOG, manifest=target.manifest, subject=SUBJECT)
    return Keeping(writer, target.partial, interval)


async def write(keeping: Keeping, *indices: int) -> None:
    for idx in indices:
        await keeping.writer.append([record(idx, LONG)])
        await keeping.advance()


async def test_a_checkpoint_is_taken_whenever_enough_was_written(tmp_path: Path) -> None:
    async with open_target(tmp_path / "file") as target:
        keeping = keeping_of(target)
        await keeping.start(None, SUBJECT)
        lines = []
        for idx in range(6):
            await write(keeping, idx)
            manifest = tmp_path / KEPT[1]
            lines.append(manifest.read_bytes().count(b"\n") if manifest.exists() else 0)

    # The first line and those of the records: the file's own headers make two records enough.
    assert lines == [0, 3, 3, 5, 5, 7]
    assert left_in(tmp_path) == KEPT


async def test_without_a_place_to_keep_anything_nothing_is_kept(tmp_path: Path) -> None:
    async with open_target(tmp_path / "file", with_manifest=False) as target:
        keeping = Keeping(RecordWriter(target.data, Dialect.DOG), target.partial, 1)
        assert await keeping.find(None, None) is None
        await keeping.start(None, SUBJECT)
        await write(keeping, 1, 2)

    assert left_in(tmp_path) == []


async def test_what_was_kept_is_found_and_gone_on_with(tmp_path: Path) -> None:
    async with open_target(tmp_path / "file") as target:
        keeping = keeping_of(target)
        await keeping.start(None, SUBJECT)
        await write(keeping, 1, 2, 3)

    async with open_target(tmp_path / "file", resume=True) as target:
        keeping = keeping_of(target)
        found = await keeping.find(SUBJECT, None)
        assert found is not None
        # Nobody settled it: the third record has no line.
        assert found.indices.tolist() == [1, 2]
        await keeping.start(found, SUBJECT)
        await write(keeping, 3)
        await keeping.writer.finish()

    async with open_target(tmp_path / "whole") as target:
        keeping = keeping_of(target, 1 << 30)
        await keeping.start(None, SUBJECT)
        await write(keeping, 1, 2, 3)
        await keeping.writer.finish()
    for suffix in ("", ".manifest"):
        assert (tmp_path / f"file{suffix}").read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()


@pytest.mark.parametrize("error", [TargetFull("file", "full"), asyncio.CancelledError(), ZeroDivisionError()], ids=repr)
async def test_what_was_written_since_the_checkpoint_is_saved_on_the_way_out(
    tmp_path: Path, error: BaseException
) -> None:
    async with open_target(tmp_path / "file") as target:
        keeping = keeping_of(target)
        await keeping.start(None, SUBJECT)
        await write(keeping, 1, 2, 3)
        with pytest.raises(type(error)) as caught:
            async with keeping.leaving():
                raise error

    assert caught.value is error
    assert (tmp_path / KEPT[1]).read_bytes().count(b"\n") == 4


async def test_before_the_first_checkpoint_nothing_is_saved(tmp_path: Path) -> None:
    async with open_target(tmp_path / "file") as target:
        keeping = keeping_of(target)
        await keeping.start(None, SUBJECT)
        await write(keeping, 1)
        with pytest.raises(ZeroDivisionError):
            async with keeping.leaving():
                raise ZeroDivisionError

    assert left_in(tmp_path) == []


@pytest.mark.parametrize(
    ("error", "left"), [(ChangedMeanwhile("it", "it is another"), []), (BackupDamaged("it", 0, "damaged"), KEPT)]
)
async def test_nothing_is_kept_of_what_somebody_changed_meanwhile(
    tmp_path: Path, error: AsyncBackupError, left: list[str]
) -> None:
    async with open_target(tmp_path / "file") as target:
        keeping = keeping_of(target)
        await keeping.start(None, SUBJECT)
        await write(keeping, 1, 2)
        with pytest.raises(type(error)):
            async with keeping.leaving():
                raise error

    assert left_in(tmp_path) == left
