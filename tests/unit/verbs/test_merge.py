from __future__ import annotations

import os
from pathlib import Path

import pytest
import xxhash

from asyncbackup import (
    ChainOptions,
    Cluster,
    Dialect,
    Progress,
    Volume,
    WindowOptions,
    backup,
    export,
    merge,
)
from asyncbackup.engine.opening import BaseSnapshot
from asyncbackup.engine.reader import open_backup
from asyncbackup.errors import (
    BaseMismatch,
    BaseNeeded,
    BaseUnwanted,
    ChainBroken,
    DigestMismatch,
    NotMergeable,
    ObjectSizesDiffer,
    PatchNeeded,
    SourceUnreadable,
    TargetExists,
    WrongSnapshot,
)
from asyncbackup.format.manifest import RecordDigests
from asyncbackup.storage.publication import manifest_path
from asyncbackup.wire.oid import inode_oid
from tests.chains import SIZE, Files, make_snapshots, say_what_it_is
from tests.collecting import CollectingTarget
from tests.damage import flip
from tests.disks import OBJECT, make_disk, noise
from tests.property import reference

SIZE_OFFSET = 536
"""Where in an inode the VDI's size stands."""


def records(path: Path, dialect: Dialect = Dialect.COLLIE) -> list[reference.Record]:
    return reference.parse(path.read_bytes(), dialect.value, OBJECT)


def applied(image: bytes, changes: list[reference.Record]) -> bytes:
    content = {idx: image[idx * OBJECT : (idx + 1) * OBJECT] for idx in range(SIZE // OBJECT)}
    changed = reference.apply(content, changes, OBJECT)
    return b"".join(changed[idx] for idx in sorted(changed))


def xxh3(data: bytes) -> str:
    return xxhash.xxh3_128(data).hexdigest()


@pytest.mark.parametrize("memory", [1 << 20, 128 << 20], ids=["pieces", "objects"])
async def test_a_merged_chain_does_what_the_chain_does(files: Files, tmp_path: Path, memory: int) -> None:
    summary = await merge(files.all, tmp_path / "merged", options=WindowOptions(memory=memory))

    merged = records(tmp_path / "merged")
    assert applied(bytes(SIZE), merged) == files.images["c"]
    assert (summary.files, summary.records, summary.has_manifest) == (3, len(merged), True)
    assert summary.bytes_written == (tmp_path / "merged").stat().st_size


async def test_a_full_backup_needs_no_base_for_what_lies_between(files: Files, tmp_path: Path) -> None:
    await merge([files.a, files.ab, files.bc], tmp_path / "merged")

    (last,) = [record for record in records(tmp_path / "merged") if record.idx == 1]
    assert (last.offset, len(last.data)) == (0, OBJECT)


async def test_increments_with_a_gap_say_that_they_need_the_base(files: Files, tmp_path: Path) -> None:
    with pytest.raises(BaseNeeded, match=r"object 1 lacks 7680 bytes at 512") as caught:
        await merge([files.ab, files.bc], tmp_path / "merged")

    assert (caught.value.idx, caught.value.offset, caught.value.length) == (1, 512, 7680)
    assert not (tmp_path / "merged").exists()
    assert not manifest_path(tmp_path / "merged").exists()


@pytest.mark.parametrize("memory", [1 << 20, 128 << 20], ids=["pieces", "objects"])
async def test_an_image_of_the_base_fills_the_gap(files: Files, tmp_path: Path, memory: int) -> None:
    base = files.image("a")

    await merge([files.ab, files.bc], tmp_path / "merged", base=base, options=WindowOptions(memory=memory))

    merged = records(tmp_path / "merged")
    assert applied(files.images["a"], merged) == files.images["c"]
    assert [(record.idx, record.offset, len(record.data)) for record in merged if record.idx == 1] == [(1, 0, 8704)]


async def test_a_snapshot_in_the_cluster_fills_the_gap(cluster: Cluster, tmp_path: Path) -> None:
    await make_snapshots(cluster)
    await backup(cluster, "disk", tmp_path / "ab", snapshot="b", base="a")
    await backup(cluster, "disk", tmp_path / "bc", snapshot="c", base="b")
    await backup(cluster, "disk", tmp_path / "ac", snapshot="c", base="a")

    await merge([tmp_path / "ab", tmp_path / "bc"], tmp_path / "merged", base=BaseSnapshot(cluster, "a"))

    assert (tmp_path / "merged").read_bytes() == (tmp_path / "ac").read_bytes()
    assert manifest_path(tmp_path / "merged").read_bytes() == manifest_path(tmp_path / "ac").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("memory", [1 << 20, 128 << 20], ids=["pieces", "objects"])
@pytest.mark.parametrize("base", ["image", "snapshot"])
async def test_what_is_merged_in_pieces_is_proven_as_if_it_had_been_backed_up(
    cluster: Cluster, tmp_path: Path, base: str, memory: int
) -> None:
    await make_snapshots(cluster)
    volume = await Volume.open(cluster, "disk")
    await volume.write(2 * OBJECT - 512, noise(31, 512))
    await volume.write(2 * OBJECT, noise(32, 512))
    await cluster.create_snapshot("disk", "d")
    for file, older, newer in (("ab", "a", "b"), ("bd", "b", "d"), ("ad", "a", "d")):
        await backup(cluster, "disk", tmp_path / file, snapshot=newer, base=older)
    await backup(cluster, "disk", tmp_path / "a", snapshot="a")
    await export([tmp_path / "a"], tmp_path / "image")
    bases: dict[str, Path | BaseSnapshot] = {"image": tmp_path / "image", "snapshot": BaseSnapshot(cluster, "a")}

    await merge(
        [tmp_path / "ab", tmp_path / "bd"],
        tmp_path / "merged",
        base=bases[base],
        options=WindowOptions(memory=memory),
    )

    assert (tmp_path / "merged").read_bytes() == (tmp_path / "ad").read_bytes()
    assert manifest_path(tmp_path / "merged").read_bytes() == manifest_path(tmp_path / "ad").read_bytes()


async def test_a_summary_becomes_plain_values(files: Files, tmp_path: Path) -> None:
    fields = (await merge(files.all, tmp_path / "merged")).as_dict()

    assert (fields["files"], fields["dialect"], fields["has_manifest"]) == (3, "collie", True)


async def test_a_wrong_base_is_refused(files: Files, tmp_path: Path) -> None:
    with pytest.raises(WrongSnapshot):
        await merge([files.ab, files.bc], tmp_path / "merged", base=files.image("c"))


async def test_what_an_assumed_base_holds_is_checked(files: Files, tmp_path: Path) -> None:
    base = files.image("c", has_state=False)

    with pytest.raises(BaseMismatch):
        await merge([files.ab, files.bc], tmp_path / "merged", base=base, assume_base=True)


@pytest.mark.parametrize("memory", [1 << 20, 128 << 20], ids=["pieces", "objects"])
async def test_what_came_from_an_assumed_base_is_marked_for_good(files: Files, tmp_path: Path, memory: int) -> None:
    base, options = files.image("a", has_state=False), WindowOptions(memory=memory)
    # Object 1 was changed at 0 and at 8192: nothing says what the base has between.
    flip(base, OBJECT + 4096)

    summary = await merge([files.ab, files.bc], tmp_path / "merged", base=base, assume_base=True, options=options)
    await merge([files.a, tmp_path / "merged"], tmp_path / "whole", options=options)

    assert summary.assumed is not None
    # Object 3, say, is in one file alone, which proves it; object 1 took bytes of the base.
    found = {record.header.idx: record for record in await digests(tmp_path / "merged")}
    assert [idx for idx, record in found.items() if record.assumed] == [1]
    assert found[1].base is None
    assert found[3].base is not None
    assert [record.header.idx for record in await digests(tmp_path / "whole") if record.assumed] == [1]


async def test_a_merge_on_a_base_that_is_proved_marks_nothing(files: Files, tmp_path: Path) -> None:
    summary = await merge([files.ab, files.bc], tmp_path / "merged", base=files.image("a"))

    assert summary.assumed is None
    assert all(record.base and not record.assumed for record in await digests(tmp_path / "merged"))


async def test_an_image_that_was_made_on_an_assumed_base_marks_what_it_gives(files: Files, tmp_path: Path) -> None:
    base = files.image("a")
    say_what_it_is(base, files.identities["a"], assumed=True)

    summary = await merge([files.ab, files.bc], tmp_path / "merged", base=base)

    assert summary.assumed is not None
    assert [record.header.idx for record in await digests(tmp_path / "merged") if record.assumed] == [1]


async def test_a_base_that_is_written_meanwhile_is_told(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = files.image("a")

    def write(progress: Progress) -> None:
        if not progress.is_checking:
            os.utime(base, ns=(0, 1))

    with pytest.raises(SourceUnreadable, match="somebody wrote to it"):
        await merge([files.ab, files.bc], tmp_path / "merged", base=base, on_progress=write)

    assert not (tmp_path / "merged").exists()


async def digests(file: Path) -> list[RecordDigests]:
    async with open_backup(file) as reader:
        return [record.digests async for record in reader.records() if record.digests]


async def test_a_base_of_other_objects_is_refused(cluster: Cluster, files: Files, tmp_path: Path) -> None:
    await make_disk(cluster, shift=21)
    base = BaseSnapshot(cluster, "a", "disk")
    files.without_manifests()
    options = ChainOptions(Dialect.COLLIE, OBJECT)

    with pytest.raises(ObjectSizesDiffer, match="objects of 1048576 bytes, and VDI 'disk' snapshot 1 of 2097152"):
        await merge([files.ab], tmp_path / "merged", base=base, assume_base=True, chain_options=options)


async def test_a_full_backup_goes_on_no_base(files: Files, tmp_path: Path) -> None:
    with pytest.raises(BaseUnwanted, match="full backup"):
        await merge(files.all, tmp_path / "merged", base=files.image("a"))


async def test_the_newest_of_overlapping_ranges_wins(files: Files, tmp_path: Path) -> None:
    await merge([files.a, files.ab], tmp_path / "merged")

    changed = {record.idx: record for record in records(files.ab)}
    merged = {record.idx: record for record in records(tmp_path / "merged")}
    assert merged[3].data == changed[3].data
    assert merged[1].data[:512] == noise(11, 512)
    assert merged[1].data[512:] == noise(1, OBJECT)[512:]


async def test_the_manifest_is_of_the_newest_snapshot_and_the_oldest_base(files: Files, tmp_path: Path) -> None:
    await merge([files.ab, files.bc], tmp_path / "merged", base=files.image("a"))

    async with open_backup(tmp_path / "merged") as reader, open_backup(files.ab) as first:
        assert reader.subject is not None
        assert first.subject is not None
        assert reader.subject.identity.tag == "c"
        assert reader.subject.base_identity == first.subject.base_identity
        assert reader.subject.base_size == SIZE
        for record in [found async for found in reader.records()]:
            (data,) = [each.data for each in records(tmp_path / "merged") if each.idx == record.header.idx]
            start = record.header.idx * OBJECT + record.header.offset
            assert record.digests is not None
            assert record.digests.data == xxh3(data)
            assert record.digests.base == xxh3(files.images["a"][start : start + len(data)])


async def test_what_a_merge_cannot_know_of_the_base_it_leaves_open(cluster: Cluster, tmp_path: Path) -> None:
    await make_disk(cluster)
    await backup(cluster, "disk", tmp_path / "ab", snapshot="b", base="a")
    await backup(cluster, "disk", tmp_path / "ba", snapshot="a", base="b")

    await merge([tmp_path / "ab", tmp_path / "ba"], tmp_path / "merged")

    async with open_backup(tmp_path / "merged") as reader:
        found = [record async for record in reader.records()]
    assert found
    assert all(record.digests and record.digests.base is None for record in found)


async def test_without_all_manifests_there_is_none(files: Files, tmp_path: Path) -> None:
    manifest_path(files.ab).unlink()

    summary = await merge(files.all, tmp_path / "merged", assume_base=True)

    assert not summary.has_manifest
    assert not manifest_path(tmp_path / "merged").exists()
    assert applied(bytes(SIZE), records(tmp_path / "merged")) == files.images["c"]


async def test_files_without_manifests_merge_without_being_told_sizes(files: Files, tmp_path: Path) -> None:
    files.without_manifests()

    await merge([files.a, files.ab], tmp_path / "merged", assume_base=True)

    assert applied(bytes(SIZE), records(tmp_path / "merged")) == files.images["b"]


async def test_an_empty_file_is_the_base_of_a_full_backup_without_a_manifest(files: Files, tmp_path: Path) -> None:
    files.without_manifests()
    (tmp_path / "empty").touch()

    options = ChainOptions(None, OBJECT)
    await merge(files.all, tmp_path / "merged", base=tmp_path / "empty", assume_base=True, chain_options=options)

    assert applied(bytes(SIZE), records(tmp_path / "merged")) == files.images["c"]


async def test_a_pipe_gets_a_dog_backup(files: Files, tmp_path: Path) -> None:
    await merge(files.all, target := CollectingTarget(), dialect=Dialect.DOG)
    (tmp_path / "piped").write_bytes(target.data)

    assert applied(bytes(SIZE), records(tmp_path / "piped", Dialect.DOG)) == files.images["c"]


async def test_a_pipe_gets_no_collie_backup(files: Files) -> None:
    with pytest.raises(PatchNeeded, match="needs a plain file"):
        await merge(files.all, CollectingTarget())


async def test_increments_over_a_time_when_the_vdi_was_smaller_are_kept_apart(cluster: Cluster, tmp_path: Path) -> None:
    await cluster.create_vdi("disk", OBJECT, block_size_shift=20)
    await cluster.create_snapshot("disk", "a")
    grown = (await cluster.find_vdi("disk")).vdi_id
    await cluster.write_object(inode_oid(grown), (3 * OBJECT).to_bytes(8, "little"), SIZE_OFFSET, copies=1)
    await (await Volume.open(cluster, "disk")).write(2 * OBJECT, noise(1, 512))
    await cluster.create_snapshot("disk", "b")
    await backup(cluster, "disk", tmp_path / "ba", snapshot="a", base="b")
    await backup(cluster, "disk", tmp_path / "ab", snapshot="b", base="a")

    with pytest.raises(NotMergeable, match=r"the VDI was smaller between .* and .*, which cut off"):
        await merge([tmp_path / "ba", tmp_path / "ab"], tmp_path / "merged")

    assert not (tmp_path / "merged").exists()


async def test_files_that_do_not_follow_one_another_are_refused(files: Files, tmp_path: Path) -> None:
    with pytest.raises(ChainBroken):
        await merge([files.bc, files.ab], tmp_path / "merged")


async def test_changed_data_is_not_merged(files: Files, tmp_path: Path) -> None:
    data = bytearray(files.ab.read_bytes())
    data[-1] ^= 1
    files.ab.write_bytes(data)

    with pytest.raises(DigestMismatch):
        await merge(files.all, tmp_path / "merged")

    assert not (tmp_path / "merged").exists()


async def test_a_file_of_this_name_stays(files: Files) -> None:
    with pytest.raises(TargetExists):
        await merge(files.all, files.a)
