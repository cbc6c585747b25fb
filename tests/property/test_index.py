"""Random chains of VDIs that shrink and grow: what an index gives equals what is composed slowly."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncbackup import Dialect, Progress
from asyncbackup.engine.chain import Chain, open_chain
from asyncbackup.engine.index import ChainObjects, read_index
from asyncbackup.engine.progress import OnProgress
from asyncbackup.engine.source import Indices
from asyncbackup.format import RecordHeader
from asyncbackup.format.identity import Identity
from asyncbackup.format.manifest import ManifestEncoder, RecordDigests, Subject
from asyncbackup.storage.publication import manifest_path
from tests.disks import OBJECT, noise
from tests.property import reference

OBJECTS = 5


@dataclass(frozen=True)
class Night:
    """A backup of a VDI of so many ``objects``."""

    objects: int
    records: list[reference.Record]


EDGES = st.sampled_from([edge * reference.SECTOR for edge in (0, 1, 2, 3, 5, 8, 1024, 2045, 2047, 2048)])
RANGES = st.lists(EDGES, min_size=2, max_size=2, unique=True).map(sorted).map(lambda edges: (edges[0], edges[1]))
CONTENTS = st.dictionaries(st.integers(0, OBJECTS - 1), st.integers(1, 99).map(lambda seed: noise(seed, OBJECT)))


@st.composite
def nights(draw: st.DrawFn) -> Night:
    objects = draw(st.integers(1, OBJECTS))
    changed = draw(st.dictionaries(st.integers(0, objects - 1), RANGES))
    seed = draw(st.integers(100, 199))
    records = [
        reference.Record(idx, start, noise(seed + idx, end - start)) for idx, (start, end) in sorted(changed.items())
    ]
    return Night(objects, records)


CHAINS = st.lists(nights(), min_size=1, max_size=4)


class ReferenceObjects:
    """Objects in memory; those behind the first ``objects`` are zeros."""

    name = "a reference"

    def __init__(self, content: dict[int, bytes], objects: int | None) -> None:
        self._content = {idx: data for idx, data in content.items() if objects is None or idx < objects}

    async def read(self, idx: int, offset: int, into: memoryview) -> None:
        into[:] = self._content.get(idx, bytes(OBJECT))[offset : offset + len(into)]

    async def find_objects(self, on_progress: OnProgress | None = None) -> Indices:
        if on_progress is not None:
            on_progress(Progress(0, None, 0))
        return np.array(sorted(self._content), np.uint32)

    async def check_unchanged(self) -> None: ...


def identity_of(place: int) -> Identity:
    return Identity("disk", f"{place + 1:x}", f"2026-11-{place + 10}T20:00:00.000000000Z", None, place + 1, "")


def write(folder: Path, place: int, night: Night, base_objects: int) -> Path:
    """Write the increment of a night, with a manifest."""
    path, dialect = folder / f"night{place}", Dialect.DOG if place % 2 else Dialect.COLLIE
    base, size = identity_of(place), night.objects * OBJECT
    subject = Subject(size, OBJECT, 1, 0, dialect, identity_of(place + 1), base, base_objects * OBJECT)
    encoder = ManifestEncoder()
    lines, pieces = [encoder.opening(subject)], [dialect.patch(len(night.records)) or dialect.opening]
    for record in night.records:
        header = RecordHeader(record.idx, record.offset, len(record.data))
        pieces += [header.encode(), record.data]
        lines.append(encoder.record(RecordDigests(header, "0" * 32, None)))
    content = b"".join([*pieces, dialect.ending])
    path.write_bytes(content)
    manifest_path(path).write_bytes(b"".join([*lines, encoder.ending(len(content))]))
    return path


@asynccontextmanager
async def chain_of(found: Sequence[Night]) -> AsyncIterator[Chain]:
    with tempfile.TemporaryDirectory() as made:
        sizes = [OBJECTS, *(night.objects for night in found)]
        paths = [write(Path(made), place, night, sizes[place]) for place, night in enumerate(found)]
        async with open_chain(paths) as chain:
            yield chain


def compose(base: dict[int, bytes], found: Sequence[Night]) -> dict[int, bytes]:
    """Apply night after night, and forget what lies behind the end of each."""
    content = base
    for night in found:
        content = reference.apply(content, night.records, OBJECT)
        content = {idx: data for idx, data in content.items() if idx < night.objects}
    return content


@pytest.mark.slow
@settings(max_examples=30)
@given(CONTENTS, CHAINS, st.lists(st.tuples(st.integers(0, OBJECTS - 1), RANGES), min_size=1, max_size=9))
async def test_any_range_of_any_object_of_a_chain_is_what_the_reference_has(
    base: dict[int, bytes], found: list[Night], ranges: list[tuple[int, tuple[int, int]]]
) -> None:
    expected = compose(base, found)

    async with chain_of(found) as chain:
        source = ChainObjects(await read_index(chain), ReferenceObjects(base, chain.spans()))

        for idx, (start, end) in ranges:
            into = memoryview(bytearray(b"?" * (end - start)))
            await source.read(idx, start, into)
            assert bytes(into) == expected.get(idx, bytes(OBJECT))[start:end]
        assert set(expected) <= set((await source.find_objects()).tolist())


@settings(max_examples=30)
@given(CHAINS, st.sets(st.integers(0, OBJECTS - 1)).map(lambda found: np.array(sorted(found), np.uint32)))
async def test_an_index_gives_what_the_chain_gives_when_its_files_are_read_side_by_side(
    found: list[Night], whole: Indices
) -> None:
    async with chain_of(found) as chain:
        index = await read_index(chain)
        groups = [group async for group in chain.groups()]

        assert [group async for group in index.groups(whole)] == [group async for group in chain.groups(whole)]
        assert index.indices.tolist() == [group.idx for group in groups]
        assert index.partly_covered().tolist() == [group.idx for group in groups if group.first_gap(0, OBJECT)]
