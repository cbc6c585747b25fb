from __future__ import annotations

from pathlib import Path

import pytest

from asyncbackup import (
    ChainOptions,
    Cluster,
    Dialect,
    Volume,
    WindowOptions,
    backup,
    convert,
    convert_to_rbd_diff,
    merge,
)
from asyncbackup.engine.reader import open_backup
from asyncbackup.errors import BaseUnwanted, DigestMismatch, FactMissing, OutsideVdi, TargetExists
from asyncbackup.storage.publication import manifest_path
from tests import rbd_diffs
from tests.chains import SIZE, Files, make_snapshots
from tests.collecting import CollectingTarget
from tests.disks import OBJECT, noise
from tests.folders import left_in
from tests.streams import standard_input


@pytest.mark.parametrize("base", [None, "a"])
async def test_a_converted_backup_is_what_backing_up_in_that_dialect_gives(
    cluster: Cluster, tmp_path: Path, base: str | None
) -> None:
    await make_snapshots(cluster)
    collie, dog = tmp_path / "collie", tmp_path / "dog"
    await backup(cluster, "disk", collie, snapshot="c", base=base)
    await backup(cluster, "disk", dog, snapshot="c", base=base, dialect=Dialect.DOG)

    await convert(collie, tmp_path / "to-dog", dialect=Dialect.DOG)
    await convert(dog, tmp_path / "to-collie")

    for made, expected in ((tmp_path / "to-dog", dog), (tmp_path / "to-collie", collie)):
        assert made.read_bytes() == expected.read_bytes()
        assert manifest_path(made).read_bytes() == manifest_path(expected).read_bytes()


@pytest.mark.slow
async def test_without_a_manifest_there_is_none(files: Files, tmp_path: Path) -> None:
    files.without_manifests()

    summary = await convert(files.a, tmp_path / "dog", dialect=Dialect.DOG)

    assert not summary.has_manifest
    async with open_backup(tmp_path / "dog") as reader:
        assert reader.dialect is Dialect.DOG
        assert reader.subject is None


async def test_a_full_backup_becomes_a_diff_without_a_base(files: Files, tmp_path: Path) -> None:
    summary = await convert_to_rbd_diff(files.a, tmp_path / "diff")

    diff = rbd_diffs.parse((tmp_path / "diff").read_bytes())
    assert (diff.base, diff.snapshot, diff.size) == (None, "a", SIZE)
    assert diff.apply(b"") == files.images["a"]
    assert (summary.ranges, summary.bytes_written) == (len(diff.ranges), (tmp_path / "diff").stat().st_size)


@pytest.mark.parametrize("memory", [1 << 20, 128 << 20], ids=["pieces", "objects"])
async def test_an_increment_becomes_a_diff_between_two_snapshots(files: Files, memory: int) -> None:
    await convert_to_rbd_diff(files.ab, target := CollectingTarget(), options=WindowOptions(memory=memory))

    diff = rbd_diffs.parse(bytes(target.data))
    assert (diff.base, diff.snapshot) == ("a", "b")
    assert diff.apply(files.images["a"]) == files.images["b"]
    assert target.is_complete


async def test_zeros_are_told_not_sent(cluster: Cluster, tmp_path: Path) -> None:
    await make_snapshots(cluster)
    await (await Volume.open(cluster, "disk")).write(3 * OBJECT, bytes(OBJECT))
    await cluster.create_snapshot("disk", "d")
    await backup(cluster, "disk", tmp_path / "cd", snapshot="d", base="c")

    await convert_to_rbd_diff(tmp_path / "cd", target := CollectingTarget())

    assert rbd_diffs.parse(bytes(target.data)).ranges == [("z", 3 * OBJECT, OBJECT)]


async def test_what_lies_beyond_the_end_is_left_out(cluster: Cluster, tmp_path: Path) -> None:
    await cluster.create_vdi("odd", OBJECT + 1536, block_size_shift=20)
    await (await Volume.open(cluster, "odd")).write(0, content := noise(1, 2 * OBJECT))
    await cluster.create_snapshot("odd", "a")
    await backup(cluster, "odd", tmp_path / "a", snapshot="a")

    await convert_to_rbd_diff(tmp_path / "a", target := CollectingTarget())

    assert rbd_diffs.parse(bytes(target.data)).apply(b"") == content[: OBJECT + 1536]


@pytest.mark.parametrize("memory", [1 << 20, 128 << 20], ids=["pieces", "objects"])
async def test_of_a_record_beyond_the_end_there_is_no_range(cluster: Cluster, tmp_path: Path, memory: int) -> None:
    await cluster.create_vdi("odd", OBJECT + 1536, block_size_shift=20)
    await (await Volume.open(cluster, "odd")).write(2 * OBJECT - 512, noise(1, 512))
    await cluster.create_snapshot("odd", "a")
    await backup(cluster, "odd", tmp_path / "a", snapshot="a")

    summary = await convert_to_rbd_diff(
        tmp_path / "a", target := CollectingTarget(), options=WindowOptions(memory=memory)
    )

    diff = rbd_diffs.parse(bytes(target.data))
    assert (diff.ranges, diff.size) == ([], OBJECT + 1536)
    assert (summary.ranges, summary.bytes_written) == (0, len(target.data))


@pytest.mark.parametrize("size", [7 * OBJECT, OBJECT])
async def test_an_object_behind_the_end_is_refused(files: Files, tmp_path: Path, size: int) -> None:
    files.without_manifests()
    options = ChainOptions(Dialect.COLLIE, OBJECT, size)

    with pytest.raises(OutsideVdi) as told:
        await convert_to_rbd_diff(files.bc, tmp_path / "diff", chain_options=options)
    with standard_input(files.bc.read_bytes()), pytest.raises(OutsideVdi):
        await convert_to_rbd_diff("-", target := CollectingTarget(), chain_options=options)

    assert (told.value.idx, told.value.size) == (7, size)
    assert "diff" not in set(left_in(tmp_path))
    assert not target.is_complete


async def test_nothing_is_written_before_all_objects_are_known_to_lie_inside(files: Files) -> None:
    with pytest.raises(OutsideVdi):
        await convert_to_rbd_diff(files.a, target := CollectingTarget(), chain_options=ChainOptions(size=OBJECT))

    assert not target.data


async def test_a_summary_becomes_plain_values(files: Files) -> None:
    fields = (await convert_to_rbd_diff(files.ab, CollectingTarget())).as_dict()

    assert (fields["base"], fields["snapshot"], fields["size"]) == ("a", "b", SIZE)
    assert set(fields) == {"base", "snapshot", "size", "ranges", "bytes_written", "elapsed_s"}


async def test_a_snapshot_without_a_tag_goes_by_its_id(cluster: Cluster, tmp_path: Path) -> None:
    await cluster.create_vdi("disk", OBJECT, block_size_shift=20)
    await cluster.create_snapshot("disk", "")
    await backup(cluster, "disk", tmp_path / "a", snapshot=1)

    assert (await convert_to_rbd_diff(tmp_path / "a", CollectingTarget())).snapshot == "1"


async def test_the_working_vdi_is_no_snapshot(cluster: Cluster, tmp_path: Path) -> None:
    await cluster.create_vdi("disk", OBJECT, block_size_shift=20)
    await backup(cluster, "disk", tmp_path / "live", live=True)

    await convert_to_rbd_diff(tmp_path / "live", target := CollectingTarget())

    assert rbd_diffs.parse(bytes(target.data)).snapshot is None


async def test_names_can_be_given(files: Files) -> None:
    files.without_manifests()

    await convert_to_rbd_diff(
        files.ab,
        target := CollectingTarget(),
        snapshot_name="tuesday",
        base_name="monday",
        chain_options=ChainOptions(None, OBJECT, SIZE),
    )

    diff = rbd_diffs.parse(bytes(target.data))
    assert (diff.base, diff.snapshot) == ("monday", "tuesday")


async def test_a_full_backup_takes_no_name_of_a_base(files: Files) -> None:
    with pytest.raises(BaseUnwanted):
        await convert_to_rbd_diff(files.a, CollectingTarget(), base_name="monday")


async def test_without_a_manifest_the_sizes_have_to_be_told(files: Files) -> None:
    files.without_manifests()

    with pytest.raises(FactMissing, match="how large the objects are"):
        await convert_to_rbd_diff(files.a, CollectingTarget())
    with pytest.raises(FactMissing, match="how large the VDI is"):
        await convert_to_rbd_diff(files.a, CollectingTarget(), chain_options=ChainOptions(None, OBJECT))


async def test_nothing_is_left_of_a_diff_of_changed_data(files: Files, tmp_path: Path) -> None:
    data = bytearray(files.ab.read_bytes())
    data[-1] ^= 1
    files.ab.write_bytes(data)

    with pytest.raises(DigestMismatch):
        await convert_to_rbd_diff(files.ab, tmp_path / "diff")

    assert not any("diff" in name for name in set(left_in(tmp_path)))


async def test_what_is_there_is_replaced_only_where_that_is_said(files: Files, tmp_path: Path) -> None:
    for name in ("merged", "converted", "diff"):
        (tmp_path / name).write_bytes(b"old")

    with pytest.raises(TargetExists):
        await convert(files.a, tmp_path / "converted")
    await merge(files.all, tmp_path / "merged", replace=True)
    await convert(files.a, tmp_path / "converted", replace=True)
    await convert_to_rbd_diff(files.a, tmp_path / "diff", replace=True)

    assert (tmp_path / "converted").read_bytes() == files.a.read_bytes()
    assert all((tmp_path / name).read_bytes() != b"old" for name in ("merged", "diff"))
