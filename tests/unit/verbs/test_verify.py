"""What verify finds, and what it admits not to know."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from asyncbackup import (
    ChainOptions,
    ClientOptions,
    Cluster,
    Dialect,
    Volume,
    backup,
    compare,
    connect,
    info,
    restore,
    verify,
)
from asyncbackup.engine.progress import Progress
from asyncbackup.errors import AsyncBackupError, BackupDamaged, FactMissing, SourceMissing, WrongSnapshot
from asyncbackup.format import RecordHeader
from asyncbackup.format.manifest import ManifestEncoder, RecordDigests, Subject
from asyncbackup.sheep import MemoryStore, Sheep
from asyncbackup.storage.publication import manifest_path
from asyncbackup.verbs.verify import MAX_PROBLEMS, Problems, VerifyReport
from asyncbackup.wire.constants import SECTOR_SIZE
from tests.damage import flip
from tests.disks import OBJECT, OBJECTS, SHIFT, make_disk, noise
from tests.streams import standard_input


@pytest.fixture
async def files(cluster: Cluster, tmp_path: Path) -> list[Path]:
    """A full backup and its increment."""
    await make_disk(cluster)
    made = [tmp_path / "full", tmp_path / "increment"]
    await backup(cluster, "disk", made[0], snapshot="a")
    await backup(cluster, "disk", made[1], snapshot="b", base="a")
    return made


async def test_a_good_chain_is_proven(files: list[Path]) -> None:
    report = await verify(files)

    assert report.is_good
    assert [(file.records, file.has_manifest, file.trailing_bytes) for file in report.files] == [
        (5, True, 0),
        (5, True, 0),
    ]
    assert report.unproven_links == 0


# What is proved


def proved_of(report: VerifyReport) -> tuple[bool, list[bool]]:
    told = json.loads(json.dumps(report.as_dict()))
    return told["proved"], [file["proved"] for file in told["files"]]


async def test_manifests_prove_data_and_links(files: list[Path]) -> None:
    assert proved_of(await verify(files)) == (True, [True, True])


@pytest.mark.parametrize("missing", [0, 1])
async def test_a_file_without_a_manifest_is_not_proved_and_no_failure(files: list[Path], missing: int) -> None:
    manifest_path(files[missing]).unlink()

    report = await verify(files)

    assert report.is_good
    assert proved_of(report) == (False, [missing == 1, missing == 0])


async def test_a_manifest_can_be_required(files: list[Path]) -> None:
    assert (await verify(files, require_manifest=True)).is_good
    manifest_path(files[1]).unlink()

    report = await verify(files, require_manifest=True)

    assert not report.is_good
    assert [file.problems.messages for file in report.files] == [
        [],
        [f"{files[1]}: it has no manifest, so nothing proves what it is a backup of and what it follows"],
    ]


async def test_damage_is_not_told_twice_where_a_manifest_is_required(files: list[Path]) -> None:
    manifest_path(files[0]).write_bytes(b"no manifest\n")

    report = await verify(files[:1], require_manifest=True)

    assert report.files[0].problems.count == 1
    assert proved_of(report) == (False, [False])


async def test_what_is_damaged_or_broken_is_not_proved(files: list[Path]) -> None:
    assert proved_of(await verify([files[0], files[0]])) == (False, [True, True])
    flip(files[0], 100)
    assert proved_of(await verify(files)) == (False, [False, True])


async def test_records_of_an_assumed_base_are_counted_and_not_proved(files: list[Path]) -> None:
    path = manifest_path(files[1])
    lines = path.read_bytes().splitlines(keepends=True)
    encoder = ManifestEncoder()
    encoder.opening(Subject.decode(lines[0]))
    records = [RecordDigests.decode(line)._replace(assumed=place < 2) for place, line in enumerate(lines[1:-1])]
    again = [lines[0], *map(encoder.record, records), encoder.ending(files[1].stat().st_size)]
    path.write_bytes(b"".join(again))

    report = await verify(files)

    assert report.is_good
    assert [file.assumed for file in report.files] == [0, 2]
    assert proved_of(report) == (False, [True, False])


async def test_manifests_that_stand_elsewhere_prove_as_well(files: list[Path], tmp_path: Path) -> None:
    manifests = [manifest_path(file).rename(tmp_path / f"proof-of-{file.name}") for file in files]

    report = await verify(files, chain_options=ChainOptions(manifests=manifests))

    assert proved_of(report) == (True, [True, True])


async def test_a_damaged_manifest_that_stands_elsewhere_is_a_problem_of_its_file(
    files: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").write_bytes(b"no manifest\n")

    report = await verify(files[:1], chain_options=ChainOptions(manifests=[tmp_path / "elsewhere"]))

    assert report.files[0].problems.messages == [
        f"{tmp_path / 'elsewhere'}: at offset 0: line 1: expected JSON: Expecting value at column 1"
    ]
    assert report.files[0].records == 5


async def test_what_is_piped_is_proved(files: list[Path]) -> None:
    options = ChainOptions(manifests=[manifest_path(files[0])])
    with standard_input(files[0]):
        assert proved_of(await verify(["-"], chain_options=options)) == (True, [True])
    flip(files[0], 16 + 16 + 1000)
    flip(files[0], 16 + 4 * (16 + OBJECT) + 16 + OBJECT - 1)

    with standard_input(files[0]):
        report = await verify(["-"], chain_options=options)

    assert [
        f"the data of object {idx} was changed" in message
        for idx, message in zip((0, 4), report.files[0].problems.messages, strict=True)
    ] == [True, True]


async def test_there_is_a_manifest_for_each_file_or_none(files: list[Path]) -> None:
    with pytest.raises(ValueError, match="expected a manifest for each of 2 backups, or none, got 1"):
        await verify(files, chain_options=ChainOptions(manifests=[manifest_path(files[0])]))


async def test_all_changed_objects_are_named(files: list[Path]) -> None:
    for record in range(3):
        flip(files[0], 16 + record * (16 + OBJECT) + 16 + 1000)

    report = await verify(files)

    assert not report.is_good
    (damaged, good) = report.files
    assert damaged.problems.count == 3
    assert [f"the data of object {idx} was changed" in damaged.problems.messages[idx] for idx in range(3)] == [True] * 3
    assert not good.problems.count


async def test_what_stands_before_damage_is_proven_nevertheless(files: list[Path]) -> None:
    flip(files[0], 16 + 16 + 7)
    files[0].write_bytes(files[0].read_bytes()[:-1])

    (report, _) = (await verify(files)).files

    assert report.records == 4
    assert sorted("ends here" in message for message in report.problems.messages) == [False, True]


async def test_without_a_manifest_only_the_structure_is_proven(files: list[Path]) -> None:
    manifest_path(files[0]).unlink()
    flip(files[0], 100)

    report = await verify(files)

    assert report.is_good
    assert [file.has_manifest for file in report.files] == [False, True]
    assert report.unproven_links == 1


async def test_a_damaged_manifest_is_a_problem_and_the_file_is_read_on(files: list[Path]) -> None:
    flip(manifest_path(files[0]), 200)

    (report, _) = (await verify(files)).files

    assert report.problems.count == 1
    assert "full.manifest: at offset" in report.problems.messages[0]
    assert (report.records, report.has_manifest) == (5, False)


async def test_files_in_the_wrong_order_break_the_chain(files: list[Path]) -> None:
    report = await verify(files[::-1])

    assert not report.is_good
    assert report.links.count == 1
    assert not any(file.problems.count for file in report.files)


@pytest.mark.parametrize("dialect", list(Dialect))
async def test_trailing_bytes_are_told(cluster: Cluster, tmp_path: Path, dialect: Dialect) -> None:
    await make_disk(cluster)
    file = tmp_path / "file"
    await backup(cluster, "disk", file, snapshot="a", dialect=dialect)
    with file.open("ab") as more:
        more.write(b"something")

    (report,) = (await verify([file])).files

    assert (report.trailing_bytes, report.problems.count) == (9, 0)


async def test_a_count_that_may_be_too_low_is_a_problem_where_no_manifest_says_otherwise(files: list[Path]) -> None:
    flip(files[0], 8, 5 ^ 4)
    assert (await verify(files[:1])).files[0].problems.count == 1
    manifest_path(files[0]).unlink()

    (report,) = (await verify(files[:1])).files

    assert "is the count in the header too low" in report.problems.messages[0]


async def test_a_missing_file_is_no_verdict(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing):
        await verify([tmp_path / "none"])


async def test_what_is_no_backup_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"something else altogether")

    (report,) = (await verify([tmp_path / "file"])).files

    assert (report.dialect, report.problems.count) == (None, 1)


async def test_progress_comes_to_the_end(files: list[Path]) -> None:
    seen: list[tuple[int, int | None]] = []

    def note(progress: Progress) -> None:
        seen.append((progress.objects_done, (progress.bytes_planned or 0) - progress.bytes_done))

    await verify(files, on_progress=note)

    assert seen[-1] == (10, 0)


async def test_a_report_is_plain_values_with_a_verdict(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"something else altogether")
    good, bad = await verify(files), await verify([*files, tmp_path / "other"])

    assert good.as_dict()["good"] is True
    fields = json.loads(json.dumps(bad.as_dict()))
    assert (fields["good"], fields["unproven_links"], fields["links"]) == (False, 1, {"messages": [], "count": 0})
    assert [(file["dialect"], file["problems"]["count"]) for file in fields["files"]] == [
        ("collie", 0),
        ("collie", 0),
        (None, 1),
    ]


async def test_a_damaged_manifest_of_a_damaged_file_makes_two_problems(files: list[Path]) -> None:
    flip(manifest_path(files[0]), 200)
    files[0].write_bytes(b"something else altogether")

    (report, _) = (await verify(files)).files

    assert ["full.manifest: " in message for message in report.problems.messages] == [True, False]
    assert (report.dialect, report.records, report.has_manifest) == (None, 0, False)


async def test_objects_of_all_batches_are_proven(cluster: Cluster, tmp_path: Path) -> None:
    file, count = tmp_path / "file", 18
    await cluster.create_vdi("disk", count * OBJECT, block_size_shift=SHIFT)
    await (await Volume.open(cluster, "disk")).write(0, noise(1, count * OBJECT))
    await cluster.create_snapshot("disk", "a")
    await backup(cluster, "disk", file, snapshot="a")
    for record in (0, 15, 16, 17):
        flip(file, 16 + record * (16 + OBJECT) + 16)

    (report,) = (await verify([file])).files

    assert (report.records, report.data_bytes) == (count, count * OBJECT)
    assert [message.partition("the data of object ")[2].split()[0] for message in report.problems.messages] == [
        "0",
        "15",
        "16",
        "17",
    ]


@pytest.mark.parametrize("count", [512, 1000])
async def test_progress_is_told_while_a_file_of_many_records_is_read(tmp_path: Path, count: int) -> None:
    seen: list[int] = []
    records = b"".join(RecordHeader(idx, 0, SECTOR_SIZE).encode() + bytes(SECTOR_SIZE) for idx in range(count))
    (tmp_path / "file").write_bytes(Dialect.DOG.opening + records + Dialect.DOG.ending)

    report = await verify([tmp_path / "file"], on_progress=lambda progress: seen.append(progress.objects_done))

    assert (report.is_good, report.files[0].records) == (True, count)
    assert len(seen) > 1
    assert (seen, seen[-1]) == (sorted(seen), count)


@pytest.fixture
async def large(cluster: Cluster, tmp_path: Path) -> Path:
    """A backup of a record of 17 MiB and of one of a sector."""
    await cluster.create_vdi("disk", 64 << 20, block_size_shift=25)
    volume = await Volume.open(cluster, "disk")
    await volume.write(0, noise(1, 17 << 20))
    await volume.write(32 << 20, noise(2, SECTOR_SIZE))
    await cluster.create_snapshot("disk", "a")
    await backup(cluster, "disk", tmp_path / "large", snapshot="a")
    return tmp_path / "large"


async def test_a_record_larger_than_a_batch_is_proven(large: Path) -> None:
    (report,) = (await verify([large])).files

    assert (report.records, report.data_bytes) == (2, (17 << 20) + SECTOR_SIZE)
    assert not report.problems.count


@pytest.mark.slow
@pytest.mark.parametrize(
    ("position", "idx"),
    [(32, 0), (32 + (16 << 20) - 1, 0), (32 + (16 << 20), 0), (32 + (17 << 20) - 1, 0), (48 + (17 << 20), 1)],
)
async def test_a_change_anywhere_about_a_large_record_is_found(large: Path, position: int, idx: int) -> None:
    flip(large, position)

    (report,) = (await verify([large])).files

    assert report.problems.count == 1
    assert f"the data of object {idx} was changed" in report.problems.messages[0]


def test_problems_beyond_many_are_only_counted() -> None:
    problems = Problems()
    for number in range(MAX_PROBLEMS + 5):
        problems.add(AsyncBackupError(str(number)))

    assert (problems.count, len(problems.messages)) == (MAX_PROBLEMS + 5, MAX_PROBLEMS)


async def make_small(folder: Path, dialect: Dialect) -> Path:
    """Make a backup of two records of a sector."""
    file = folder / "small"
    async with Sheep(MemoryStore()) as sheep, connect(sheep.host, sheep.port, ClientOptions(connections=1)) as cluster:
        await cluster.create_vdi("disk", OBJECTS * OBJECT, block_size_shift=SHIFT)
        volume = await Volume.open(cluster, "disk")
        await volume.write(512, noise(1, 512))
        await volume.write(3 * OBJECT, noise(2, 512))
        await cluster.create_snapshot("disk", "a")
        await backup(cluster, "disk", file, snapshot="a", dialect=dialect)
    return file


def damaged(data: bytes) -> Iterator[bytes]:
    """Cut bytes short at every place, and change each of them; in the data of records, which is alike, some places."""
    alike = {start + at for seed in (1, 2) if (start := data.find(noise(seed, 512))) >= 0 for at in range(1, 511)}
    for position in range(len(data)):
        if position in alike and position % 32:
            continue
        yield data[:position]
        yield data[:position] + bytes([data[position] ^ 1 << position % 8]) + data[position + 1 :]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dialect", "part"), [(Dialect.COLLIE, "file"), (Dialect.DOG, "file"), (Dialect.DOG, "manifest")]
)
def test_every_truncation_and_every_changed_byte_is_found(tmp_path: Path, dialect: Dialect, part: str) -> None:
    async def work() -> None:
        file = await make_small(tmp_path, dialect)
        assert (await verify([file])).is_good
        victim = file if part == "file" else manifest_path(file)
        for place, data in enumerate(damaged(victim.read_bytes())):
            victim.write_bytes(data)
            assert not (await verify([file])).is_good, place

    anyio.run(work)


async def test_info_counts_what_there_is(files: list[Path]) -> None:
    found = await info(files[1])

    assert (found.dialect, found.records, found.trailing_bytes) == (Dialect.COLLIE, 5, 0)
    assert found.size == files[1].stat().st_size == 16 + 5 * 16 + found.data_bytes
    assert found.manifest is not None
    assert found.manifest.base_identity is not None
    assert (found.manifest.identity.tag, found.manifest.base_identity.tag) == ("b", "a")


async def test_info_raises_where_the_file_is_damaged(files: list[Path]) -> None:
    files[1].write_bytes(files[1].read_bytes()[:-1])

    with pytest.raises(BackupDamaged):
        await info(files[1])


async def test_a_snapshot_compares_with_its_backups(cluster: Cluster, files: list[Path]) -> None:
    found = await compare(cluster, files, "disk", "b")

    assert found.is_good
    assert (found.objects_done, found.objects_planned, found.seed) == (7, 7, None)


async def test_only_what_the_records_cover_is_compared(cluster: Cluster, files: list[Path]) -> None:
    found = await compare(cluster, files[1:], "disk", "b")

    assert found.bytes_compared == (await info(files[1])).data_bytes


async def test_objects_that_differ_are_named(cluster: Cluster, files: list[Path]) -> None:
    await restore(cluster, files, "copy")
    volume = await Volume.open(cluster, "copy")
    await volume.write(3 * OBJECT + 512, noise(9, 512))
    await volume.write(6 * OBJECT, noise(9, 512))

    found = await compare(cluster, files, "copy", assume_base=True)

    assert (found.is_good, found.differing, found.differing_idx) == (False, 2, [3, 6])


async def test_a_full_sample_finds_what_a_backup_left_out(cluster: Cluster, files: list[Path]) -> None:
    await restore(cluster, files, "copy")
    volume = await Volume.open(cluster, "copy")
    await volume.write(7 * OBJECT, noise(9, 512))  # has no record, and differs from the base
    await volume.write(5 * OBJECT, noise(9, 512))  # lies before the object's record
    assert (await compare(cluster, files, "copy", assume_base=True)).is_good

    found = await compare(cluster, files, "copy", sample=1, assume_base=True)

    assert found.differing_idx == [5, 7]


async def test_an_increment_is_audited_against_its_base(cluster: Cluster, files: list[Path]) -> None:
    found = await compare(cluster, files[1:], "disk", "b", sample=1)

    assert found.is_good
    # Object 4 was written with what it held before; object 0 is still the base's.
    assert (found.unchanged, found.unchanged_audited, found.shared) == (1, 1, 1)
    assert found.partly_changed_audited == found.partly_changed == 4


async def test_a_sample_is_the_same_for_the_same_seed(cluster: Cluster, files: list[Path]) -> None:
    first = await compare(cluster, files, "disk", "b", sample=0.3)
    second = await compare(cluster, files, "disk", "b", sample=0.3, seed=first.seed)

    assert first == second


async def test_another_vdi_is_not_what_was_backed_up(cluster: Cluster, files: list[Path]) -> None:
    await cluster.create_vdi("other", OBJECTS * OBJECT, block_size_shift=SHIFT)
    await cluster.create_snapshot("other", "a")
    await cluster.create_snapshot("other", "b")

    with pytest.raises(WrongSnapshot, match="got snapshot 2 'b' of VDI 'other'"):
        await compare(cluster, files[1:], "other", "b", sample=1)


async def test_a_sample_needs_a_manifest(cluster: Cluster, files: list[Path]) -> None:
    manifest_path(files[0]).unlink()

    with pytest.raises(FactMissing, match="no manifest says what the backup is the difference to"):
        await compare(cluster, files, "disk", "b", sample=1, assume_base=True)
