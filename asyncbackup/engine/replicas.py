"""Reads every replica of objects, and finds the objects whose replicas differ, or are not all there."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import xxhash
from anyio import to_thread

from asyncbackup.client import Cluster
from asyncbackup.engine.portion import cut
from asyncbackup.engine.source import SnapshotObjects
from asyncbackup.engine.window import Slot, Window, WindowOptions
from asyncbackup.errors import ChangedMeanwhile, RequestFailed
from asyncbackup.wire.nodes import format_address
from asyncbackup.wire.oid import data_oid

MAX_NAMED: Final = 1000
"""Objects that a report names. All others are only counted, so that memory is bounded."""


class Replica(NamedTuple):
    """What one node has of an object: the xxh3_128 of its bytes, as hex, or why they could not be read."""

    node: str
    digest: str | None
    problem: str | None

    def __str__(self) -> str:
        return f"{self.node} {self.problem or self.digest}"


class Divergence(NamedTuple):
    """An object whose replicas differ, or are not all there."""

    idx: int
    oid: int
    replicas: tuple[Replica, ...]


@dataclass(slots=True)
class ReplicaReport:
    """What was read, and what is wrong with it. Sizes in bytes."""

    objects: int = 0
    replicas: int = 0
    bytes_read: int = 0
    diverging: int = 0
    """Objects whose replicas differ, or are not all there."""
    named: list[Divergence] = field(default_factory=list)
    """The first of them."""

    def add(self, idx: int, oid: int, replicas: list[Replica], object_size: int) -> None:
        self.objects += 1
        self.replicas += len(replicas)
        self.bytes_read += object_size * sum(replica.digest is not None for replica in replicas)
        if len({replica.digest for replica in replicas}) > 1 or any(replica.problem for replica in replicas):
            self.diverging += 1
            if len(self.named) < MAX_NAMED:
                self.named.append(Divergence(idx, oid, tuple(replicas)))

    def as_dict(self) -> dict[str, Any]:
        """Give the fields as plain values, for JSON."""
        return {
            "objects": self.objects,
            "replicas": self.replicas,
            "bytes_read": self.bytes_read,
            "diverging": self.diverging,
            "named": [
                {"idx": idx, "oid": f"{oid:016x}", "replicas": [replica._asdict() for replica in replicas]}
                for idx, oid, replicas in self.named
            ],
        }


@dataclass(slots=True)
class ReplicaComparison:
    """Compares the replicas that the nodes of ``cluster`` have of objects of ``snapshot``."""

    cluster: Cluster
    snapshot: SnapshotObjects
    options: WindowOptions
    found: ReplicaReport

    async def run(self, indices: Iterable[int]) -> None:
        """Read all replicas of the objects at ``indices``. An index where nobody owns an object is left out.

        Raises PlacementUnknown, and ClusterError if the way to a node fails. Raises ChangedMeanwhile if replicas differ
        and the nodes of the cluster changed meanwhile, because replicas move then. An error that a node answers with is
        not raised: it is in the report.
        """
        epoch = self.cluster.epoch
        size = self.options.portion_size(self.snapshot.inode.object_size)
        window = Window(self.options.slots(size), [size], self._read_all, self._deliver)
        await window.run(self._owned(indices))
        if self.found.diverging and self.cluster.epoch != epoch:
            raise ChangedMeanwhile("the cluster", f"its nodes changed: epoch {epoch} became {self.cluster.epoch}")

    async def _owned(self, indices: Iterable[int]) -> AsyncGenerator[int, None]:
        for idx in indices:
            if self.snapshot.owner(idx):
                yield idx

    async def _read_all(self, idx: int, slot: Slot) -> tuple[int, list[Replica]]:
        oid = self._oid(idx)
        return idx, [await self._read(node, oid, slot.buffers[0]) for node in await self.cluster.locate(oid)]

    async def _read(self, node: tuple[str, int], oid: int, through: memoryview) -> Replica:
        digest, name = xxhash.xxh3_128(), format_address(*node)
        try:
            for portion in cut(0, self.snapshot.inode.object_size, len(through)):
                part = through[: portion.length]
                await self.cluster.read_replica(node, oid, part, portion.offset)
                await to_thread.run_sync(digest.update, part)
        except RequestFailed as error:
            return Replica(name, None, error.meaning)
        return Replica(name, digest.hexdigest(), None)

    async def _deliver(self, read: list[tuple[int, list[Replica]]]) -> None:
        for idx, replicas in read:
            self.found.add(idx, self._oid(idx), replicas, self.snapshot.inode.object_size)

    def _oid(self, idx: int) -> int:
        return data_oid(self.snapshot.owner(idx), idx)
