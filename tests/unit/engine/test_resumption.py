"""How far an unfinished backup is taken for good."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from asyncbackup import Dialect, Progress
from asyncbackup.engine import resumption
from asyncbackup.engine.record_writer import RecordWriter
from asyncbackup.engine.resumption import Resumption, find_resumption, refuse_other
from asyncbackup.errors import BegunOtherwise, PartialDamaged
from asyncbackup.format.identity import Identity
from asyncbackup.format.manifest import Subject
from asyncbackup.storage import FileSource
from tests.collecting import CollectingTarget
from tests.unit.engine.test_record_writer import LONG, SECTOR, SUBJECT, record

LENGTHS = {1: SECTOR, 4: LONG, 9: 3 * SECTOR}


class Left:
    """Files that a run left; ``ends``: where the records end in them."""

    def __init__(self, folder: Path) -> None:
        self.data, self.manifest = folder / "data", folder / "proof"
        self.ends: list[tuple[int, int]] = []

    async def find(self, subject: Subject = SUBJECT, on_progress: Any = None) -> Resumption:
        async with FileSource(self.data) as data, FileSource(self.manifest) as manifest:
            return await find_resumption("file", data, manifest, subject, on_progress)


@pytest.fixture
async def left(tmp_path: Path) -> Left:
    made, data, manifest = Left(tmp_path), CollectingTarget(), CollectingTarget()
    writer = RecordWriter(data, Dialect.DOG, manifest=manifest, subject=SUBJECT)
    await writer.start()
    for idx, length in LENGTHS.items():
        await writer.append([record(idx, length)])
        checkpoint = await writer.checkpoint()
        made.ends.append((checkpoint.position, checkpoint.manifest_length))
    made.data.write_bytes(data.data)
    made.manifest.write_bytes(manifest.data)
    return made


async def test_all_that_is_good_counts(left: Left) -> None:
    found = await left.find()

    assert (found.checkpoint.position, found.checkpoint.manifest_length) == left.ends[-1]
    assert (found.checkpoint.records, found.checkpoint.last_idx) == (3, 9)
    assert found.indices.tolist() == [1, 4, 9]


async def test_what_stands_behind_the_last_record_does_not_count(left: Left) -> None:
    with left.data.open("ab") as data, left.manifest.open("ab") as manifest:
        data.write(b"half a record")
        manifest.write(b'{"idx":12,"offset":')

    found = await left.find()

    assert (found.checkpoint.position, found.checkpoint.manifest_length) == left.ends[-1]


@pytest.mark.parametrize("size", [1, 16, 100, SECTOR])
async def test_a_record_that_is_cut_off_does_not_count(left: Left, size: int) -> None:
    left.data.write_bytes(left.data.read_bytes()[: left.ends[1][0] + size])

    found = await left.find()

    assert (found.checkpoint.position, found.checkpoint.manifest_length) == left.ends[1]


@pytest.mark.parametrize("at", [0, 5, 16, 17, LONG // 2, LONG + 15])
async def test_no_record_counts_from_the_first_one_on_that_holds_something_else(left: Left, at: int) -> None:
    data = bytearray(left.data.read_bytes())
    data[left.ends[0][0] + at] ^= 1
    left.data.write_bytes(data)

    found = await left.find()

    assert (found.checkpoint.position, found.checkpoint.manifest_length) == left.ends[0]


@pytest.mark.parametrize("lines", [0, 1], ids=["lines", "bytes"])
async def test_progress_is_told_and_a_cancellation_waits_for_little(
    left: Left, monkeypatch: pytest.MonkeyPatch, lines: int
) -> None:
    monkeypatch.setattr(resumption, "_STEP_SIZE" if lines else "_STEP_LINES", 1)
    told: list[Progress] = []

    await left.find(on_progress=told.append)

    assert [(each.objects_done, each.bytes_done) for each in told] == [
        (number, position) for number, (position, _) in enumerate(left.ends, 1)
    ]
    assert all(each.is_checking for each in told)


@pytest.mark.parametrize("line", [b"", b"{}\n", b'{"manifest":1}\n'])
async def test_a_first_line_that_is_none_is_told(left: Left, line: bytes) -> None:
    left.manifest.write_bytes(line)

    with pytest.raises(PartialDamaged, match=r"^file: what an interrupted run left of it cannot be gone on with: "):
        await left.find()


OTHER = replace(SUBJECT.identity, vdi_id="abcdea")


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (replace(SUBJECT, base_identity=None, base_size=None), "base"),
        (replace(SUBJECT, dialect=Dialect.COLLIE), "format"),
        (replace(SUBJECT, size=1 << 30), "size"),
        (replace(SUBJECT, base_size=1 << 30), "base size"),
        (replace(SUBJECT, object_size=1 << 22), "object size"),
        (replace(SUBJECT, copies=3), "redundancy"),
        (replace(SUBJECT, identity=OTHER), "snapshot"),
    ],
)
async def test_what_is_of_something_else_is_refused(left: Left, asked: Subject, field: str) -> None:
    with pytest.raises(BegunOtherwise) as caught:
        await left.find(asked)

    assert caught.value.field == field


def test_another_vdi_is_named_before_all_that_follows_from_it() -> None:
    other = Identity("other", "1", None, None, 1, "a")
    full = replace(SUBJECT, identity=other, base_identity=None, base_size=None)

    with pytest.raises(BegunOtherwise, match=r"^file: .* another VDI: expected 'other', got 'disk'$"):
        refuse_other("file", SUBJECT, full)


async def test_objects_that_were_left_out_count_and_are_not_tried_again(tmp_path: Path) -> None:
    made, data, manifest, subject = (
        Left(tmp_path),
        CollectingTarget(),
        CollectingTarget(),
        replace(SUBJECT, may_lack=True),
    )
    writer = RecordWriter(data, Dialect.DOG, manifest=manifest, subject=subject)
    await writer.start()
    writer.leave_out(1)
    await writer.append([record(4)])
    writer.leave_out(6)
    checkpoint = await writer.checkpoint()
    made.data.write_bytes(data.data)
    made.manifest.write_bytes(manifest.data)

    found = await made.find(subject)

    assert found.checkpoint == checkpoint
    assert (found.indices.tolist(), found.missing.tolist()) == ([4], [1, 6])


async def test_what_was_begun_whole_may_lack_objects_from_now_on(left: Left) -> None:
    found = await left.find(replace(SUBJECT, may_lack=True))

    assert found.indices.tolist() == [1, 4, 9]


def test_what_may_lack_objects_does_not_become_whole() -> None:
    with pytest.raises(BegunOtherwise, match="unreadable objects"):
        refuse_other("file", replace(SUBJECT, may_lack=True), SUBJECT)
