"""What a comparison with a cluster tells, and what it refuses before it reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asyncbackup import ChainOptions, Cluster, Dialect, Shard, Volume, backup, compare, restore
from asyncbackup.errors import FileNeeded, HyperVolume, ObjectSizesDiffer
from asyncbackup.format import RecordHeader
from asyncbackup.sheep import Sheep
from asyncbackup.verbs.compare import MAX_DIFFERENCES
from asyncbackup.wire.constants import MAX_DENSE_OBJECTS, SECTOR_SIZE
from tests.disks import OBJECT, OBJECTS, SHIFT, make_disk, noise
from tests.streams import standard_input

WITHOUT_MANIFEST = ChainOptions(Dialect.DOG, OBJECT)


@pytest.fixture
async def full(cluster: Cluster, tmp_path: Path) -> Path:
    """A full backup of a disk's snapshot a."""
    await make_disk(cluster)
    await backup(cluster, "disk", tmp_path / "full", snapshot="a")
    return tmp_path / "full"


@pytest.fixture
def piped(full: Path) -> Iterator[None]:
    """Standard input is a pipe that holds the beginning of a backup."""
    with standard_input(full.read_bytes()[:4096]):
        yield


async def copy_of(cluster: Cluster, snapshot: str, folder: Path) -> str:
    """Make VDI ``copy`` of what a snapshot of the disk holds."""
    await backup(cluster, "disk", folder / snapshot, snapshot=snapshot)
    await restore(cluster, [folder / snapshot], "copy")
    return "copy"


def of_sectors(path: Path, *indices: int) -> Path:
    """Write a backup without a manifest that has the first sector of some objects."""
    data = noise(1, SECTOR_SIZE)
    records = b"".join(RecordHeader(idx, 0, SECTOR_SIZE).encode() + data for idx in indices)
    path.write_bytes(Dialect.DOG.opening + records + Dialect.DOG.ending)
    return path


async def test_what_was_found_is_plain_values_with_a_verdict(cluster: Cluster, full: Path) -> None:
    good = await compare(cluster, [full], "disk", "a")
    bad = await compare(cluster, [full], await copy_of(cluster, "b", full.parent), assume_base=True)

    fields = json.loads(json.dumps(bad.as_dict()))
    assert (fields["good"], fields["vdi"], fields["snapshot"]) == (False, "copy", None)
    assert (fields["differing"], fields["differing_idx"]) == (3, [1, 2, 3])
    assert fields["assumed"].startswith("VDI 'copy' holds what snapshot 1 'a' of VDI 'disk'")
    assert good.as_dict()["good"] is True


async def test_a_vdi_that_says_what_it_was_restored_as_is_compared_without_anybody_who_vouches_for_it(
    cluster: Cluster, full: Path
) -> None:
    same = await compare(cluster, [full], await copy_of(cluster, "a", full.parent))
    await (await Volume.open(cluster, "copy")).write(0, noise(1, SECTOR_SIZE))
    written = await compare(cluster, [full], "copy")

    assert (same.is_good, same.assumed) == (True, None)
    assert (written.is_good, written.differing_idx) == (False, [0])


async def test_a_snapshot_named_by_its_id_is_told_so(cluster: Cluster, full: Path) -> None:
    found = await compare(cluster, [full], "disk", 1)

    assert (found.is_good, found.snapshot, found.assumed) == (True, "a", None)


@pytest.mark.usefixtures("piped")
async def test_a_pipe_is_not_compared(cluster: Cluster, sheep: Sheep) -> None:
    sheep.requests.clear()

    with pytest.raises(FileNeeded, match="is a pipe, and to be compared it has to be read twice"):
        await compare(cluster, ["-"], "disk", "a", chain_options=ChainOptions(Dialect.COLLIE, OBJECT))

    assert not sheep.requests


async def test_a_hyper_volume_is_not_compared(cluster: Cluster, full: Path) -> None:
    await cluster.create_vdi("hyper", OBJECTS * OBJECT, block_size_shift=SHIFT, store_policy=1)

    with pytest.raises(HyperVolume, match="'hyper' is a hyper volume, which cannot be compared"):
        await compare(cluster, [full], "hyper", assume_base=True)


async def test_objects_of_another_size_are_not_compared(cluster: Cluster, full: Path) -> None:
    await cluster.create_vdi("other", OBJECTS * OBJECT, block_size_shift=SHIFT + 1)

    with pytest.raises(ObjectSizesDiffer, match="has objects of 1048576 bytes, and VDI 'other' of 2097152"):
        await compare(cluster, [full], "other", assume_base=True)


async def test_a_backup_of_a_hyper_volume_is_not_compared_with_another_vdi(cluster: Cluster, tmp_path: Path) -> None:
    await cluster.create_vdi("disk", OBJECTS * OBJECT, block_size_shift=SHIFT)
    file = of_sectors(tmp_path / "file", 0, MAX_DENSE_OBJECTS)

    with pytest.raises(HyperVolume, match=r"the VDI of .*/file is a hyper volume, which has object 1048576"):
        await compare(cluster, [file], "disk", chain_options=WITHOUT_MANIFEST)


async def test_the_last_object_that_a_vdi_can_have_is_compared(cluster: Cluster, tmp_path: Path) -> None:
    await cluster.create_vdi("disk", MAX_DENSE_OBJECTS * OBJECT, block_size_shift=SHIFT)
    last = MAX_DENSE_OBJECTS - 1
    await (await Volume.open(cluster, "disk")).write(last * OBJECT, noise(1, SECTOR_SIZE))
    file = of_sectors(tmp_path / "file", 0, last)

    found = await compare(cluster, [file], "disk", chain_options=WITHOUT_MANIFEST)

    assert (found.objects_done, found.differing_idx) == (2, [0])


async def test_differences_beyond_many_are_only_counted(cluster: Cluster, tmp_path: Path) -> None:
    count = MAX_DIFFERENCES + 5
    await cluster.create_vdi("disk", count * OBJECT, block_size_shift=SHIFT)
    file = of_sectors(tmp_path / "file", *range(count))

    found = await compare(cluster, [file], "disk", chain_options=WITHOUT_MANIFEST)

    assert found.differing == found.objects_done == count
    assert found.differing_idx == list(range(MAX_DIFFERENCES))


async def test_progress_comes_to_what_was_planned(cluster: Cluster, full: Path) -> None:
    seen: list[tuple[int, int | None, int]] = []

    found = await compare(
        cluster,
        [full],
        await copy_of(cluster, "b", full.parent),
        assume_base=True,
        sample=1,
        on_progress=lambda now: seen.append((now.objects_done, now.objects_planned, now.bytes_done)),
    )

    # Five objects of the backup, and two that are owned only in the snapshot.
    assert seen[-1] == (7, 7, found.bytes_compared)
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert found.differing_idx == [1, 2, 3, 5, 6]


async def test_a_seed_without_a_sample_to_choose_is_refused(cluster: Cluster, full: Path) -> None:
    with pytest.raises(ValueError, match="expected a sample where there is a seed"):
        await compare(cluster, [full], "disk", "a", seed=1)


@pytest.mark.parametrize("sample", [None, 0.5])
async def test_shares_together_compare_and_audit_what_one_run_does(
    cluster: Cluster, full: Path, sample: float | None
) -> None:
    await backup(cluster, "disk", full.parent / "b", snapshot="b", base="a")
    given: dict[str, Any] = {"sample": sample, "seed": None if sample is None else 7}
    whole = await compare(cluster, [full.parent / "b"], "disk", **given)

    shares = [await compare(cluster, [full.parent / "b"], "disk", shard=Shard(n, 3), **given) for n in (1, 2, 3)]

    for name in (
        "objects_planned",
        "objects_done",
        "bytes_compared",
        "unchanged_audited",
        "partly_changed_audited",
    ):
        assert sum(getattr(share, name) for share in shares) == getattr(whole, name), name


async def test_one_share_names_an_object_that_differs(cluster: Cluster, full: Path) -> None:
    copy = await copy_of(cluster, "b", full.parent)

    shares = [await compare(cluster, [full], copy, assume_base=True, shard=Shard(n, 5)) for n in range(1, 6)]

    assert [idx for share in shares for idx in share.differing_idx] == [1, 2, 3]


async def test_shares_of_a_sample_need_a_seed(cluster: Cluster, full: Path) -> None:
    with pytest.raises(ValueError, match="expected a seed"):
        await compare(cluster, [full], "disk", "a", sample=0.5, shard=Shard(1, 2))
