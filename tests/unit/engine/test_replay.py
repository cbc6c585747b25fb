"""How a chain is gone through in portions; and what comes from standard input, which can be read only once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asyncbackup import (
    ChainOptions,
    Dialect,
    WindowOptions,
    convert,
    convert_to_rbd_diff,
    export,
    merge,
)
from asyncbackup.engine.chain import open_chain
from asyncbackup.engine.compose import Composer
from asyncbackup.engine.progress import ReplayCounts
from asyncbackup.engine.replay import Content, Meter, Replay, nothing
from asyncbackup.engine.source import ZeroObjects
from asyncbackup.errors import BackupDamaged, DigestMismatch, single_error
from asyncbackup.storage.publication import manifest_path
from tests import rbd_diffs
from tests.chains import SIZE, Files
from tests.collecting import CollectingTarget
from tests.disks import OBJECT
from tests.folders import left_in
from tests.streams import standard_input

PIECES = WindowOptions(memory=1 << 20)
"""A quarter of an object at a time."""
PIECE = OBJECT // 4
TOLD = ChainOptions(Dialect.COLLIE, OBJECT, SIZE)


# Portions


async def test_portions_arrive_in_order_after_they_were_written(files: Files) -> None:
    written: set[tuple[int, int]] = set()
    delivered: list[tuple[int, int]] = []

    async def write(contents: list[Content]) -> None:
        written.update((content.group.idx, content.portion.offset) for content in contents)

    async def deliver(contents: list[Content]) -> None:
        delivered.extend((content.group.idx, content.portion.offset) for content in contents)
        assert written.issuperset(delivered)

    async with open_chain([files.a]) as chain:
        await Replay(chain, Composer(ZeroObjects()), PIECES, write, deliver).run()

    assert delivered == [(idx, offset) for idx in range(5) for offset in range(0, OBJECT, PIECE)]


async def test_the_first_portion_of_an_object_is_written_before_the_others(files: Files) -> None:
    written: list[tuple[int, int]] = []

    async def write(contents: list[Content]) -> None:
        written.extend((content.group.idx, content.portion.offset) for content in contents)

    async with open_chain([files.a]) as chain:
        meter = Meter(ReplayCounts(), None)
        await Replay(chain, Composer(ZeroObjects()), PIECES, write, meter.count).run()

    assert [next(offset for idx, offset in written if idx == each) for each in range(5)] == [0] * 5
    assert meter.counts.objects_done == 5


async def test_short_objects_that_follow_one_another_are_written_together(files: Files) -> None:
    written: list[list[int]] = []

    async def write(contents: list[Content]) -> None:
        written.append([content.group.idx for content in contents])

    async with open_chain([files.ab]) as chain:
        composer, options = Composer(ZeroObjects(), base_is_whole=False), WindowOptions(workers=1)
        await Replay(chain, composer, options, write, Meter(ReplayCounts(), None).count).run()
        long = [record.header.idx async for record in chain.readers[0].records() if record.header.length > 8192]

    assert [idx for together in written for idx in together] == sorted(idx for each in written for idx in each)
    assert max(map(len, written)) > 1
    assert all(len(together) == 1 for together in written if set(together) & set(long))
    assert long


async def test_nothing_of_an_object_is_written_before_all_of_it_was_checked(files: Files) -> None:
    data = bytearray(files.a.read_bytes())
    data[-1] ^= 1
    files.a.write_bytes(data)
    written: set[int] = set()

    async def write(contents: list[Content]) -> None:
        written.update(content.group.idx for content in contents)

    async with open_chain([files.a]) as chain:
        with pytest.raises(DigestMismatch, match="the data of object 4 was changed"), single_error():
            await Replay(chain, Composer(ZeroObjects()), PIECES, write, Meter(ReplayCounts(), None).count).run()

    assert 4 not in written


async def test_who_only_looks_writes_nothing(files: Files) -> None:
    seen: list[int] = []

    async with open_chain([files.ab]) as chain:
        meter = Meter(ReplayCounts(), lambda progress: seen.append(progress.objects_done))
        await Replay(chain, Composer(ZeroObjects(), base_is_whole=False), PIECES, nothing, meter.count).run()

    assert seen == sorted(seen)
    assert seen[-1] == 5


# Standard input


@pytest.mark.parametrize("options", [PIECES, WindowOptions()], ids=["pieces", "objects"])
async def test_a_piped_backup_exports_to_what_it_holds(files: Files, options: WindowOptions) -> None:
    with standard_input(files.a):
        summary = await export(["-"], target := CollectingTarget(), chain_options=TOLD, options=options)

    assert target.data == files.images["a"]
    assert (summary.objects_done, summary.checked) == (5, False)


@pytest.mark.parametrize("options", [PIECES, WindowOptions()], ids=["pieces", "objects"])
async def test_increments_from_files_go_on_a_piped_backup(files: Files, tmp_path: Path, options: WindowOptions) -> None:
    with standard_input(files.a):
        await export(
            ["-", files.ab, files.bc],
            tmp_path / "image",
            chain_options=ChainOptions(manifests=list(map(manifest_path, files.all))),
            options=options,
        )

    assert (tmp_path / "image").read_bytes() == files.images["c"]


@pytest.mark.parametrize("options", [PIECES, WindowOptions()], ids=["pieces", "objects"])
async def test_a_piped_backup_merges_as_its_file_does(files: Files, tmp_path: Path, options: WindowOptions) -> None:
    planned: set[int | None] = set()
    await merge([files.a, files.ab], tmp_path / "expected", options=options)

    with standard_input(files.a):
        summary = await merge(
            ["-", files.ab],
            tmp_path / "merged",
            assume_base=True,
            options=options,
            on_progress=lambda progress: planned.add(progress.objects_planned),
        )

    assert (tmp_path / "merged").read_bytes() == (tmp_path / "expected").read_bytes()
    assert not summary.has_manifest
    assert planned == {None}


async def test_a_piped_backup_converts_as_its_file_does(files: Files, tmp_path: Path) -> None:
    with standard_input(files.a):
        await convert("-", tmp_path / "dog", dialect=Dialect.DOG)
    await convert(tmp_path / "dog", tmp_path / "collie")

    assert (tmp_path / "collie").read_bytes() == files.a.read_bytes()
    assert not manifest_path(tmp_path / "dog").exists()


async def test_a_piped_backup_becomes_a_diff_of_unknown_extent(files: Files) -> None:
    planned: set[int | None] = set()

    with standard_input(files.a):
        summary = await convert_to_rbd_diff(
            "-",
            target := CollectingTarget(),
            chain_options=TOLD,
            on_progress=lambda progress: planned.add(progress.objects_planned),
        )

    diff = rbd_diffs.parse(bytes(target.data))
    assert diff.apply(b"") == files.images["a"]
    assert (diff.base, diff.snapshot) == (summary.base, summary.snapshot) == (None, None)
    assert planned == {None}


async def test_a_pipe_that_ends_early_leaves_no_image(files: Files, tmp_path: Path) -> None:
    os.truncate(files.a, files.a.stat().st_size - 1)

    with (
        standard_input(files.a),
        pytest.raises(BackupDamaged, match=r"standard input: at offset \d+: the file ends here; expected 1 more bytes"),
    ):
        await export(["-"], tmp_path / "image", chain_options=TOLD, options=PIECES)

    assert not any("image" in name for name in set(left_in(tmp_path)))


@pytest.mark.parametrize("options", [PIECES, WindowOptions()], ids=["pieces", "objects"])
@pytest.mark.parametrize("position", [16 + 16 + 1000, 16 + 16 + OBJECT - 1], ids=["first", "last"])
async def test_what_is_piped_is_checked_as_it_comes(
    files: Files, tmp_path: Path, options: WindowOptions, position: int
) -> None:
    data = bytearray(files.a.read_bytes())
    data[position] ^= 1
    files.a.write_bytes(data)
    manifests = [manifest_path(files.a), manifest_path(files.ab)]

    with (
        standard_input(files.a),
        pytest.raises(DigestMismatch, match="input: the data of object 0 was changed"),
    ):
        await export(
            ["-", files.ab],
            tmp_path / "image",
            chain_options=ChainOptions(manifests=manifests),
            options=options,
        )

    assert not (tmp_path / "image").exists()
