from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from asyncbackup import ChainOptions, Dialect
from asyncbackup.engine.chain import ChainRecord, Group, open_chain
from asyncbackup.engine.reader import BackupReader, Record
from asyncbackup.errors import BackupDamaged, ChainBroken, ContradictsManifest, FactMissing, ManifestMissing
from asyncbackup.format import RecordHeader
from asyncbackup.format.identity import Identity
from asyncbackup.format.manifest import Subject
from asyncbackup.storage import FileSource
from asyncbackup.storage.publication import manifest_path
from tests.chains import SIZE, Files, declare
from tests.disks import OBJECT
from tests.streams import standard_input


def identity_of(file: Path) -> Identity:
    """Read which snapshot ``file`` is of."""
    subject = Subject.decode(manifest_path(file).read_bytes().splitlines(keepends=True)[0])
    return subject.identity


def group(*ranges: tuple[int, int]) -> Group:
    """Make a group of records from ``start`` to ``end`` each, oldest first."""
    return Group(
        0,
        tuple(
            ChainRecord(BackupReader(FileSource(f"file-{place}")), Record(RecordHeader(0, start, end - start), 0, None))
            for place, (start, end) in enumerate(ranges)
        ),
    )


# What files have of an object


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([(1024, 2048)], [(1024, 2048)]),
        ([(0, 9216)], [(1024, 4096)]),
        ([(0, 1024)], []),
        ([(4096, 5120)], []),
        ([(0, 512), (1536, 2048)], [(1536, 2048)]),
        ([(1024, 2048), (4608, 5120)], [(1024, 2048)]),
        ([(3072, 4096), (1024, 1536)], [(1024, 1536), (3072, 4096)]),
        ([(1024, 2048), (2048, 3072)], [(1024, 3072)]),
        ([(1024, 3072), (1536, 2048)], [(1024, 3072)]),
        ([(512, 2048), (1536, 9216)], [(1024, 4096)]),
    ],
)
def test_what_parts_cover_of_a_range_is_told_in_order_and_apart(
    ranges: list[tuple[int, int]], expected: list[tuple[int, int]]
) -> None:
    assert group(*ranges).covered(1024, 4096) == expected


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([(1024, 4096)], None),
        ([(2048, 9216), (0, 2048)], None),
        ([(2048, 4096)], (1024, 2048)),
        ([(1024, 2048)], (2048, 4096)),
        ([(1024, 2048), (3072, 4096)], (2048, 3072)),
        ([(4608, 5120)], (1024, 4096)),
        ([(0, 512)], (1024, 4096)),
    ],
)
def test_the_first_gap_between_parts_is_found(ranges: list[tuple[int, int]], expected: tuple[int, int] | None) -> None:
    assert group(*ranges).first_gap(1024, 4096) == expected


def test_of_an_object_that_is_whole_all_is_wanted_and_of_another_what_records_cover() -> None:
    partly = group((1024, 2048), (3072, 9216))

    assert partly.wanted(1536, 4096) == [(1536, 2048), (3072, 4096)]
    assert partly._replace(whole=16384).wanted(1536, 4096) == [(1536, 4096)]
    assert (partly.start, partly.end) == (1024, 9216)
    assert (partly._replace(whole=16384).start, partly._replace(whole=16384).end) == (0, 16384)


async def test_objects_come_in_order_with_what_each_file_has_of_them(files: Files) -> None:
    async with open_chain(files.all) as chain:
        found = {group.idx: [Path(each.reader.name).name for each in group.records] async for group in chain.groups()}

    assert list(found) == sorted(found)
    assert found == {
        0: ["a"],
        1: ["a", "ab", "bc"],
        2: ["a", "ab"],
        3: ["a", "ab"],
        4: ["a"],
        5: ["ab"],
        6: ["ab"],
        7: ["bc"],
    }


async def test_objects_that_were_cut_off_in_between_are_gone_until_they_are_written_anew(files: Files) -> None:
    declare(files.ab, size=2 * OBJECT)
    declare(files.bc, base_size=2 * OBJECT)

    async with open_chain(files.all) as chain:
        found = {group.idx: [Path(each.reader.name).name for each in group.records] async for group in chain.groups()}

    assert found == {0: ["a"], 1: ["a", "ab", "bc"], 7: ["bc"]}


async def test_objects_of_a_pipe_that_were_cut_off_later_are_read_and_left_out(files: Files) -> None:
    declare(files.ab, size=2 * OBJECT)
    declare(files.bc, base_size=2 * OBJECT)

    with standard_input(files.a):
        options = ChainOptions(manifests=[manifest_path(files.a), manifest_path(files.ab)])
        async with open_chain(["-", files.ab], options) as chain:
            found = []
            async for group in chain.groups():
                found.append(group.idx)
                await chain.readers[0].skip_data(group.records[0].record)
            trailing = await chain.readers[0].count_trailing()

    assert found == [0, 1]
    assert trailing == 0


# What follows what


async def test_files_of_two_object_sizes_are_no_chain(files: Files) -> None:
    declare(files.ab, object_size=2 * OBJECT)

    with pytest.raises(ChainBroken, match=r"expected backups of one object size, got \d+, \d+ bytes"):
        async with open_chain([files.a, files.ab]):
            pytest.fail("opened")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ChainOptions(object_size=2 * OBJECT),
            f"its manifest says how large the objects are: expected {OBJECT}, got {2 * OBJECT}",
        ),
        (ChainOptions(dialect=Dialect.DOG), "its manifest says which format the backup has: expected collie, got dog"),
    ],
)
async def test_options_that_a_manifest_contradicts_are_refused(
    files: Files, options: ChainOptions, message: str
) -> None:
    with pytest.raises(ContradictsManifest, match=message):
        async with open_chain([files.a], options):
            pytest.fail("opened")


async def test_backups_of_two_object_sizes_are_no_chain(files: Files) -> None:
    declare(files.ab, object_size=2 * OBJECT)

    with pytest.raises(ChainBroken, match=r"expected backups of one object size"):
        async with open_chain([files.a, files.ab]):
            pytest.fail("opened")


async def test_files_of_two_vdis_do_not_follow_one_another(files: Files) -> None:
    other = replace(identity_of(files.a), vdi="other")
    declare(files.ab, identity=replace(identity_of(files.ab), vdi="other"), base_identity=other)

    with pytest.raises(ChainBroken, match=r"/ab is of VDI 'other', but .*/a of 'disk'"):
        async with open_chain([files.a, files.ab]):
            pytest.fail("opened")


async def test_a_full_backup_follows_nothing(files: Files) -> None:
    with pytest.raises(ChainBroken, match=r"/a is a full backup, so it follows nothing, but it stands behind .*/a$"):
        async with open_chain([files.a, files.a]):
            pytest.fail("opened")


async def test_an_increment_follows_the_snapshot_that_it_is_the_difference_to(files: Files) -> None:
    with pytest.raises(
        ChainBroken, match=r"/bc is the difference to snapshot 2 'b' .* but .*/a before it is of snapshot 1 'a'"
    ):
        async with open_chain([files.a, files.bc]):
            pytest.fail("opened")


@pytest.mark.parametrize(
    "change",
    [
        {"created": "2026-11-22T20:00:00.000000001Z"},
        {"cluster": "2026-11-22T20:00:00.000000001Z"},
        {"vdi_id": "abcdef"},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_a_snapshot_of_the_same_id_and_tag_that_was_taken_anew_is_another(
    files: Files, change: dict[str, Any]
) -> None:
    again = replace(identity_of(files.a), **change)
    declare(files.ab, identity=replace(identity_of(files.ab), cluster=again.cluster), base_identity=again)

    with pytest.raises(ChainBroken) as caught:
        async with open_chain([files.a, files.ab]):
            pytest.fail("opened")

    assert f"is the difference to {again}, but " in str(caught.value)
    assert f"before it is of {identity_of(files.a)}" in str(caught.value)


async def test_a_tag_that_was_changed_since_makes_no_other_snapshot(files: Files) -> None:
    declare(files.ab, base_identity=replace(identity_of(files.a), tag="renamed"))

    async with open_chain([files.a, files.ab]) as chain:
        assert len(chain.readers) == 2


async def test_files_that_say_two_sizes_of_one_snapshot_are_no_chain(files: Files) -> None:
    declare(files.ab, base_size=SIZE - 512)

    with pytest.raises(ChainBroken, match=rf"says that .* has {SIZE - 512} bytes, but .*/a before it says {SIZE}"):
        async with open_chain([files.a, files.ab]):
            pytest.fail("opened")


@pytest.mark.parametrize("missing", [0, 1, 2])
async def test_a_file_without_a_manifest_is_no_part_of_a_chain(files: Files, missing: int) -> None:
    manifest_path(files.all[missing]).unlink()

    with pytest.raises(ManifestMissing, match=f"^{files.all[missing]}: it has no manifest") as caught:
        async with open_chain(files.all):
            pytest.fail("opened")

    assert caught.value.source == str(files.all[missing])


async def test_a_file_without_a_manifest_is_taken_alone(files: Files) -> None:
    manifest_path(files.a).unlink()

    async with open_chain([files.a]) as chain:
        assert chain.is_full is None


async def test_who_vouches_for_it_has_a_file_without_a_manifest_follow_anything(files: Files) -> None:
    manifest_path(files.ab).unlink()

    async with open_chain([files.a, files.ab, files.bc, files.ab], assume_base=True) as chain:
        assert [reader.subject is None for reader in chain.readers] == [False, True, False, True]


async def test_nobody_vouches_for_what_manifests_rule_out(files: Files) -> None:
    with pytest.raises(ChainBroken, match="is the difference to"):
        async with open_chain([files.a, files.bc], assume_base=True):
            pytest.fail("opened")


async def test_manifests_that_stand_elsewhere_are_named_in_the_order_of_the_files(files: Files, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    manifests = [manifest_path(file).rename(tmp_path / "elsewhere" / file.name) for file in files.all]

    async with open_chain(files.all, ChainOptions(manifests=manifests)) as chain:
        assert all(reader.subject for reader in chain.readers)
    with pytest.raises(BackupDamaged, match="it is of another backup"):
        async with open_chain([files.a], ChainOptions(manifests=manifests[1:2])) as chain:
            _ = [group async for group in chain.groups()]


@pytest.mark.parametrize("count", [1, 2, 4])
async def test_there_is_a_manifest_for_each_file_or_none(files: Files, count: int) -> None:
    manifests = [manifest_path(files.a)] * count

    with pytest.raises(ValueError, match=f"expected a manifest for each of 3 backups, or none, got {count}"):
        async with open_chain(files.all, ChainOptions(manifests=manifests)):
            pytest.fail("opened")


# What a chain knows


async def test_the_newest_manifest_tells_what_a_chain_is_of(files: Files) -> None:
    manifest_path(files.bc).unlink()

    async with open_chain(files.all, assume_base=True) as chain:
        assert chain.subject is not None
        assert chain.subject.identity.tag == "b"
        assert (chain.is_full, chain.base, chain.object_size) == (True, None, OBJECT)


async def test_without_manifests_nothing_is_known_but_what_is_told(files: Files) -> None:
    files.without_manifests()

    async with open_chain(files.all, assume_base=True) as chain:
        assert (chain.subject, chain.is_full, chain.base, chain.spans(), chain.loses_base) == (
            None,
            None,
            None,
            None,
            False,
        )
        with pytest.raises(FactMissing, match="no manifest says how large the objects are"):
            _ = chain.object_size
        with pytest.raises(FactMissing, match="no manifest says how large the VDI is"):
            _ = chain.size
    async with open_chain(files.all, ChainOptions(None, OBJECT, SIZE), assume_base=True) as chain:
        assert (chain.object_size, chain.size) == (OBJECT, SIZE)


async def test_a_chain_spans_what_the_vdi_had_at_all_times(files: Files) -> None:
    declare(files.ab, size=2 * OBJECT + 512)
    declare(files.bc, base_size=2 * OBJECT + 512)

    async with open_chain(files.all) as chain:
        assert [chain.spans(first) for first in range(4)] == [3, 3, 8, None]


@pytest.mark.parametrize(("size", "loses"), [(SIZE - OBJECT, True), (SIZE - OBJECT + 512, False), (SIZE, False)])
async def test_a_vdi_that_was_smaller_in_between_loses_objects_of_the_base(
    files: Files, size: int, *, loses: bool
) -> None:
    declare(files.ab, size=size)
    declare(files.bc, base_size=size)

    async with open_chain([files.ab, files.bc]) as chain:
        assert chain.loses_base is loses
