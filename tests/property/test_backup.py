"""Random lives of a disk: any two snapshots, applied one over the other, give the other."""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncbackup import ClientOptions, Cluster, Dialect, Volume, WindowOptions, backup, connect
from asyncbackup.sheep import MemoryStore, Sheep
from tests.disks import OBJECT, SHIFT, content_of, noise
from tests.property import reference

pytestmark = pytest.mark.slow

OBJECTS = 3
SECTORS = OBJECTS * OBJECT // 512


@dataclass(frozen=True)
class Write:
    sector: int
    sectors: int
    seed: int
    """0 writes zeros."""

    @property
    def data(self) -> bytes:
        length = min(self.sectors, SECTORS - self.sector) * 512
        return noise(self.seed, length) if self.seed else bytes(length)


WRITES = st.builds(
    Write,
    st.one_of(st.integers(0, SECTORS - 1), st.sampled_from([0, 2047, 2048, 4095, SECTORS - 1])),
    st.one_of(st.integers(1, 6), st.sampled_from([512, 2048, 2049, SECTORS])),
    st.integers(0, 2),
)
HISTORIES = st.lists(st.lists(WRITES, max_size=4), min_size=2, max_size=3)
DIALECTS = st.sampled_from(list(Dialect))
OPTIONS = st.builds(
    WindowOptions,
    workers=st.sampled_from([1, 3, 16]),
    memory=st.sampled_from([1 << 20, 4 << 20, 128 << 20]),
)


async def live(cluster: Cluster, history: list[list[Write]]) -> list[str]:
    await cluster.create_vdi("disk", OBJECTS * OBJECT, block_size_shift=SHIFT)
    tags = []
    for number, writes in enumerate(history):
        volume = await Volume.open(cluster, "disk")
        for write in writes:
            await volume.write(write.sector * 512, write.data)
        tags.append(f"s{number}")
        await cluster.create_snapshot("disk", tags[-1])
    return tags


@settings(max_examples=8)
@given(HISTORIES, DIALECTS, OPTIONS)
async def test_a_backup_applied_to_its_base_is_its_snapshot(
    history: list[list[Write]], dialect: Dialect, options: WindowOptions
) -> None:
    async with Sheep(MemoryStore()) as sheep, connect(sheep.host, sheep.port, ClientOptions(connections=2)) as cluster:
        tags = await live(cluster, history)
        content: dict[str | None, dict[int, bytes]] = {tag: await content_of(cluster, "disk", tag) for tag in tags}
        content[None] = {}
        for to, base in itertools.product(tags, [None, *tags]):
            with tempfile.TemporaryDirectory() as folder:
                target = Path(folder) / "file"
                summary = await backup(
                    cluster, "disk", target, snapshot=to, base=base, dialect=dialect, options=options
                )
                written = target.read_bytes()

            records = reference.parse(written, dialect.value, OBJECT)

            assert records == reference.difference(content[to], content[base], OBJECT)
            restored = reference.apply(content[base], records, OBJECT)
            assert reference.without_zeros(restored) == reference.without_zeros(content[to])
            assert (summary.records, summary.bytes_written) == (len(records), len(written))
            assert summary.objects_done == summary.objects_planned
