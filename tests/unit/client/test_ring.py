from __future__ import annotations

import bisect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbackup.client.ring import Ring, hash_bytes, hash_oid
from asyncbackup.wire.nodes import Node

BASIS = 0xCBF29CE484222325
NODES = st.lists(
    st.builds(
        Node,
        st.integers(1, 250).map("10.0.0.{}".format),
        st.integers(1, 65535),
        st.integers(0, 3),
        st.sampled_from([0, 1, 3, 16]),
        st.just(0),
    ),
    max_size=6,
)


def fnv(data: bytes, value: int = BASIS) -> int:
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) % (1 << 64)
    return value


def again(value: int) -> int:
    return fnv(value.to_bytes(8, "little"), value)


def slow_holders(nodes: list[Node], oid: int, copies: int) -> tuple[int, ...]:
    """Do what ``docs/protocol.md`` says, word by word."""
    points = []
    for index, node in enumerate(nodes):
        address = bytes(12) + bytes(map(int, node.host.split(".")))
        value = again(fnv(address + node.port.to_bytes(2, "little")))
        for _ in range(node.vnodes):
            value = again(value)
            points.append((value, index))
    points.sort(key=lambda point: point[0])
    start = bisect.bisect_left([value for value, _ in points], again(fnv(oid.to_bytes(8, "little"))))
    found: list[int] = []
    for _, index in points[start:] + points[:start]:
        if len(found) < copies and nodes[index].zone not in {nodes[other].zone for other in found}:
            found.append(index)
    return tuple(found)


@pytest.mark.parametrize(("data", "value"), [(b"", BASIS), (b"a", 0xAF63DC4C8601EC8C), (b"foobar", 0x85944171F73967E8)])
def test_the_hash_is_fnv_1a_with_its_published_vectors(data: bytes, value: int) -> None:
    assert hash_bytes(data) == value


def test_an_object_is_hashed_twice() -> None:
    assert hash_oid(0x20609 << 32) == again(fnv((0x20609 << 32).to_bytes(8, "little")))


@given(NODES, st.integers(0, (1 << 64) - 1), st.integers(0, 5))
def test_holders_are_those_that_the_protocol_names(nodes: list[Node], oid: int, copies: int) -> None:
    assert Ring(nodes).holders(oid, copies) == slow_holders(nodes, oid, copies)


def test_a_ring_without_nodes_or_of_gateways_alone_holds_nothing() -> None:
    assert Ring([]).holders(1, 3) == ()
    assert Ring([Node("10.0.0.1", 7000, 1, 0)]).holders(1, 3) == ()


def test_a_ring_of_one_vnode_holds_everything_there() -> None:
    assert Ring([Node("10.0.0.1", 7000, 1, 0), Node("10.0.0.2", 7000, 1, 1)]).holders(1, 3) == (1,)


@pytest.mark.parametrize(
    "nodes", [[Node("10.0.0.1", 7000, 1, 65535)], [Node(f"10.0.{n}.1", 7000, 1, 8000) for n in range(256)] * 2]
)
def test_more_vnodes_than_a_cluster_has_are_refused(nodes: list[Node]) -> None:
    with pytest.raises(ValueError, match="expected at most"):
        Ring(nodes)
