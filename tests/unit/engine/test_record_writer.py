"""What the record writer appends, in which order, and from where it can go on."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import xxhash

from asyncbackup import Dialect, FileTarget
from asyncbackup.engine import record_writer
from asyncbackup.engine.record_writer import Checkpoint, Fragment, RecordWriter, refuse_unpatchable
from asyncbackup.errors import PatchNeeded, TargetFull
from asyncbackup.format import RecordHeader
from asyncbackup.format.decoder import Damage
from asyncbackup.format.identity import Identity
from asyncbackup.format.manifest import Line, ManifestDecoder, RecordDigests, Subject, Trailer
from asyncbackup.storage.target import Bytes, Step
from tests.collecting import CollectingTarget
from tests.disks import OBJECT, noise

SECTOR = 512
LONG = 256 << 10
"""Bytes of a record that is worth a hop to a thread of its own."""
SUBJECT = Subject(
    size=1 << 32,
    object_size=OBJECT,
    copies=1,
    copy_policy=0,
    dialect=Dialect.DOG,
    identity=Identity(vdi="disk", vdi_id="abcdef", created=None, cluster=None, id=1, tag="a"),
    base_identity=Identity("disk", "abcdee", "2026-11-22T20:00:00.000000001Z", None, 1, "a"),
    base_size=1 << 32,
)
FULL = replace(SUBJECT, base_identity=None, base_size=None)


class LoggingTarget(CollectingTarget):
    """Writes down in ``log``, which others may share, what is done to it, and with how many bytes so far."""

    def __init__(self, name: str = "data", log: list[tuple[str, str, int]] | None = None) -> None:
        super().__init__()
        self.name = name
        self.log: list[tuple[str, str, int]] = [] if log is None else log

    async def append(self, buffers: Sequence[Bytes], *, before: Step | None = None) -> None:
        await super().append(buffers, before=before)
        self.log.append((self.name, "append", len(self.data)))

    async def sync(self) -> None:
        self.log.append((self.name, "sync", len(self.data)))

    async def complete(self, beginning: bytes = b"") -> None:
        await super().complete(beginning)
        self.log.append((self.name, "complete", len(self.data)))


class Scene:
    """A writer of a dog backup, and where it writes to."""

    def __init__(self, subject: Subject | None = SUBJECT, *, is_range: bool = False) -> None:
        self.log: list[tuple[str, str, int]] = []
        self.data = LoggingTarget("data", self.log)
        self.manifest = LoggingTarget("manifest", self.log)
        self.writer = RecordWriter(
            self.data, Dialect.DOG, manifest=self.manifest if subject else None, subject=subject, is_range=is_range
        )

    @property
    def lines(self) -> list[Line]:
        decoder = ManifestDecoder()
        return [decoder.feed(line) for line in bytes(self.manifest.data).splitlines(keepends=True)]

    @property
    def records(self) -> list[RecordDigests]:
        return [line for line in self.lines if isinstance(line, RecordDigests)]


def record(idx: int, length: int = SECTOR) -> Fragment:
    return Fragment(
        RecordHeader(idx, 0, length), [memoryview(noise(idx, length))], [memoryview(noise(idx + 1, length))]
    )


def digest(seed: int, length: int) -> str:
    return xxhash.xxh3_128_hexdigest(noise(seed, length))


async def each(lines: Iterable[bytes]) -> AsyncIterator[bytes]:
    for line in lines:
        yield line


async def test_a_backup_is_framed_in_its_dialect() -> None:
    scene = Scene()
    await scene.writer.start()
    await scene.writer.append([record(1), record(3, LONG)])
    await scene.writer.finish()

    bodies = b"".join(RecordHeader(idx, 0, size).encode() + noise(idx, size) for idx, size in ((1, SECTOR), (3, LONG)))
    assert scene.data.data == Dialect.DOG.opening + bodies + Dialect.DOG.ending
    assert (scene.writer.position, scene.writer.records) == (len(scene.data.data), 2)
    assert scene.lines[0] == SUBJECT
    assert scene.lines[-1] == Trailer(2, len(scene.data.data))
    assert scene.data.is_complete
    assert scene.manifest.is_complete


async def test_a_collie_backup_has_its_count_patched(tmp_path: Path) -> None:
    async with FileTarget(tmp_path / "file") as target:
        writer = RecordWriter(target, Dialect.COLLIE)
        await writer.start()
        await writer.append([record(1), record(3)])
        await writer.finish()

    assert (tmp_path / "file").read_bytes()[:16] == Dialect.COLLIE.patch(2)


async def test_a_range_is_nothing_but_its_records_and_their_lines() -> None:
    whole, part = Scene(), Scene(is_range=True)
    for scene in (whole, part):
        await scene.writer.start()
        await scene.writer.append([record(1), record(3, LONG)])
        await scene.writer.finish()

    assert part.data.data == whole.data.data[len(Dialect.DOG.opening) : -len(Dialect.DOG.ending)]
    lines = bytes(whole.manifest.data).splitlines(keepends=True)
    assert part.manifest.data == b"".join(lines[1:-1])
    assert part.data.is_complete


async def test_short_records_wait_for_one_another_and_long_ones_do_not() -> None:
    scene = Scene()
    await scene.writer.start()

    for idx in range(200):
        await scene.writer.append([record(idx)])
    appends = [done for done in scene.log if done[0] == "data"]

    assert len(appends) == 200 * (SECTOR + 16) // (64 << 10)
    await scene.writer.append([record(200, LONG)])
    assert len(scene.data.data) == scene.writer.position


async def test_buffers_are_free_when_append_returns() -> None:
    scene, buffer = Scene(), bytearray(noise(1, SECTOR))
    await scene.writer.start()
    await scene.writer.append([Fragment(RecordHeader(1, 0, SECTOR), [memoryview(buffer)], [memoryview(buffer)])])
    buffer[:] = bytes(SECTOR)
    await scene.writer.finish()

    assert noise(1, SECTOR) in scene.data.data
    assert scene.records[0].data == digest(1, SECTOR)


async def test_digests_of_many_records_are_taken_in_the_hop_that_writes_them() -> None:
    hops: list[bool] = []

    class Counting(CollectingTarget):
        async def append(self, buffers: Sequence[Bytes], *, before: Step | None = None) -> None:
            hops.append(before is not None)
            await super().append(buffers, before=before)

    manifest = CollectingTarget()
    writer = RecordWriter(Counting(), Dialect.DOG, manifest=manifest, subject=SUBJECT)
    await writer.start()
    await writer.append([record(idx, LONG) for idx in range(8)])
    await writer.finish()

    assert hops == [True, False]
    assert [digest(idx, LONG).encode() in manifest.data for idx in range(8)] == [True] * 8


async def test_no_digests_are_taken_without_a_manifest() -> None:
    befores: list[Step | None] = []

    class Recording(CollectingTarget):
        async def append(self, buffers: Sequence[Bytes], *, before: Step | None = None) -> None:
            befores.append(before)
            await super().append(buffers, before=before)

    writer = RecordWriter(Recording(), Dialect.DOG)
    await writer.start()
    await writer.append([record(1, LONG)])
    await writer.finish()

    assert befores == [None, None]


@pytest.mark.parametrize("length", [2 * SECTOR, LONG], ids=["short", "long"])
async def test_a_record_is_digested_over_all_its_fragments(length: int) -> None:
    scene, half = Scene(), length // 2
    data, base = memoryview(noise(1, length)), memoryview(noise(2, length))
    await scene.writer.start()
    await scene.writer.append([Fragment(RecordHeader(3, 0, length), [data[:half]], [base[:half]], is_last=False)])
    await scene.writer.append([Fragment(None, [data[half:]], [base[half:]])])
    await scene.writer.finish()

    assert scene.records == [RecordDigests(RecordHeader(3, 0, length), digest(1, length), digest(2, length))]


@pytest.mark.parametrize("known", [(False, True), (True, False), (False, False)])
async def test_of_a_base_that_was_read_in_part_nothing_is_told(known: tuple[bool, bool]) -> None:
    scene, half = Scene(), memoryview(bytes(SECTOR))
    bases = [[half] if each else None for each in known]
    await scene.writer.start()
    await scene.writer.append([Fragment(RecordHeader(3, 0, 2 * SECTOR), [half], bases[0], is_last=False)])
    await scene.writer.append([Fragment(None, [half], bases[1])])
    await scene.writer.append([Fragment(RecordHeader(4, 0, SECTOR), [half], [half])])
    await scene.writer.finish()

    assert [found.base for found in scene.records] == [None, xxhash.xxh3_128_hexdigest(bytes(SECTOR))]


async def test_digests_that_are_known_stand_as_they_are() -> None:
    scene = Scene()
    known = RecordDigests(RecordHeader(3, 0, LONG), "0" * 32, "1" * 32, assumed=True)
    await scene.writer.start()
    await scene.writer.append([record(3, LONG)._replace(known=known), record(4)])
    await scene.writer.finish()

    assert scene.records == [known, RecordDigests(RecordHeader(4, 0, SECTOR), digest(4, SECTOR), digest(5, SECTOR))]


async def test_of_a_record_whose_digests_are_known_none_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    monkeypatch.setattr("asyncbackup.engine.record_writer.Digests", None)
    await scene.writer.start()
    await scene.writer.append([record(3)._replace(known=RecordDigests(RecordHeader(3, 0, SECTOR), "0" * 32, None))])
    await scene.writer.finish()

    assert scene.records[0].data == "0" * 32


async def test_what_is_assumed_is_told() -> None:
    scene = Scene()
    await scene.writer.start()
    await scene.writer.append([record(3)._replace(assumed=True), record(4)])
    await scene.writer.finish()

    assert [found.assumed for found in scene.records] == [True, False]


async def test_a_full_backup_says_nothing_of_a_base() -> None:
    scene = Scene(FULL)
    known = RecordDigests(RecordHeader(4, 0, SECTOR), "0" * 32, "1" * 32)
    await scene.writer.start()
    await scene.writer.append([record(3), record(4)._replace(known=known)])
    await scene.writer.finish()

    assert [found.base for found in scene.records] == [None, None]


@pytest.mark.parametrize("is_range", [False, True])
async def test_an_object_that_is_left_out_has_a_line_in_its_place_and_no_record(*, is_range: bool) -> None:
    scene = Scene(replace(SUBJECT, may_lack=True), is_range=is_range)
    await scene.writer.start()
    await scene.writer.append([record(1)])
    scene.writer.leave_out(2)
    await scene.writer.append([record(3, LONG)])
    scene.writer.leave_out(4)
    checkpoint = await scene.writer.checkpoint()
    await scene.writer.finish()

    lines = bytes(scene.manifest.data).splitlines(keepends=True)
    lines = lines if is_range else lines[1:-1]
    assert [line.partition(b",")[0] for line in lines] == [
        b'{"idx":1',
        b'{"missing":2}\n',
        b'{"idx":3',
        b'{"missing":4}\n',
    ]
    assert (checkpoint.records, checkpoint.last_idx, scene.writer.records) == (2, 4, 2)


async def test_lines_of_objects_that_were_left_out_are_made_again() -> None:
    subject = replace(SUBJECT, may_lack=True)
    whole = Scene(subject)
    await whole.writer.start()
    await whole.writer.append([record(1)])
    whole.writer.leave_out(2)
    checkpoint = await whole.writer.checkpoint()
    lines, data = bytes(whole.manifest.data).splitlines(keepends=True), bytes(whole.data.data)
    await whole.writer.append([record(3)])
    await whole.writer.finish()

    again = Scene(subject)
    again.data.data += data
    again.manifest.data += b"".join(lines)
    await again.writer.resume(checkpoint, each(lines))
    await again.writer.append([record(3)])
    await again.writer.finish()

    assert (again.data.data, again.manifest.data) == (whole.data.data, whole.manifest.data)


@pytest.mark.parametrize("length", [SECTOR, 64 << 10], ids=["short", "long"])
async def test_no_line_is_appended_before_the_data_that_it_speaks_of(length: int) -> None:
    scene = Scene()
    await scene.writer.start()
    known, told = "0" * 32, 0
    for idx in range(700):
        line = RecordDigests(RecordHeader(idx, 0, length), known, known)
        await scene.writer.append([record(0, length)._replace(header=line.header, known=line)])
        told = bytes(scene.manifest.data).count(b'"idx":')
        assert told * (16 + length) <= len(scene.data.data)

    assert told > 400, "lines do not wait for the end"


async def test_a_checkpoint_makes_the_data_durable_before_the_lines_are_appended() -> None:
    scene = Scene()
    await scene.writer.start()
    await scene.writer.append([record(1), record(3)])

    checkpoint = await scene.writer.checkpoint()

    length = len(Dialect.DOG.opening) + 2 * (16 + SECTOR)
    assert checkpoint == Checkpoint(length, 2, 3, len(scene.manifest.data))
    assert scene.log == [
        ("data", "append", length),
        ("data", "sync", length),
        ("manifest", "append", checkpoint.manifest_length),
        ("manifest", "sync", checkpoint.manifest_length),
    ]


async def test_a_checkpoint_within_a_record_is_where_the_record_begins() -> None:
    scene = Scene()
    await scene.writer.start()
    await scene.writer.append([record(1)])
    before = await scene.writer.checkpoint()
    await scene.writer.append([Fragment(RecordHeader(2, 0, 2 * SECTOR), [memoryview(bytes(SECTOR))], is_last=False)])

    assert await scene.writer.checkpoint() == before
    assert len(scene.data.data) == before.position + 16 + SECTOR


async def stopped() -> tuple[Checkpoint, list[bytes]]:
    """Write two records and a checkpoint, and no further."""
    scene = Scene()
    await scene.writer.start()
    await scene.writer.append([record(1), record(3)])
    return await scene.writer.checkpoint(), bytes(scene.manifest.data).splitlines(keepends=True)


@pytest.mark.parametrize(
    "change",
    [
        {"position": 1072},
        {"records": 1},
        {"last_idx": 4},
        {"manifest_length": 1},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_a_checkpoint_that_the_lines_do_not_come_to_is_damage(change: dict[str, int]) -> None:
    checkpoint, lines = await stopped()

    with pytest.raises(Damage, match="expected the lines of Checkpoint"):
        await Scene().writer.resume(replace(checkpoint, **change), each(lines))


async def test_lines_that_changed_since_the_checkpoint_are_damage() -> None:
    checkpoint, lines = await stopped()
    subject, first, second = lines

    for changed in (
        [],
        [subject],
        [subject, first],
        [first, second],
        [subject, second, first],
        [subject, first, second, second],
        [subject.replace(b'"copies":1', b'"copies":2'), first, second],
        [subject, first.replace(b'"idx":1', b'"idx":01'), second],
        [subject, first.replace(b'"idx":1,', b'"idx":1, '), second],
        [subject, first, second[:-1]],
        [subject, first, b'{"records":1,"data_length":1,"digest":"0"}\n'],
    ):
        with pytest.raises(Damage):
            await Scene().writer.resume(checkpoint, each(changed))
    await Scene().writer.resume(checkpoint, each(lines))


async def test_lines_are_made_again_in_a_thread_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_writer, "_REPEATED", 2)
    seen: list[tuple[int, int]] = []
    given = 0

    def feed(decoder: ManifestDecoder, line: bytes) -> object:
        seen.append((threading.get_ident(), given))
        return decode(decoder, line)

    async def lines_of(lines: list[bytes]) -> AsyncIterator[bytes]:
        nonlocal given
        for line in lines:
            given += 1
            yield line

    checkpoint, lines = await stopped()
    decode = ManifestDecoder.feed
    monkeypatch.setattr(ManifestDecoder, "feed", feed)
    await Scene().writer.resume(checkpoint, lines_of(lines))

    (_, *records) = seen  # The subject comes first, and on the loop: it is one line.
    assert [before for _, before in records] == [2, 3]
    assert threading.get_ident() not in {thread for thread, _ in records}


async def test_a_whole_manifest_is_no_prefix_of_one() -> None:
    scene = Scene()
    await scene.writer.start()
    await scene.writer.append([record(1)])
    checkpoint = await scene.writer.checkpoint()
    await scene.writer.finish()

    with pytest.raises(Damage):
        await Scene().writer.resume(checkpoint, each(bytes(scene.manifest.data).splitlines(keepends=True)))


@pytest.mark.parametrize(
    "fragments",
    [
        [record(3), record(3)],
        [record(3), record(2)],
        [Fragment(None, [memoryview(bytes(SECTOR))])],
        [Fragment(RecordHeader(1, 0, 2 * SECTOR), [memoryview(bytes(SECTOR))])],
        [Fragment(RecordHeader(1, 0, 2 * SECTOR), [memoryview(bytes(SECTOR))], is_last=False), record(2)],
    ],
    ids=["same", "descending", "headless", "short", "within"],
)
async def test_what_no_reader_takes_is_not_written(fragments: list[Fragment]) -> None:
    scene = Scene(None)
    await scene.writer.start()

    with pytest.raises(AssertionError):
        await scene.writer.append(fragments)


async def test_a_record_that_is_not_complete_is_not_published() -> None:
    scene = Scene(None)
    await scene.writer.start()
    await scene.writer.append([Fragment(RecordHeader(1, 0, 2 * SECTOR), [memoryview(bytes(SECTOR))], is_last=False)])

    with pytest.raises(AssertionError):
        await scene.writer.finish()

    assert not scene.data.is_complete


def test_what_has_to_be_patched_does_not_go_where_nothing_can_be() -> None:
    with pytest.raises(PatchNeeded):
        refuse_unpatchable(CollectingTarget(), Dialect.COLLIE)
    refuse_unpatchable(CollectingTarget(), Dialect.DOG)


# Failures


def left_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


class Failing(CollectingTarget):
    """Breaks off in the call number ``at`` of all its calls, having written half of what it was given."""

    def __init__(self, calls: list[int], at: int, failure: BaseException) -> None:
        super().__init__()
        self.calls, self.at, self.failure = calls, at, failure

    async def _pass(self) -> None:
        self.calls[0] += 1
        if self.calls[0] == self.at:
            raise self.failure

    async def append(self, buffers: Sequence[Bytes], *, before: Step | None = None) -> None:
        await super().append(buffers[: len(buffers) // 2], before=before)
        await self._pass()
        await super().append(buffers[len(buffers) // 2 :])

    async def sync(self) -> None:
        await self._pass()

    async def complete(self, beginning: bytes = b"") -> None:
        await self._pass()
        await super().complete(beginning)


async def write_all(data: CollectingTarget, manifest: CollectingTarget) -> None:
    writer = RecordWriter(data, Dialect.DOG, manifest=manifest, subject=SUBJECT)
    await writer.start()
    await writer.append([record(1), record(2, LONG)])
    await writer.append([record(3)])
    await writer.checkpoint()
    await writer.append([record(4, LONG)])
    await writer.finish()


@pytest.mark.parametrize("failure", [TargetFull("file", "No space left on device"), asyncio.CancelledError()])
async def test_what_breaks_off_anywhere_is_not_published(failure: BaseException) -> None:
    at = 0
    while True:
        at += 1
        calls = [0]
        data, manifest = Failing(calls, at, failure), Failing(calls, at, failure)
        try:
            await write_all(data, manifest)
        except type(failure) as caught:
            assert caught is failure  # noqa: PT017 - at each call
        else:
            break
        assert not manifest.is_complete

    assert at > 8, "it was broken off everywhere"
    assert data.is_complete
    assert manifest.is_complete


class Stops(CollectingTarget):
    """Takes what it is given, the whole of it or nothing, and then fails."""

    def __init__(self, *, takes: bool) -> None:
        super().__init__()
        self.takes = takes
        self.is_armed = False
        self.syncs = 0

    async def append(self, buffers: Sequence[Bytes], *, before: Step | None = None) -> None:
        if self.takes or not self.is_armed:
            await super().append(buffers, before=before)
        elif before is not None:
            before()
        if self.is_armed:
            raise asyncio.CancelledError

    async def sync(self) -> None:
        self.syncs += 1


@pytest.mark.parametrize("takes", [False, True])
@pytest.mark.parametrize("length", [SECTOR, LONG])
async def test_after_a_cancellation_the_manifest_speaks_of_nothing_that_is_not_there(
    length: int, *, takes: bool
) -> None:
    data, manifest = Stops(takes=takes), CollectingTarget()
    writer = RecordWriter(data, Dialect.DOG, manifest=manifest, subject=SUBJECT)
    await writer.start()
    await writer.append([record(1, LONG)])
    data.is_armed = True
    with pytest.raises(asyncio.CancelledError):
        await writer.append([record(2, length), record(3, LONG)])
    assert not manifest.data, "few lines wait for more"

    await writer.settle()

    lines = bytes(manifest.data).splitlines()
    assert len(lines) == 2
    assert lines[1].startswith(b'{"idx":1,')
    assert data.syncs == 1


async def test_a_full_disk_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int, _buffers: Sequence[Bytes]) -> int:
        raise OSError(28, "No space left on device")

    async with FileTarget(tmp_path / "file") as data:
        writer = RecordWriter(data, Dialect.COLLIE)
        await writer.start()
        await writer.append([record(1, LONG)])
        monkeypatch.setattr("os.writev", full)
        with pytest.raises(TargetFull):
            await writer.append([record(2, LONG)])

    assert left_in(tmp_path) == []


async def test_writes_that_take_only_a_part_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writev = os.writev
    monkeypatch.setattr("os.writev", lambda descriptor, buffers: writev(descriptor, [memoryview(buffers[0])[:1000]]))
    expected = CollectingTarget()
    for target in (expected, FileTarget(tmp_path / "file")):
        async with target:
            writer = RecordWriter(target, Dialect.DOG)
            await writer.start()
            await writer.append([record(1), record(2, LONG)])
            await writer.finish()

    assert (tmp_path / "file").read_bytes() == expected.data
