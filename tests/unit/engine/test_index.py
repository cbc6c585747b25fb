from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from asyncbackup import ChainOptions, Dialect, Progress
from asyncbackup.engine.chain import Chain, Group, open_chain
from asyncbackup.engine.index import ChainObjects, Index, Records, read_index
from asyncbackup.engine.reader import BackupReader, Record
from asyncbackup.engine.source import ImageObjects, Indices, ZeroObjects
from asyncbackup.errors import BackupDamaged, BaseNeeded, SourceUnreadable
from asyncbackup.format import RecordHeader
from asyncbackup.storage import FileSource
from asyncbackup.storage.publication import manifest_path
from tests.chains import SIZE, Files, declare
from tests.disks import OBJECT, OBJECTS

TOLD = ChainOptions(Dialect.COLLIE, OBJECT, SIZE)
WHOLE = (0, OBJECT)


def indices(*found: int) -> Indices:
    return np.array(found, np.uint32)


def index_made_of(*files: list[tuple[int, tuple[int, int]]]) -> Index:
    """Make the index of files, oldest first, that have records: idx, and the offsets where each starts and ends."""
    records = Records()
    for place, found in enumerate(files):
        headers = [RecordHeader(idx, start, end - start) for idx, (start, end) in found]
        records.append(place, [Record(header, 100 * place + header.idx, None) for header in headers])
    readers = [BackupReader(FileSource(f"file-{place}"), object_size=OBJECT) for place in range(len(files))]
    return Index(Chain(readers, ChainOptions(), assume_base=True), records.take_sorted())


def told_of(group: Group) -> tuple[int, list[tuple[str, int]], int]:
    """Tell a group by its index, by the files and places of its records, and by the bytes that are wanted of it."""
    return group.idx, [(each.reader.name, each.record.position) for each in group.records], group.whole


# What it holds


async def test_an_index_gives_the_groups_that_the_chain_gives(files: Files) -> None:
    async with open_chain(files.all) as chain:
        expected = [group async for group in chain.groups()]

        found = [group async for group in (await read_index(chain)).groups()]

    assert found == expected
    assert all(each.record.digests for group in found for each in group.records)


async def test_objects_that_are_wanted_as_a_whole_come_in_any_case(files: Files) -> None:
    async with open_chain([files.ab, files.bc]) as chain:
        expected = [group async for group in chain.groups(indices(0, 2, 4, 9))]

        found = [group async for group in (await read_index(chain)).groups(indices(0, 2, 4, 9))]

    assert found == expected
    assert [(group.idx, group.whole) for group in found][:3] == [(0, OBJECT), (1, 0), (2, OBJECT)]


async def test_what_was_cut_off_in_between_is_in_no_index(files: Files) -> None:
    declare(files.ab, size=2 * OBJECT)
    declare(files.bc, base_size=2 * OBJECT)
    async with open_chain(files.all) as chain:
        expected = [group async for group in chain.groups()]

        index = await read_index(chain)

        assert index.indices.tolist() == [0, 1, 7]
        assert [group async for group in index.groups()] == expected


async def test_an_index_knows_its_objects_and_the_last_of_them(files: Files) -> None:
    async with open_chain(files.all) as chain:
        index = await read_index(chain)

    assert index.indices.dtype == np.uint32
    assert index.indices.tolist() == list(range(OBJECTS))
    assert index.last_idx == OBJECTS - 1


async def test_a_chain_of_no_records_has_an_index_of_no_objects(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(Dialect.DOG.opening + Dialect.DOG.ending)

    async with open_chain([tmp_path / "empty"], ChainOptions(Dialect.DOG, OBJECT)) as chain:
        index = await read_index(chain)

        assert (index.indices.tolist(), index.last_idx, index.partly_covered().tolist()) == ([], -1, [])
        assert [group async for group in index.groups()] == []
        assert [group.idx async for group in index.groups(indices(3))] == [3]
        assert index.group(0) == Group(0, ())


@pytest.mark.parametrize("idx", [0, 1, 2, 5, 6, 9, (1 << 32) - 2])
def test_any_object_is_found_by_its_number(idx: int) -> None:
    index = index_made_of([(1, WHOLE), (5, WHOLE)], [(1, (0, 512)), ((1 << 32) - 2, WHOLE)], [(1, WHOLE), (2, WHOLE)])
    expected = {
        1: [("file-0", 1), ("file-1", 101), ("file-2", 201)],
        2: [("file-2", 202)],
        5: [("file-0", 5)],
        (1 << 32) - 2: [("file-1", 100 + (1 << 32) - 2)],
    }

    assert told_of(index.group(idx)) == (idx, expected.get(idx, []), 0)


def test_many_objects_come_in_order_block_after_block() -> None:
    older, newer = range(0, 6000, 2), range(0, 6000, 3)
    index = index_made_of([(idx, WHOLE) for idx in older], [(idx, WHOLE) for idx in newer])

    found = [told_of(group) for group in index.groups_undigested(indices(1, 5999))]

    assert found == [
        (
            idx,
            [(f"file-{place}", 100 * place + idx) for place, file in enumerate((older, newer)) if idx in file],
            OBJECT if idx in (1, 5999) else 0,
        )
        for idx in range(6000)
        if idx in older or idx in newer or idx in (1, 5999)
    ]


@pytest.mark.parametrize(
    ("ranges", "is_partly"),
    [
        ([(0, OBJECT)], False),
        ([(0, OBJECT - 512)], True),
        ([(512, OBJECT)], True),
        ([(0, 1024), (1024, OBJECT)], False),
        ([(1024, OBJECT), (0, 1024)], False),
        ([(0, 1024), (1536, OBJECT)], True),
        ([(0, OBJECT), (1536, 2048)], False),
        ([(0, 4096), (512, 1024), (4096, OBJECT)], False),
        ([(0, 4096), (512, 1024), (2048, OBJECT)], False),
        ([(0, 4096), (512, 1024), (4608, OBJECT)], True),
        ([(0, 4096), (512, 1024)], True),
    ],
)
def test_objects_of_which_records_leave_something_out_are_told(
    ranges: list[tuple[int, int]], *, is_partly: bool
) -> None:
    among = [[(2, WHOLE), (3, each), (4, WHOLE)] for each in ranges]

    assert index_made_of(*among).partly_covered().tolist() == [3] * is_partly


def test_each_object_is_judged_for_itself() -> None:
    index = index_made_of([(0, WHOLE), (1, (512, OBJECT)), (2, (0, 512)), (3, WHOLE)], [(2, (512, OBJECT))])

    assert index.partly_covered().tolist() == [1]


# What it costs


@pytest.mark.slow
def test_an_index_takes_at_most_32_bytes_a_record() -> None:
    count, records = 1_000_000, Records()
    found = [Record(RecordHeader(idx, 0, 512), idx, None) for idx in range(count // 4)]
    for place in range(4):
        records.append(place, found)
    chain = Chain([BackupReader(FileSource(name)) for name in "abcd"], ChainOptions(), assume_base=True)
    tracemalloc.start()
    try:
        index = Index(chain, records.take_sorted())
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(index.indices) == count // 4
    assert index.nbytes <= held <= 32 * count
    assert peak <= 48 * count


async def test_headers_are_read_once(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    read_now = FileSource.read_now

    def noted(source: FileSource, offset: int, view: memoryview) -> int:
        if source.name == str(files.a):
            read.append(offset)
        return read_now(source, offset, view)

    monkeypatch.setattr(FileSource, "read_now", noted)
    async with open_chain([files.a]) as chain:
        index = await read_index(chain)
        once = len(read)
        found = [group async for group in index.groups()]

    assert len(found) == 5
    # The first one stands behind the opening, and comes with it.
    assert len(read) == once == 5


async def test_progress_tells_of_the_headers_now_and_then(tmp_path: Path) -> None:
    data, count = bytes(512), 3000
    file = tmp_path / "file"
    headers = [RecordHeader(idx, 0, 512).encode() + data for idx in range(count)]
    file.write_bytes(b"".join([Dialect.COLLIE.patch(count), *headers]))
    seen: list[Progress] = []

    async with open_chain([file], TOLD) as chain:
        await read_index(chain, seen.append)

    assert [(now.objects_done, now.objects_planned, now.is_checking) for now in seen] == [
        (0, None, True),
        (1024, None, True),
        (2048, None, True),
    ]


# What is wrong


async def test_damage_of_any_file_is_found_by_its_index(files: Files) -> None:
    data = bytearray(files.ab.read_bytes())
    data[16] += 1
    files.ab.write_bytes(data)

    async with open_chain(files.all) as chain:
        with pytest.raises(BackupDamaged, match="ab: at offset 16: its manifest has another record here"):
            await read_index(chain)


@pytest.mark.parametrize("keep", [0, 2])
async def test_a_manifest_that_was_changed_since_is_told(files: Files, keep: int) -> None:
    async with open_chain([files.a]) as chain:
        index = await read_index(chain)
        manifest = manifest_path(files.a)
        lines = manifest.read_bytes().splitlines(keepends=True)
        assert chain.readers[0].subject is not None
        declare(files.a, size=keep * OBJECT)
        assert len(manifest.read_bytes().splitlines()) < len(lines)

        with pytest.raises(BackupDamaged, match="its manifest was changed since the headers were read"):
            _ = [group async for group in index.groups()]


# The chain as an object source


async def read(source: ChainObjects, idx: int, start: int, end: int) -> bytes:
    into = memoryview(bytearray(b"?" * (end - start)))
    await source.read(idx, start, into)
    return bytes(into)


async def test_any_range_of_any_object_of_a_chain_is_read(files: Files) -> None:
    async with open_chain(files.all) as chain:
        source = ChainObjects(await read_index(chain), ZeroObjects())

        for idx in (7, 1, 0, 4, 1):
            for start, end in ((0, OBJECT), (7680, 9216), (512, 1024)):
                content = files.images["c"][idx * OBJECT : (idx + 1) * OBJECT]
                assert await read(source, idx, start, end) == content[start:end]


async def test_what_no_record_has_is_read_from_the_base(files: Files) -> None:
    async with open_chain([files.ab, files.bc]) as chain, FileSource(files.image("a")) as image:
        source = ChainObjects(await read_index(chain), ImageObjects(image, OBJECT))

        found = b"".join([await read(source, idx, 0, OBJECT) for idx in range(OBJECTS)])

    assert found == files.images["c"]


async def test_without_a_base_what_no_record_has_cannot_be_read(files: Files) -> None:
    async with open_chain([files.bc]) as chain:
        source = ChainObjects(await read_index(chain), None)

        assert await read(source, 7, 512, 1536) == files.images["c"][7 * OBJECT + 512 : 7 * OBJECT + 1536]
        with pytest.raises(BaseNeeded):
            await read(source, 7, 0, 1024)
        with pytest.raises(BaseNeeded):
            await read(source, 3, 0, 512)


async def test_a_chain_has_the_objects_of_its_files_and_of_its_base(files: Files) -> None:
    async with open_chain([files.bc]) as chain, FileSource(files.image("a")) as image:
        index = await read_index(chain)

        assert (await ChainObjects(index, None).find_objects()).tolist() == [1, 7]
        assert (await ChainObjects(index, ImageObjects(image, OBJECT)).find_objects()).tolist() == [0, 1, 2, 3, 4, 7]


async def test_a_chain_is_unchanged_if_its_base_is(files: Files) -> None:
    path = files.image("a")
    async with open_chain([files.ab]) as chain, FileSource(path) as image:
        source = ChainObjects(await read_index(chain), ImageObjects(image, OBJECT))
        await source.check_unchanged()
        path.write_bytes(b"")

        with pytest.raises(SourceUnreadable, match="somebody wrote to it"):
            await source.check_unchanged()


async def test_messages_call_a_chain_by_its_base_and_its_files(files: Files) -> None:
    async with open_chain([files.ab, files.bc]) as chain:
        index = await read_index(chain)

    assert ChainObjects(index, ZeroObjects()).name == f"an empty VDI with {files.ab} with {files.bc}"
    assert ChainObjects(index, None).name == f"{files.ab} with {files.bc}"


# Shares of it


def test_a_range_of_an_index_has_the_groups_of_its_objects_alone() -> None:
    index = index_made_of([(1, WHOLE), (3, WHOLE), (5, WHOLE)], [(3, (0, 512)), (9, WHOLE)])

    groups = list(index.within(2, 9).groups_undigested())

    assert list(map(told_of, groups)) == [
        (3, [("file-0", 3), ("file-1", 103)], 0),
        (5, [("file-0", 5)], 0),
    ]
    assert index.within(2, 9).indices.tolist() == [3, 5]
    assert index.within(6, 1 << 32).indices.tolist() == [9]
    assert list(index.within(6, 9).groups_undigested()) == []


def test_lengths_are_those_of_all_records_of_an_object() -> None:
    index = index_made_of([(1, WHOLE), (3, (0, 512))], [(3, (512, 2048))])

    assert index.lengths().tolist() == [OBJECT, 512 + 1536]
    assert index_made_of([]).lengths().tolist() == []
