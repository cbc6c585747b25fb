"""Backups that were interrupted, and go on: the result is that of a run that was not."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from asyncbackup import Cluster, Dialect, Layers, NullTarget, Progress, Summary, Volume, WindowOptions, backup
from asyncbackup.errors import (
    BegunOtherwise,
    NotResumable,
    PartialDamaged,
    SnapshotChanged,
    TargetExists,
    TargetFull,
    TargetUnfinished,
)
from asyncbackup.wire import messages
from asyncbackup.wire.inode import ENTRY_SIZE, TABLE_OFFSET
from asyncbackup.wire.oid import inode_oid
from tests.disks import OBJECT, OBJECTS, PARTS, make_disk, noise
from tests.faults.deletion import deletable
from tests.keys import make_key
from tests.layered import read_layered, write_layered

# Each of many runs is interrupted somewhere.
pytestmark = pytest.mark.slow

ONE = WindowOptions(workers=1)
PORTIONS = WindowOptions(workers=2, memory=1 << 20)
"""Objects do not fit into a slot of so little memory."""
KEPT = [".file.partial", ".file.partial.manifest"]
ZSTD = Layers(zstd_level=1, threads=1)
COMPRESSED: dict[str, Any] = {"dialect": Dialect.DOG, "layers": ZSTD}


class Stop(Exception):
    """Ends a run."""


class Run:
    """Backs up snapshot b of the disk to ``file`` in ``folder``, and stops when ``stop_at`` objects are done."""

    def __init__(self, cluster: Cluster, folder: Path, **arguments: Any) -> None:
        self.cluster = cluster
        self.folder = folder
        self.arguments: dict[str, Any] = {"snapshot": "b", "options": ONE, "checkpoint_bytes": 1} | arguments

    async def __call__(self, stop_at: int | None = None, **arguments: Any) -> Summary:
        def tell(progress: Progress) -> None:
            if progress.objects_done == stop_at and not progress.is_checking:
                raise Stop

        vdi = arguments.pop("vdi", "disk")
        return await backup(self.cluster, vdi, self.folder / "file", on_progress=tell, **self.arguments | arguments)

    async def stopped(self, stop_at: int = 3, **arguments: Any) -> None:
        with pytest.raises(Stop):
            await self(stop_at, **arguments)

    @property
    def data(self) -> Path:
        return self.folder / ".file.partial"

    @property
    def manifest(self) -> Path:
        return self.folder / ".file.partial.manifest"


def take(folder: Path) -> dict[str, bytes]:
    """Take away all files of a folder, and give what they held."""
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    for name in files:
        (folder / name).unlink()
    return files


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
async def run(cluster: Cluster, tmp_path: Path) -> Run:
    await make_disk(cluster)
    (tmp_path / "folder").mkdir()
    return Run(cluster, tmp_path / "folder")


@pytest.mark.parametrize("options", [ONE, WindowOptions(), PORTIONS], ids=["one", "some", "portions"])
@pytest.mark.parametrize("base", [None, "a"])
@pytest.mark.parametrize(
    ("dialect", "layers"),
    [(Dialect.COLLIE, None), (Dialect.DOG, None), (Dialect.DOG, ZSTD)],
    ids=["collie", "dog", "zstd"],
)
async def test_what_was_interrupted_anywhere_and_resumed_is_what_was_not_interrupted(
    run: Run, dialect: Dialect, layers: Layers | None, base: str | None, options: WindowOptions
) -> None:
    whole = await run(dialect=dialect, layers=layers, base=base, options=options)
    expected = take(run.folder)

    for stop_at in range(OBJECTS):
        try:
            await run(stop_at, dialect=dialect, layers=layers, base=base, options=options)
        except Stop:
            summary = await run(dialect=dialect, layers=layers, base=base, options=options, resume=True)
            assert summary.bytes_written == whole.bytes_written
        assert take(run.folder) == expected, stop_at


@pytest.mark.parametrize(("arguments", "objects"), [({}, 2), (COMPRESSED, 4)], ids=["plain", "zstd"])
async def test_what_is_interrupted_again_and_again_comes_to_its_end(
    run: Run, arguments: dict[str, Any], objects: int
) -> None:
    """Compressed it comes nearer to its end only if each run fills a frame."""
    await run(**arguments)
    expected = take(run.folder)

    stops = 0
    while True:
        try:
            await run(objects, resume=True, **arguments)
        except Stop:
            stops += 1
            assert names(run.folder) == KEPT
        else:
            break

    assert stops >= OBJECTS // objects - 1
    assert take(run.folder) == expected


async def test_what_reached_no_checkpoint_leaves_nothing(run: Run) -> None:
    await run.stopped(checkpoint_bytes=1 << 30)

    assert names(run.folder) == []


async def test_what_is_left_is_as_long_as_what_was_read(run: Run) -> None:
    await run.stopped(4, checkpoint_bytes=OBJECT)

    summary = await run(resume=True)

    # The fourth object was written, and made durable on the way out, though the checkpoint before it was the last.
    assert summary.bytes_resumed == 16 + 4 * (16 + OBJECT)


async def test_only_what_is_missing_is_read_again(run: Run) -> None:
    whole = await run()
    take(run.folder)
    await run.stopped(4)

    rest = await run(resume=True)

    assert rest.objects_planned == whole.objects_planned - 4
    assert rest.bytes_read == whole.bytes_read - 4 * OBJECT
    assert (rest.records, rest.bytes_written) == (whole.records, whole.bytes_written)


async def test_resuming_nothing_begins(run: Run) -> None:
    summary = await run(resume=True)

    assert names(run.folder) == ["file", "file.manifest"]
    assert summary.bytes_resumed == 0


async def test_what_is_unfinished_is_in_the_way_of_a_run_that_does_not_go_on(run: Run) -> None:
    await run.stopped()
    before = run.data.read_bytes(), run.manifest.read_bytes()

    with pytest.raises(TargetUnfinished) as caught:
        await run()

    assert caught.value.partial == str(run.data)
    assert caught.value.size == len(before[0])
    assert (run.data.read_bytes(), run.manifest.read_bytes()) == before


async def test_what_is_unfinished_goes_where_it_may_be_replaced(run: Run) -> None:
    await run.stopped()

    summary = await run(replace=True)

    assert names(run.folder) == ["file", "file.manifest"]
    assert summary.bytes_resumed == 0


async def test_a_file_that_is_to_be_replaced_stays_until_the_resumed_one_is_complete(run: Run) -> None:
    await run(snapshot="a")
    old = (run.folder / "file").read_bytes()
    await run.stopped(replace=True)
    assert (run.folder / "file").read_bytes() == old
    with pytest.raises(TargetExists):
        await run(resume=True)

    await run(replace=True, resume=True)

    assert names(run.folder) == ["file", "file.manifest"]
    assert (run.folder / "file").read_bytes() != old


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"snapshot": "a", "base": None}, "snapshot"),
        ({"base": None}, "base"),
        ({"dialect": Dialect.DOG}, "format"),
        ({"vdi": "other"}, "VDI"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_was_begun_otherwise_is_not_gone_on_with(run: Run, asked: dict[str, Any], field: str) -> None:
    await make_disk(run.cluster, "other")
    await run.stopped(base="a")
    before = run.data.read_bytes(), run.manifest.read_bytes()

    with pytest.raises(BegunOtherwise) as caught:
        await run(resume=True, **{"base": "a"} | asked)

    assert caught.value.field == field
    assert str(caught.value.begun) in str(caught.value)
    assert str(caught.value.asked) in str(caught.value)
    assert (run.data.read_bytes(), run.manifest.read_bytes()) == before
    await run(resume=True, base="a")


async def test_another_snapshot_of_the_same_name_is_not_gone_on_with(run: Run) -> None:
    await run.stopped()
    inode = await run.cluster.find_vdi("disk", "b")
    await run.cluster.expect_success(messages.delete_vdi("disk", snapid=inode.snap_id), "deleting b")
    await (await Volume.open(run.cluster, "disk")).write(0, noise(99, OBJECT))
    await run.cluster.create_snapshot("disk", "b")

    with pytest.raises(
        BegunOtherwise, match=r"begun with another snapshot: expected snapshot 3 'b' .*, got snapshot 2 'b'"
    ):
        await run(resume=True)

    assert names(run.folder) == KEPT


async def test_what_has_no_manifest_or_is_a_pipe_or_live_is_not_resumed(run: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(NotResumable, match="it is a pipe"):
        await backup(run.cluster, "disk", tmp_path / "fifo", snapshot="b", resume=True)
    with pytest.raises(ValueError, match="open already"):
        await backup(run.cluster, "disk", NullTarget(), snapshot="b", resume=True)
    with pytest.raises(ValueError, match="expected a snapshot to resume"):
        await backup(run.cluster, "disk", tmp_path / "file", live=True, resume=True)


async def test_nothing_is_kept_of_a_working_vdi(run: Run) -> None:
    await run.stopped(snapshot=None, live=True)

    assert names(run.folder) == []


# What is there is not believed


@pytest.mark.parametrize("place", ["first", "middle", "header", "end"])
async def test_damaged_data_are_written_again(run: Run, place: str) -> None:
    await run()
    expected = take(run.folder)
    await run.stopped(4)
    data = bytearray(run.data.read_bytes())
    at = {"first": 100, "middle": 16 + OBJECT + 1000, "header": 16 + OBJECT + 16, "end": len(data) - 1}[place]
    data[at] ^= 1
    run.data.write_bytes(data)

    summary = await run(resume=True)

    whole = (at - 16) // (16 + OBJECT)
    assert summary.bytes_resumed == 16 + whole * (16 + OBJECT)
    assert take(run.folder) == expected


async def test_damaged_data_before_the_first_record_are_written_again(run: Run) -> None:
    await run(dialect=Dialect.DOG)
    expected = take(run.folder)
    await run.stopped(dialect=Dialect.DOG)
    run.data.write_bytes(b"x" + run.data.read_bytes()[1:])

    await run(resume=True, dialect=Dialect.DOG)

    assert take(run.folder) == expected


@pytest.mark.parametrize("kept", [0, 3, 16, 17, 1000, -1], ids=str)
async def test_data_that_are_cut_off_are_written_again(run: Run, kept: int) -> None:
    await run()
    expected = take(run.folder)
    await run.stopped()
    run.data.write_bytes(run.data.read_bytes()[:kept])

    await run(resume=True)

    assert take(run.folder) == expected


async def test_a_manifest_that_is_cut_off_anywhere_in_its_records_is_gone_on_with(run: Run) -> None:
    await run()
    expected = take(run.folder)
    await run.stopped()
    left = take(run.folder)
    whole = left[KEPT[1]]

    for size in range(whole.index(b"\n") + 1, len(whole), 37):
        (run.folder / KEPT[0]).write_bytes(left[KEPT[0]])
        run.manifest.write_bytes(whole[:size] + b"\0" * (size % 3))
        await run(resume=True)
        assert take(run.folder) == expected, size


@pytest.mark.parametrize("line", [b"", b"{}", b'{"manifest":2', b"\0" * 100 + b"\n"])
async def test_a_manifest_that_does_not_say_what_was_begun_is_told(run: Run, line: bytes) -> None:
    await run.stopped()
    run.manifest.write_bytes(line)

    with pytest.raises(PartialDamaged) as caught:
        await run(resume=True)

    assert caught.value.partial == str(run.manifest)
    assert names(run.folder) == KEPT


async def test_a_line_that_is_written_in_another_way_is_written_again(run: Run) -> None:
    await run()
    expected = take(run.folder)
    await run.stopped()
    run.manifest.write_bytes(run.manifest.read_bytes().replace(b'{"idx":1,', b'{"idx": 1,'))

    summary = await run(resume=True)

    assert summary.bytes_resumed == 16 + 16 + OBJECT
    assert take(run.folder) == expected


async def test_a_snapshot_that_lost_objects_meanwhile_is_told(run: Run) -> None:
    await run.stopped()
    inode = await run.cluster.find_vdi("disk", "b")
    for vdi_id in (inode.vdi_id, (await run.cluster.find_vdi("disk")).vdi_id):
        await run.cluster.write_object(inode_oid(vdi_id), bytes(ENTRY_SIZE), TABLE_OFFSET, copies=1)

    with pytest.raises(SnapshotChanged, match="1 of its objects, which were backed up before, are gone"):
        await run(resume=True)


async def test_nothing_is_kept_of_a_snapshot_that_is_deleted_meanwhile(tmp_path: Path) -> None:
    async with deletable() as (server, cluster):
        await make_disk(cluster)
        inode = await cluster.find_vdi("disk", "b")
        kept: list[list[str]] = []

        def delete() -> None:
            kept.append([name for name in names(tmp_path) if not name.endswith("lock")])
            server.empty(inode, 1)

        server.at_read(4 * PARTS, delete)

        with pytest.raises(SnapshotChanged):
            await Run(cluster, tmp_path)()

    assert kept == [KEPT]
    assert names(tmp_path) == []


# Compressed


async def test_of_what_is_compressed_only_what_fills_no_frame_is_read_again(run: Run) -> None:
    await run.stopped(4, **COMPRESSED)

    summary = await run(resume=True, **COMPRESSED)

    # Of the fourth record the end is in a frame with the fifth.
    assert summary.bytes_resumed == 8 + 3 * (16 + OBJECT)


@pytest.mark.parametrize("place", ["first", "middle", "end"])
async def test_damaged_frames_are_written_again(run: Run, place: str) -> None:
    await run(**COMPRESSED)
    expected = take(run.folder)
    await run.stopped(4, **COMPRESSED)
    data = bytearray(run.data.read_bytes())
    at = {"first": 100, "middle": OBJECT + 1000, "end": len(data) - 1}[place]
    data[at] ^= 1
    run.data.write_bytes(data)

    await run(resume=True, **COMPRESSED)

    assert take(run.folder) == expected


@pytest.mark.parametrize("kept", [0, 3, 17, OBJECT, OBJECT + 1000, -1], ids=str)
async def test_frames_that_are_cut_off_are_written_again(run: Run, kept: int) -> None:
    await run(**COMPRESSED)
    expected = take(run.folder)
    await run.stopped(**COMPRESSED)
    run.data.write_bytes(run.data.read_bytes()[:kept])

    await run(resume=True, **COMPRESSED)

    assert take(run.folder) == expected


async def test_zeros_that_a_power_failure_left_are_written_again(run: Run) -> None:
    await run(**COMPRESSED)
    expected = take(run.folder)
    await run.stopped(**COMPRESSED)
    run.data.write_bytes(bytes(5000))

    await run(resume=True, **COMPRESSED)

    assert take(run.folder) == expected


async def test_what_the_table_of_frames_ends_already_is_gone_on_with(run: Run) -> None:
    await run(**COMPRESSED)
    expected = take(run.folder)
    await run.stopped(**COMPRESSED)
    run.data.write_bytes(expected["file"])
    run.manifest.write_bytes(expected["file.manifest"])

    summary = await run(resume=True, **COMPRESSED)

    assert summary.bytes_resumed > 0
    assert take(run.folder) == expected


async def test_another_level_makes_the_same_backup(run: Run) -> None:
    await run(dialect=Dialect.DOG)
    expected = take(run.folder)
    await run.stopped(**COMPRESSED)

    await run(resume=True, **COMPRESSED | {"layers": Layers(zstd_level=9)})

    assert await read_layered(run.folder / "file") == expected["file"]
    assert (run.folder / "file.manifest").read_bytes() == expected["file.manifest"]


@pytest.mark.parametrize(("begun", "asked"), [(ZSTD, None), (None, ZSTD)], ids=["compressed", "plain"])
async def test_what_was_begun_with_other_compression_is_not_gone_on_with(
    run: Run, begun: Layers | None, asked: Layers | None
) -> None:
    await run.stopped(dialect=Dialect.DOG, layers=begun)
    before = run.data.read_bytes(), run.manifest.read_bytes()

    with pytest.raises(BegunOtherwise) as caught:
        await run(resume=True, dialect=Dialect.DOG, layers=asked)

    assert caught.value.field == "compression"
    assert (run.data.read_bytes(), run.manifest.read_bytes()) == before
    await run(resume=True, dialect=Dialect.DOG, layers=begun)


async def test_frames_of_something_else_are_told(run: Run) -> None:
    """The records are good, and what stands before them is not."""
    await run(dialect=Dialect.DOG)
    content = take(run.folder)["file"]
    await run.stopped(**COMPRESSED)
    run.data.unlink()
    await write_layered(run.data, b"x" + content[1:], ZSTD)

    with pytest.raises(PartialDamaged, match="does not begin as this backup does"):
        await run(resume=True, **COMPRESSED)


async def test_nothing_is_kept_of_what_is_encrypted(run: Run, tmp_path: Path) -> None:
    layers = Layers(zstd_level=1, recipients=(make_key(tmp_path).recipient,))
    await run.stopped(dialect=Dialect.DOG, layers=layers)

    assert names(run.folder) == []
    with pytest.raises(NotResumable, match="encrypted"):
        await run(resume=True, dialect=Dialect.DOG, layers=layers)


# Errors of the disk


async def test_a_full_disk_keeps_what_is_there_and_says_what_is_missing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run()
    expected = take(run.folder)
    room = len(expected["file"]) - 2 * OBJECT - 100

    def write_some(descriptor: int, buffers: list[Any]) -> int:
        left = room - os.fstat(descriptor).st_size
        if left <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return writev(descriptor, [memoryview(buffers[0])[:left]])

    writev = os.writev
    with monkeypatch.context() as patched:
        patched.setattr(os, "writev", write_some)
        with pytest.raises(TargetFull) as caught:
            await run()
    assert names(run.folder) == KEPT
    left = len(expected["file"]) - run.data.stat().st_size

    await run(resume=True)

    assert take(run.folder) == expected
    assert caught.value.needed is not None
    assert caught.value.enough is not None
    assert 0 < caught.value.needed <= left <= caught.value.enough


async def test_a_full_disk_before_the_first_checkpoint_says_what_is_missing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "writev", fail)

    with pytest.raises(TargetFull) as caught:
        await run()

    assert caught.value.needed == 16 + 16 + OBJECT
    assert names(run.folder) == []
