from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from asyncbackup import Cluster, WindowOptions
from asyncbackup.engine.replicas import MAX_NAMED, Replica, ReplicaComparison, ReplicaReport
from asyncbackup.engine.source import SnapshotObjects
from asyncbackup.errors import ChangedMeanwhile, ObjectReadFailed
from asyncbackup.wire.constants import Result
from asyncbackup.wire.inode import Inode
from asyncbackup.wire.oid import index_of
from tests.disks import OBJECT, noise

Address = tuple[str, int]
ONE, TWO = ("10.0.0.1", 7000), ("10.0.0.2", 7001)


class Nodes:
    """Stands for a cluster of two nodes that each have every object, filled with its number, but for ``other``."""

    def __init__(self, other: dict[tuple[Address, int], bytes | Result] | None = None) -> None:
        self.other = other or {}
        self.epoch = 1
        self.moves = False

    async def locate(self, object_id: int) -> list[Address]:
        return [ONE, TWO]

    async def read_replica(self, node: Address, object_id: int, into: memoryview, offset: int = 0) -> None:
        idx = index_of(object_id)
        content = self.other.get((node, idx), bytes([idx]) * OBJECT)
        self.epoch += self.moves
        if isinstance(content, Result):
            raise ObjectReadFailed(idx, object_id, content, content.meaning)
        into[:] = content[offset : offset + len(into)]


async def compare(nodes: Nodes, *indices: int, memory: int = 128 << 20) -> ReplicaReport:
    inode = Inode(name="disk", vdi_id=5, vdi_size=8 * OBJECT, block_size_shift=20)
    cluster = cast(Cluster, nodes)
    snapshot = SnapshotObjects(cluster, inode, np.array([5, 5, 0, 4], np.uint32))
    report = ReplicaReport()
    await ReplicaComparison(cluster, snapshot, WindowOptions(memory=memory), report).run(indices)
    return report


async def test_replicas_that_are_the_same_are_only_counted() -> None:
    report = await compare(Nodes(), 0, 1, 3)

    assert (report.objects, report.replicas, report.bytes_read, report.diverging) == (3, 6, 6 * OBJECT, 0)
    assert report.named == []


async def test_what_nobody_owns_has_no_replicas() -> None:
    assert (await compare(Nodes(), 0, 2, 6)).objects == 1


@pytest.mark.parametrize("memory", [128 << 20, 1 << 20], ids=["whole", "portions"])
@pytest.mark.parametrize("at", [0, OBJECT - 1])
async def test_one_byte_is_enough_to_differ(at: int, memory: int) -> None:
    changed = bytearray(bytes([1]) * OBJECT)
    changed[at] ^= 1

    report = await compare(Nodes({(TWO, 1): bytes(changed)}), 0, 1, memory=memory)

    [(idx, oid, (one, two))] = report.named
    assert (idx, oid, one.node, two.node) == (1, 5 << 32 | 1, "10.0.0.1:7000", "10.0.0.2:7001")
    assert one.digest != two.digest
    assert (one.problem, two.problem) == (None, None)


@pytest.mark.parametrize(("result", "problem"), [(Result.NO_OBJ, "no such object"), (Result.EIO, "I/O error")])
async def test_a_replica_that_cannot_be_read_is_named_with_the_reason(result: Result, problem: str) -> None:
    report = await compare(Nodes({(ONE, 3): result}), 3)

    [(idx, _, (one, two))] = report.named
    assert (idx, one) == (3, Replica("10.0.0.1:7000", None, problem))
    assert two.digest is not None
    assert report.bytes_read == OBJECT


async def test_replicas_that_are_lost_alike_are_no_better() -> None:
    report = await compare(Nodes({(ONE, 3): Result.NO_OBJ, (TWO, 3): Result.NO_OBJ}), 3)

    assert report.diverging == 1


async def test_what_differs_while_nodes_come_and_go_proves_nothing() -> None:
    nodes = Nodes({(ONE, 1): noise(1, OBJECT)})
    nodes.moves = True

    with pytest.raises(ChangedMeanwhile, match="its nodes changed: epoch 1 became 3"):
        await compare(nodes, 1)


async def test_nodes_that_come_and_go_do_no_harm_where_nothing_differs() -> None:
    nodes = Nodes()
    nodes.moves = True

    assert (await compare(nodes, 1)).diverging == 0


def test_a_report_names_so_many_and_counts_the_others() -> None:
    report, lost = ReplicaReport(), [Replica("node", None, "no such object")]

    for idx in range(MAX_NAMED + 5):
        report.add(idx, idx, lost, OBJECT)

    assert (report.diverging, len(report.named)) == (MAX_NAMED + 5, MAX_NAMED)


def test_a_report_is_plain_values_for_json() -> None:
    report = ReplicaReport()
    report.add(3, 0xABC, [Replica("one:1", "f" * 32, None), Replica("two:2", None, "I/O error")], OBJECT)

    assert report.as_dict() == {
        "objects": 1,
        "replicas": 2,
        "bytes_read": OBJECT,
        "diverging": 1,
        "named": [
            {
                "idx": 3,
                "oid": "0000000000000abc",
                "replicas": [
                    {"node": "one:1", "digest": "f" * 32, "problem": None},
                    {"node": "two:2", "digest": None, "problem": "I/O error"},
                ],
            }
        ],
    }
