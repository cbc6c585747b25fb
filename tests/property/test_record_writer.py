"""A backup that is stopped anywhere and gone on with, or written range by range, is the one that is written at once."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncbackup import ClientOptions, Dialect, connect
from asyncbackup.engine.fetch import Fetcher, Unreadable
from asyncbackup.engine.plan import Plan, plan_difference
from asyncbackup.engine.progress import BackupCounts
from asyncbackup.engine.record_writer import Fragment, RecordWriter
from asyncbackup.engine.window import Slot
from asyncbackup.format import RecordHeader
from asyncbackup.format.identity import Identity
from asyncbackup.format.manifest import RecordDigests, Subject
from asyncbackup.sheep import MemoryStore, Sheep
from tests import scenarios
from tests.collecting import CollectingTarget, PatchedTarget

SECTOR = 512
OBJECT = 1 << 22
SUBJECT = Subject(
    size=1 << 32,
    object_size=OBJECT,
    copies=1,
    copy_policy=0,
    dialect=Dialect.COLLIE,
    identity=Identity(vdi="disk", vdi_id="abcdef", created=None, cluster=None, id=1, tag="a"),
    base_identity=Identity("disk", "abcdee", "2026-11-22T20:00:00.000000001Z", None, 1, "a"),
    base_size=1 << 32,
)


def target_with(data: bytes | bytearray) -> PatchedTarget:
    target = PatchedTarget()
    target.data += data
    return target


@st.composite
def records(draw: st.DrawFn) -> list[list[Fragment]]:
    """Records, each of one fragment or of several."""
    made = []
    for idx in sorted(draw(st.sets(st.integers(0, 1000), max_size=8))):
        generator = random.Random(idx)
        sizes = draw(st.lists(st.sampled_from([1, 2, 127, 128, 400]), min_size=1, max_size=3))
        header: RecordHeader | None = RecordHeader(idx, 0, sum(sizes) * SECTOR)
        kind = draw(st.sampled_from(["read", "unread", "known"]))
        known = None if kind != "known" or header is None else RecordDigests(header, "0" * 32, None)
        fragments = []
        for number, sectors in enumerate(sizes, 1):
            data, base = (memoryview(generator.randbytes(sectors * SECTOR)) for _ in range(2))
            under = [base] if kind == "read" else None
            fragments.append(Fragment(header, [data], under, number == len(sizes), known))
            header = None
        made.append(fragments)
    return made


async def write(writer: RecordWriter, fragments: Sequence[Fragment], batch: int) -> None:
    for start in range(0, len(fragments), batch):
        await writer.append(fragments[start : start + batch])


async def lines_of(manifest: bytes) -> AsyncIterator[bytes]:
    for line in manifest.splitlines(keepends=True):
        yield line


def flat(made: Sequence[Sequence[Fragment]]) -> list[Fragment]:
    return [fragment for fragments in made for fragment in fragments]


@pytest.mark.slow
@pytest.mark.parametrize("dialect", list(Dialect), ids=lambda dialect: dialect.value)
@settings(max_examples=40)
@given(made=records(), cut=st.integers(0, 30), batch=st.integers(1, 4), is_range=st.booleans())
async def test_a_backup_that_is_gone_on_with_is_that_of_one_run(
    made: list[list[Fragment]], cut: int, batch: int, *, dialect: Dialect, is_range: bool
) -> None:
    subject, fragments = replace(SUBJECT, dialect=dialect), flat(made)
    cut = min(cut, len(fragments))

    def writer(data: CollectingTarget, manifest: CollectingTarget) -> RecordWriter:
        return RecordWriter(data, dialect, manifest=manifest, subject=subject, is_range=is_range)

    whole, whole_manifest = PatchedTarget(), PatchedTarget()
    at_once = writer(whole, whole_manifest)
    await at_once.start()
    await write(at_once, fragments, batch)
    await at_once.finish()

    data, manifest = PatchedTarget(), PatchedTarget()
    stopped = writer(data, manifest)
    await stopped.start()
    await write(stopped, fragments[:cut], batch)
    checkpoint = await stopped.checkpoint()

    # What is behind the checkpoint is cut off, and the record that it belongs to is written anew.
    data = target_with(data.data[: checkpoint.position])
    manifest = target_with(manifest.data[: checkpoint.manifest_length])
    again = writer(data, manifest)
    await again.resume(checkpoint, lines_of(bytes(manifest.data)))
    assert await again.checkpoint() == checkpoint
    await write(again, flat(made[checkpoint.records :]), batch)
    await again.finish()

    assert data.data == whole.data
    assert manifest.data == whole_manifest.data
    assert (again.position, again.records) == (at_once.position, at_once.records) == (len(whole.data), len(made))
    assert data.is_complete


@pytest.mark.slow
@pytest.mark.parametrize(("name", "base", "to"), scenarios.pairs())
@settings(max_examples=4)
@given(data=st.data(), dialect=st.sampled_from(Dialect))
async def test_ranges_of_a_plan_are_the_golden_backup_in_order(
    *, data: st.DataObject, name: str, base: str, to: str, dialect: Dialect
) -> None:
    scenario = scenarios.load(name)
    async with Sheep(MemoryStore()) as sheep, connect(sheep.host, sheep.port, ClientOptions(connections=2)) as cluster:
        await scenarios.play(cluster, scenario)
        to_inode, base_inode = [await cluster.find_vdi(scenario["vdi"], tag) for tag in (to, base)]
        owners = [await cluster.read_owners(inode.vdi_id, to_inode.object_count) for inode in (to_inode, base_inode)]
        plan = Plan.decode(plan_difference(*owners).encode())
        inner = sorted(data.draw(st.lists(st.integers(0, len(plan)), max_size=3), label="cuts"))

        async def write_range(part: Plan) -> tuple[bytes, bytes, int]:
            target, manifest = PatchedTarget(), PatchedTarget()
            writer = RecordWriter(target, dialect, manifest=manifest, subject=SUBJECT, is_range=True)
            fetcher = Fetcher(cluster, to_inode.object_size, to_inode.object_size, BackupCounts())
            await writer.start()
            for pair in part:
                (fragment,), _ = await fetcher.fetch_records(pair, Slot([to_inode.object_size] * 2))
                assert not isinstance(fragment, Unreadable)
                await writer.append([] if fragment is None else [fragment])
            await writer.finish()
            return bytes(target.data), bytes(manifest.data), writer.records

        ranges = [await write_range(plan[start:end]) for start, end in pairwise([0, *inner, len(plan)])]
        whole = await write_range(plan)

    count = sum(records for _, _, records in ranges)
    opening = dialect.patch(count) or dialect.opening
    joined = opening + b"".join(written for written, _, _ in ranges) + dialect.ending
    assert joined == scenarios.expected(name, base, to, dialect)
    assert b"".join(lines for _, lines, _ in ranges) == whole[1]
