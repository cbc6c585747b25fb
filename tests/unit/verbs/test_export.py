from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
import xxhash

from asyncbackup import (
    AsyncBackupError,
    ChainOptions,
    Cluster,
    Dialect,
    NullTarget,
    Progress,
    Volume,
    WindowOptions,
    backup,
    export,
    merge,
)
from asyncbackup.engine.opening import BaseSnapshot
from asyncbackup.errors import (
    AlreadyApplied,
    BackupDamaged,
    BaseMismatch,
    BaseUnnamed,
    BaseUnproved,
    BaseUnwanted,
    ChainBroken,
    DigestMismatch,
    FactMissing,
    FileNeeded,
    HalfRolled,
    OtherImage,
    OutsideVdi,
    PartlyApplied,
    ResizeUnproved,
    SourceMissing,
    SourceUnreadable,
    TargetBusy,
    TargetExists,
    TargetWriteFailed,
    WrongSnapshot,
)
from asyncbackup.format import RecordHeader
from asyncbackup.format.image import OldMarker
from asyncbackup.storage.image import marker_path, read_state, state_path
from asyncbackup.storage.publication import manifest_path
from asyncbackup.wire.oid import data_oid, inode_oid
from tests.chains import SIZE, Files, say_what_it_is
from tests.collecting import CollectingTarget
from tests.damage import flip
from tests.disks import OBJECT, noise
from tests.folders import left_in
from tests.streams import standard_input

SIZE_OFFSET = 536
"""Where in an inode the VDI's size stands."""


# New images


async def test_a_chain_exports_to_its_newest_snapshot(files: Files, tmp_path: Path) -> None:
    summary = await export(files.all, tmp_path / "image")

    assert (tmp_path / "image").read_bytes() == files.images["c"]
    assert (summary.files, summary.size, summary.in_place, summary.checked) == (3, SIZE, False, True)
    assert summary.objects_done == 8


async def test_what_was_never_written_is_a_hole(cluster: Cluster, tmp_path: Path) -> None:
    await cluster.create_vdi("sparse", 1 << 30, block_size_shift=20)
    await (await Volume.open(cluster, "sparse")).write(600 * OBJECT, noise(1, 4096))
    await cluster.create_snapshot("sparse", "a")
    await backup(cluster, "sparse", tmp_path / "a", snapshot="a")

    await export([tmp_path / "a"], tmp_path / "image")

    status = (tmp_path / "image").stat()
    assert status.st_size == 1 << 30
    assert status.st_blocks * 512 <= 64 << 10


async def test_the_image_ends_where_the_vdi_ends(cluster: Cluster, tmp_path: Path) -> None:
    await cluster.create_vdi("odd", 2 * OBJECT - 1536, block_size_shift=20)
    await (await Volume.open(cluster, "odd")).write(0, content := noise(1, 2 * OBJECT))
    await cluster.create_snapshot("odd", "a")
    await backup(cluster, "odd", tmp_path / "a", snapshot="a")

    await export([tmp_path / "a"], tmp_path / "image")
    await export([tmp_path / "a"], piped := CollectingTarget())

    assert (tmp_path / "image").read_bytes() == content[: 2 * OBJECT - 1536]
    assert piped.data == content[: 2 * OBJECT - 1536]


async def test_a_record_beyond_the_end_of_the_vdi_is_left_out(cluster: Cluster, tmp_path: Path) -> None:
    await cluster.create_vdi("odd", 2 * OBJECT - 1536, block_size_shift=20)
    await (await Volume.open(cluster, "odd")).write(2 * OBJECT - 512, noise(1, 512))
    await cluster.create_snapshot("odd", "a")
    await backup(cluster, "odd", tmp_path / "a", snapshot="a")

    written = await export([tmp_path / "a"], tmp_path / "image")
    await export([tmp_path / "a"], piped := CollectingTarget())

    assert (written.objects_done, written.bytes_written) == (1, 0)
    assert (tmp_path / "image").read_bytes() == bytes(2 * OBJECT - 1536)
    assert piped.data == bytes(2 * OBJECT - 1536)


async def test_a_summary_becomes_plain_values(files: Files, tmp_path: Path) -> None:
    fields = (await export(files.all, tmp_path / "image")).as_dict()

    assert (fields["files"], fields["size"], fields["in_place"], fields["checked"]) == (3, SIZE, False, True)


async def test_an_image_of_this_name_stays(files: Files, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"mine")

    with pytest.raises(TargetExists):
        await export(files.all, tmp_path / "image")

    assert (tmp_path / "image").read_bytes() == b"mine"


async def test_replace_puts_the_new_image_in_its_place(files: Files, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"mine")

    await export(files.all, tmp_path / "image", replace=True)

    assert (tmp_path / "image").read_bytes() == files.images["c"]


async def test_a_target_that_is_open_already_replaces_nothing(files: Files) -> None:
    with pytest.raises(ValueError, match="expected a path to replace, got a target that is open already"):
        await export(files.all, CollectingTarget(), replace=True)


async def test_progress_goes_from_nothing_to_all(files: Files, tmp_path: Path) -> None:
    seen: list[Progress] = []

    await export(files.all, tmp_path / "image", on_progress=seen.append, options=WindowOptions(workers=1))

    checked, *written = seen
    assert checked == Progress(0, None, 0, is_checking=True)
    done = [progress.objects_done for progress in written]
    assert done == sorted(set(done))
    assert (done[0], done[-1]) == (1, 8)
    assert {(progress.objects_planned, progress.is_checking) for progress in written} == {(8, False)}


async def test_progress_of_a_roll_tells_checking_from_writing(files: Files, tmp_path: Path) -> None:
    await export(files.all[:1], tmp_path / "image")
    seen: list[Progress] = []

    summary = await export(
        files.all[1:],
        tmp_path / "image",
        base=tmp_path / "image",
        on_progress=seen.append,
        options=WindowOptions(workers=1),
    )

    phases = [list(found) for _, found in itertools.groupby(seen[1:], lambda progress: progress.is_checking)]
    assert [phase[0].is_checking for phase in phases] == [True, False]
    for phase in phases:
        done = [progress.objects_done for progress in phase]
        assert done == sorted(set(done))
        assert done[-1] == phase[0].objects_planned
        assert phase[0].bytes_done <= phase[-1].bytes_done
    assert phases[0][-1].bytes_done > 0
    assert phases[1][-1].bytes_done == summary.bytes_written


async def test_files_without_manifests_need_to_be_told_what_they_are(files: Files, tmp_path: Path) -> None:
    files.without_manifests()

    with pytest.raises(FactMissing):
        await export(files.all, tmp_path / "image", assume_base=True)
    told = ChainOptions(None, OBJECT, SIZE)
    summary = await export(files.all, tmp_path / "image", chain_options=told, assume_base=True)

    assert (tmp_path / "image").read_bytes() == files.images["c"]
    assert not summary.checked


async def test_a_size_that_objects_lie_beyond_is_refused(files: Files, tmp_path: Path) -> None:
    files.without_manifests()

    with pytest.raises(OutsideVdi, match="object 7, which does not lie within 1048576 bytes"):
        await export(files.all, tmp_path / "image", chain_options=ChainOptions(None, OBJECT, OBJECT), assume_base=True)

    assert "image" not in set(left_in(tmp_path))


def of_one_record(path: Path, idx: int, offset: int, data: bytes) -> Path:
    """Write a backup without a manifest, as dog does."""
    path.write_bytes(Dialect.DOG.opening + RecordHeader(idx, offset, len(data)).encode() + data + Dialect.DOG.ending)
    return path


async def test_an_object_just_behind_the_end_is_refused(tmp_path: Path) -> None:
    file = of_one_record(tmp_path / "file", 2, 0, noise(1, 512))
    just = ChainOptions(Dialect.DOG, OBJECT, 2 * OBJECT)
    enough = ChainOptions(Dialect.DOG, OBJECT, 2 * OBJECT + 512)

    with pytest.raises(OutsideVdi) as told:
        await export([file], tmp_path / "image", chain_options=just)
    await export([file], tmp_path / "large", chain_options=enough)

    assert (told.value.idx, told.value.size) == (2, 2 * OBJECT)
    assert "image" not in set(left_in(tmp_path))
    assert (tmp_path / "large").read_bytes() == bytes(2 * OBJECT) + noise(1, 512)


async def test_an_object_just_behind_the_end_is_refused_before_an_image_is_changed(tmp_path: Path) -> None:
    file = of_one_record(tmp_path / "file", 2, 0, noise(1, 512))
    (image := tmp_path / "standby").write_bytes(bytes(2 * OBJECT))
    options = ChainOptions(Dialect.DOG, OBJECT, 2 * OBJECT)

    with pytest.raises(OutsideVdi):
        await export([file], image, base=image, assume_base=True, chain_options=options)

    assert set(left_in(tmp_path)) == {"file", "standby"}
    assert image.read_bytes() == bytes(2 * OBJECT)


@pytest.mark.parametrize("size", [2 * OBJECT, 2 * OBJECT - 512, OBJECT])
async def test_an_object_behind_the_end_that_comes_from_a_pipe_is_refused(tmp_path: Path, size: int) -> None:
    content = of_one_record(tmp_path / "file", 2, 0, noise(1, 512)).read_bytes()
    options = ChainOptions(Dialect.DOG, OBJECT, size)

    with standard_input(content), pytest.raises(OutsideVdi):
        await export(["-"], tmp_path / "image", chain_options=options)
    with standard_input(content), pytest.raises(OutsideVdi):
        await export(["-"], target := CollectingTarget(), chain_options=options)

    assert "image" not in set(left_in(tmp_path))
    assert not target.is_complete


@pytest.mark.parametrize("offset", [0, 1024, 1536, 2048], ids=["across", "to", "behind", "far behind"])
async def test_what_the_last_object_has_behind_the_end_is_cut_off(tmp_path: Path, offset: int) -> None:
    size = OBJECT + 1536
    file = of_one_record(tmp_path / "file", 1, offset, data := noise(1, 2048))
    options = ChainOptions(Dialect.DOG, OBJECT, size)

    await export([file], tmp_path / "image", chain_options=options)
    await export([file], target := CollectingTarget(), chain_options=options)

    wanted = (bytes(OBJECT + offset) + data)[:size].ljust(size, b"\0")
    assert (tmp_path / "image").read_bytes() == target.data == wanted


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda file: flip(file, 5000), DigestMismatch),
        (lambda file: os.truncate(file, file.stat().st_size - 1), BackupDamaged),
        (lambda file: flip(file, 0), BackupDamaged),
        (lambda file: flip(manifest_path(file), 200), BackupDamaged),
        (lambda file: file.unlink(), SourceMissing),
    ],
    ids=["data", "end", "header", "manifest", "missing"],
)
async def test_nothing_is_left_of_an_export_of_what_is_damaged(
    files: Files, tmp_path: Path, spoil: object, error: type[AsyncBackupError]
) -> None:
    assert callable(spoil)
    spoil(files.a)
    before = set(left_in(tmp_path))

    with pytest.raises(error):
        await export(files.all, tmp_path / "image")

    assert set(left_in(tmp_path)) == before


async def test_increments_alone_need_an_image_of_their_base(files: Files, tmp_path: Path) -> None:
    with pytest.raises(BaseUnnamed, match="is the difference to snapshot 1 'a'"):
        await export([files.ab], tmp_path / "image")


async def test_increments_go_on_an_image_of_their_base(files: Files, tmp_path: Path) -> None:
    base = files.image("a")

    await export([files.ab, files.bc], tmp_path / "image", base=base)

    assert (tmp_path / "image").read_bytes() == files.images["c"]
    assert base.read_bytes() == files.images["a"]


async def test_holes_of_the_base_stay_holes(files: Files, tmp_path: Path) -> None:
    await export([files.a], base := tmp_path / "base")

    await export([files.ab], tmp_path / "image", base=base)

    assert (tmp_path / "image").read_bytes() == files.images["b"]
    assert (tmp_path / "image").stat().st_blocks * 512 <= 6 * OBJECT


async def test_a_wrong_base_is_refused(files: Files, tmp_path: Path) -> None:
    base = files.image("c")

    with pytest.raises(WrongSnapshot, match=r"image-c is not what .* is the difference to"):
        await export([files.ab], tmp_path / "image", base=base)

    assert "image" not in set(left_in(tmp_path))


async def test_what_an_assumed_base_holds_is_checked(files: Files, tmp_path: Path) -> None:
    base = files.image("c", has_state=False)

    with pytest.raises(BaseMismatch, match="image-c does not hold at object"):
        await export([files.ab], tmp_path / "image", base=base, assume_base=True)

    assert "image" not in set(left_in(tmp_path))


async def test_a_base_that_is_written_meanwhile_is_told(files: Files, tmp_path: Path) -> None:
    base = files.image("a")

    def write(progress: Progress) -> None:
        if not progress.is_checking:
            os.utime(base, ns=(0, 1))

    with pytest.raises(SourceUnreadable, match="somebody wrote to it"):
        await export([files.ab], tmp_path / "image", base=base, on_progress=write)
    with pytest.raises(SourceUnreadable, match="somebody wrote to it"):
        await export([files.ab], target := CollectingTarget(), base=files.image("a"), on_progress=write)

    assert "image" not in set(left_in(tmp_path))
    assert not target.is_complete


@pytest.mark.parametrize("memory", [1 << 20, 128 << 20], ids=["pieces", "objects"])
async def test_increments_go_on_a_snapshot_in_a_cluster(cluster: Cluster, tmp_path: Path, memory: int) -> None:
    images = await make_grown(cluster, tmp_path)
    base, options = BaseSnapshot(cluster, "a"), WindowOptions(memory=memory)

    summary = await export([tmp_path / "ab"], tmp_path / "image", base=base, options=options)
    await export([tmp_path / "ab"], piped := CollectingTarget(), base=base, options=options)

    assert (tmp_path / "image").read_bytes() == piped.data == images["b"]
    assert (summary.in_place, summary.assumed, summary.size) == (False, None, len(images["b"]))
    assert (tmp_path / "image").stat().st_blocks * 512 <= 2 * OBJECT + (64 << 10)


async def test_a_full_backup_goes_on_no_base(files: Files, tmp_path: Path) -> None:
    with pytest.raises(BaseUnwanted, match="full backup"):
        await export(files.all, tmp_path / "image", base=files.image("a"))


async def test_files_in_another_order_are_refused(files: Files, tmp_path: Path) -> None:
    with pytest.raises(ChainBroken):
        await export([files.a, files.bc], tmp_path / "image")


async def make_detour(cluster: Cluster, folder: Path) -> tuple[list[Path], bytes, bytes]:
    """Make increments from snapshot b back to a, when the VDI had one object, and on to c; what b and c hold."""
    await cluster.create_vdi("disk", OBJECT, block_size_shift=20)
    await (await Volume.open(cluster, "disk")).write(0, first := noise(1, OBJECT))
    await cluster.create_snapshot("disk", "a")
    grown = (await cluster.find_vdi("disk")).vdi_id
    await cluster.write_object(inode_oid(grown), (3 * OBJECT).to_bytes(8, "little"), SIZE_OFFSET, copies=1)
    await (await Volume.open(cluster, "disk")).write(OBJECT, rest := noise(2, 2 * OBJECT))
    await cluster.create_snapshot("disk", "b")
    await (await Volume.open(cluster, "disk")).write(
        OBJECT, changed := bytes(OBJECT) + noise(3, 512).rjust(OBJECT, b"\0")
    )
    await cluster.create_snapshot("disk", "c")
    await backup(cluster, "disk", folder / "ba", snapshot="a", base="b")
    await backup(cluster, "disk", folder / "ac", snapshot="c", base="a")
    return [folder / "ba", folder / "ac"], first + rest, first + changed


@pytest.mark.parametrize("memory", [1 << 20, 128 << 20], ids=["pieces", "objects"])
async def test_what_the_base_had_is_gone_where_the_vdi_was_smaller_in_between(
    cluster: Cluster, tmp_path: Path, memory: int
) -> None:
    chain, before, after = await make_detour(cluster, tmp_path)
    options = WindowOptions(memory=memory)
    (tmp_path / "base").write_bytes(before)
    say_what_it_is(tmp_path / "base", await cluster.identify(await cluster.find_vdi("disk", "b")))

    await export(chain, tmp_path / "image", base=tmp_path / "base", options=options)
    await export(chain, piped := CollectingTarget(), base=tmp_path / "base", options=options)
    await export(chain, tmp_path / "base", base=tmp_path / "base", options=options)

    for made in ((tmp_path / "image").read_bytes(), piped.data, (tmp_path / "base").read_bytes()):
        assert made == after


# Pipes


async def test_a_pipe_gets_the_bytes_in_order(files: Files) -> None:
    await export(files.all, target := CollectingTarget(), options=WindowOptions(memory=1 << 20))

    assert target.data == files.images["c"]
    assert target.is_complete


async def test_a_pipe_gets_what_the_base_has_between(files: Files) -> None:
    await export([files.bc], target := CollectingTarget(), base=files.image("b"))

    assert target.data == files.images["c"]


async def test_an_empty_disk_of_a_terabyte_is_zeros_to_a_pipe_too(cluster: Cluster, tmp_path: Path) -> None:
    await cluster.create_vdi("empty", 3 * (4 << 20) + 512)
    await cluster.create_snapshot("empty", "a")
    await backup(cluster, "empty", tmp_path / "a", snapshot="a")

    summary = await export([tmp_path / "a"], target := NullTarget())

    assert target.bytes_written == summary.bytes_written == 3 * (4 << 20) + 512


# In place


async def test_an_image_is_rolled_forward_in_place(files: Files) -> None:
    image = files.image("a", "standby")
    inode = image.stat().st_ino

    first = await export([files.ab], image, base=image)
    second = await export([files.bc], image, base=image)

    assert image.read_bytes() == files.images["c"]
    assert image.stat().st_ino == inode
    assert first.in_place
    assert second.in_place
    assert (first.objects_done, second.objects_done) == (5, 2)
    assert not image.with_name("standby.rolling").exists()


async def test_only_what_the_backup_has_is_written(files: Files) -> None:
    image = files.image("a", "standby")

    summary = await export([files.ab, files.bc], image, base=image)

    records = [512, 3 * 512, OBJECT, 512, 512]
    assert summary.bytes_written == sum(records) + 512 + 1024


async def test_an_image_reached_by_another_name_is_rolled_in_place(files: Files, tmp_path: Path) -> None:
    image = files.image("a", "standby")
    link = tmp_path / "link"
    link.symlink_to(image)

    assert (await export([files.ab], link, base=image)).in_place
    assert link.is_symlink()
    assert image.read_bytes() == files.images["b"]


async def make_grown(cluster: Cluster, folder: Path) -> dict[str, bytes]:
    """Make a full backup of snapshot a, the increment to b, when the VDI was longer, and that back; what both hold."""
    await cluster.create_vdi("disk", OBJECT, block_size_shift=20)
    await (await Volume.open(cluster, "disk")).write(0, old := noise(1, OBJECT))
    await cluster.create_snapshot("disk", "a")
    grown = (await cluster.find_vdi("disk")).vdi_id
    await cluster.write_object(inode_oid(grown), (3 * OBJECT - 512).to_bytes(8, "little"), SIZE_OFFSET, copies=1)
    await (await Volume.open(cluster, "disk")).write(2 * OBJECT, new := noise(2, 512))
    await cluster.create_snapshot("disk", "b")
    await backup(cluster, "disk", folder / "a", snapshot="a")
    await backup(cluster, "disk", folder / "ab", snapshot="b", base="a")
    await backup(cluster, "disk", folder / "ba", snapshot="a", base="b")
    return {"a": old, "b": old + bytes(OBJECT) + new + bytes(OBJECT - 1024)}


async def test_an_image_of_a_vdi_that_grew_grows(cluster: Cluster, tmp_path: Path) -> None:
    images = await make_grown(cluster, tmp_path)
    await export([tmp_path / "a"], image := tmp_path / "standby")

    await export([tmp_path / "ab"], image, base=image)

    assert image.read_bytes() == images["b"]


async def test_an_image_of_a_vdi_that_shrank_is_cut_where_it_is_proved(cluster: Cluster, tmp_path: Path) -> None:
    images = await make_grown(cluster, tmp_path)
    await export([tmp_path / "a", tmp_path / "ab"], image := tmp_path / "standby")

    await export([tmp_path / "ba"], image, base=image)

    assert image.read_bytes() == images["a"]


async def test_an_image_that_is_only_assumed_is_never_cut(cluster: Cluster, tmp_path: Path) -> None:
    images = await make_grown(cluster, tmp_path)
    (image := tmp_path / "standby").write_bytes(images["b"])

    with pytest.raises(ResizeUnproved, match=f"has {len(images['b'])} bytes and would become {OBJECT}, but it is"):
        await export([tmp_path / "ba"], image, base=image, assume_base=True)

    assert image.read_bytes() == images["b"]


@pytest.mark.parametrize("memory", [1 << 20, 128 << 20], ids=["pieces", "objects"])
async def test_nothing_is_written_into_a_wrong_image(files: Files, memory: int) -> None:
    image = files.image("a", "standby")
    flip(image, 3 * OBJECT)
    before = image.read_bytes()

    with pytest.raises(BaseMismatch, match="object 3"):
        await export([files.ab], image, base=image, assume_base=True, options=WindowOptions(memory=memory))

    assert image.read_bytes() == before
    assert not image.with_name("standby.rolling").exists()


async def test_nothing_is_written_of_a_damaged_backup(files: Files) -> None:
    image = files.image("a", "standby")
    flip(files.ab, files.ab.stat().st_size - 1)

    with pytest.raises(DigestMismatch):
        await export([files.ab], image, base=image)

    assert image.read_bytes() == files.images["a"]


async def test_an_image_that_was_rolled_already_is_left_as_it_is(files: Files) -> None:
    image = files.image("b", "standby")
    time = image.stat().st_mtime_ns

    with pytest.raises(AlreadyApplied) as told:
        await export([files.ab], image, base=image)

    assert told.value.identity == files.identities["b"]
    assert image.read_bytes() == files.images["b"]
    assert image.stat().st_mtime_ns == time


async def test_backups_that_an_image_has_already_are_to_be_left_out(files: Files, tmp_path: Path) -> None:
    image = files.image("b", "standby")

    for target in (image, tmp_path / "new"):
        with pytest.raises(PartlyApplied, match=r"holds snapshot 2 .*, to which .*/ab leads") as told:
            await export([files.ab, files.bc], target, base=image)
        assert told.value.applied == (str(files.ab),)

    assert image.read_bytes() == files.images["b"]
    await export([files.bc], image, base=image)
    assert image.read_bytes() == files.images["c"]


async def test_rolling_without_a_manifest_has_to_be_asked_for(files: Files) -> None:
    image = files.image("a", "standby")
    manifest_path(files.ab).unlink()
    options = ChainOptions(None, OBJECT, SIZE)

    with pytest.raises(BaseUnproved, match="ab has no manifest"):
        await export([files.ab], image, base=image, chain_options=options)
    summary = await export([files.ab], image, base=image, chain_options=options, assume_base=True)

    assert image.read_bytes() == files.images["b"]
    assert summary.assumed is not None
    assert not state_path(image).exists()


async def test_a_merged_increment_rolls_an_image(files: Files, tmp_path: Path) -> None:
    image = files.image("a", "standby")
    await merge([files.ab, files.bc], tmp_path / "merged", base=image)

    await export([tmp_path / "merged"], image, base=image)

    assert image.read_bytes() == files.images["c"]


async def interrupt(files: Files, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Roll ``image`` half-way."""
    writes = []
    pwrite = os.pwrite

    def fail_later(descriptor: int, data: bytes, offset: int) -> int:
        writes.append(offset)
        if len(writes) == 3:
            pwrite(descriptor, b"torn", offset)
            raise OSError(5, "Input/output error")
        return pwrite(descriptor, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail_later)
        with pytest.raises(HalfRolled, match=r"standby: is half rolled: .*Input/output error") as told:
            await export([files.ab, files.bc], image, base=image, options=WindowOptions(workers=1))
    assert isinstance(told.value.cause, TargetWriteFailed)


async def test_an_interrupted_roll_is_finished_by_the_same_call(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    image = files.image("a", "standby")
    await interrupt(files, image, monkeypatch)
    assert image.read_bytes() not in files.images.values()

    await export([files.ab, files.bc], image, base=image)

    assert image.read_bytes() == files.images["c"]
    assert not image.with_name("standby.rolling").exists()


async def test_an_interrupted_roll_is_not_finished_by_another_chain(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = files.image("a", "standby")
    await interrupt(files, image, monkeypatch)
    before = image.read_bytes()

    with pytest.raises(HalfRolled, match=r"standby: is half rolled"):
        await export([files.ab], image, base=image)

    assert image.read_bytes() == before
    assert image.with_name("standby.rolling").exists()


async def test_a_half_rolled_image_is_no_base(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = files.image("a", "standby")
    await interrupt(files, image, monkeypatch)

    with pytest.raises(HalfRolled):
        await export([files.bc], tmp_path / "other", base=image)
    with pytest.raises(HalfRolled):
        await export([files.bc], CollectingTarget(), base=image)


async def test_a_half_rolled_image_is_replaced_with_its_marker_and_state(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = files.image("a", "standby")
    await interrupt(files, image, monkeypatch)

    with pytest.raises(TargetExists):
        await export(files.all, image)
    await export(files.all, image, replace=True)

    assert image.read_bytes() == files.images["c"]
    assert not image.with_name("standby.rolling").exists()


def mark_as_of_old(files: Files, image: Path, *chain: Path) -> None:
    """Write the marker that the version before wrote."""
    digests = tuple(xxhash.xxh3_128_hexdigest(manifest_path(file).read_bytes()) for file in chain)
    marker_path(image).write_bytes(OldMarker(digests).encode())


@pytest.mark.parametrize("memory", [1 << 20, 128 << 20], ids=["pieces", "objects"])
async def test_a_roll_that_the_version_before_began_is_finished_where_digests_prove_the_image(
    files: Files, memory: int
) -> None:
    image = files.image("a", "standby", has_state=False)
    # Objects 1 and 3 are done, the others are not begun.
    with image.open("r+b") as file:
        for idx in (1, 3):
            file.seek(idx * OBJECT)
            file.write(files.images["c"][idx * OBJECT : (idx + 1) * OBJECT])
    mark_as_of_old(files, image, files.ab, files.bc)

    summary = await export([files.ab, files.bc], image, base=image, options=WindowOptions(memory=memory))

    assert image.read_bytes() == files.images["c"]
    assert summary.assumed is None
    assert not marker_path(image).exists()
    state = await read_state(image)
    assert state is not None
    assert state.identity == files.identities["c"]


@pytest.mark.parametrize("memory", [1 << 20, 128 << 20], ids=["pieces", "objects"])
@pytest.mark.parametrize("assume_base", [False, True])
async def test_a_roll_that_the_version_before_began_is_not_finished_on_what_nothing_proves(
    files: Files, memory: int, *, assume_base: bool
) -> None:
    image = files.image("a", "standby", has_state=False)
    flip(image, 3 * OBJECT + 5)
    mark_as_of_old(files, image, files.ab, files.bc)
    before, marker = image.read_bytes(), marker_path(image).read_bytes()

    with pytest.raises(OtherImage, match="nothing proves that it is the one that was being rolled"):
        await export(
            [files.ab, files.bc], image, base=image, assume_base=assume_base, options=WindowOptions(memory=memory)
        )

    assert image.read_bytes() == before
    assert marker_path(image).read_bytes() == marker


async def test_a_roll_of_old_is_finished_where_the_last_object_ends_behind_the_image(
    cluster: Cluster, tmp_path: Path
) -> None:
    # The object goes on where the VDI ends, and so does its record; what was applied ends with the image.
    await cluster.create_vdi("disk", size := 2 * OBJECT - 1024, block_size_shift=20)
    await cluster.create_snapshot("disk", "a")
    working = (await cluster.find_vdi("disk")).vdi_id
    await (await Volume.open(cluster, "disk")).write(OBJECT, noise(1, 512))
    await cluster.write_object(data_oid(working, 1), noise(2, 2048), OBJECT - 2048, copies=1)
    await cluster.create_snapshot("disk", "b")
    await backup(cluster, "disk", tmp_path / "ab", snapshot="b", base="a")
    await backup(cluster, "disk", tmp_path / "b", snapshot="b")
    await export([tmp_path / "b"], image := tmp_path / "standby")
    wanted = image.read_bytes()
    state_path(image).unlink()
    marker_path(image).write_bytes(
        OldMarker((xxhash.xxh3_128_hexdigest(manifest_path(tmp_path / "ab").read_bytes()),)).encode()
    )

    await export([tmp_path / "ab"], image, base=image)

    assert image.read_bytes() == wanted
    assert len(wanted) == size
    assert not marker_path(image).exists()


async def test_a_roll_that_the_version_before_began_is_not_finished_on_an_image_of_another_size(files: Files) -> None:
    image = files.image("a", "standby", has_state=False)
    os.truncate(image, SIZE - 512)
    mark_as_of_old(files, image, files.ab)

    with pytest.raises(OtherImage):
        await export([files.ab], image, base=image)

    assert image.stat().st_size == SIZE - 512


async def test_a_roll_that_the_version_before_began_is_not_finished_by_files_without_digests(files: Files) -> None:
    image = files.image("a", "standby", has_state=False)
    manifest_path(files.ab).unlink()
    marker_path(image).write_bytes(OldMarker((xxhash.xxh3_128_hexdigest(files.ab.read_bytes()),)).encode())

    with pytest.raises(OtherImage):
        await export([files.ab], image, base=image, assume_base=True, chain_options=ChainOptions(None, OBJECT, SIZE))


async def test_two_do_not_roll_one_image_at_a_time(files: Files) -> None:
    from asyncbackup.storage import StandingImage

    image = files.image("a", "standby")
    async with StandingImage(image):
        with pytest.raises(TargetBusy, match="is writing it"):
            await export([files.ab], image, base=image)


async def test_a_pipe_is_not_rolled_into_an_image(files: Files) -> None:
    image = files.image("a", "standby")
    options = ChainOptions(Dialect.COLLIE, OBJECT, SIZE)
    with (
        standard_input(files.ab.read_bytes()[:4096]),
        pytest.raises(FileNeeded, match="is a pipe, and to be applied"),
    ):
        await export(["-"], image, base=image, assume_base=True, chain_options=options)
