from __future__ import annotations

import pytest

from asyncbackup.wire.messages import NodeReply
from asyncbackup.wire.nodes import NODE_ENTRY_SIZE, Node, format_address, pack_node, unpack_node_list, unpack_nodes

NODE = Node("192.168.1.2", 7000, zone=4, vnodes=128, space=1 << 40)


@pytest.mark.parametrize("host", ["192.168.1.2", "127.0.0.1", "2001:db8::7", "fe80::1"])
def test_a_node_survives_packing(host: str) -> None:
    node = Node(host, 7001, zone=4, vnodes=128, space=1 << 40)

    assert unpack_nodes(pack_node(node)) == [node]


def test_golden_entry() -> None:
    packed = pack_node(NODE)

    assert len(packed) == NODE_ENTRY_SIZE == 80
    assert packed[24:44].hex(" ", 4) == "00000000 00000000 00000000 c0a80102 581b0000"
    assert packed[64:].hex(" ", 4) == "80000000 04000000 00000000 00010000"


def test_a_list_is_read_in_order() -> None:
    other = Node("10.0.0.1", 7002, zone=5, vnodes=64, space=5)

    assert unpack_nodes(pack_node(NODE) + pack_node(other)) == [NODE, other]


def test_an_empty_list_has_no_nodes() -> None:
    assert unpack_nodes(b"") == []


def test_a_list_of_broken_entries_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a multiple of 80 bytes, got 79"):
        unpack_nodes(bytes(79))


@pytest.mark.parametrize(("host", "address"), [("sheep1", "sheep1:7000"), ("::1", "[::1]:7000")])
def test_an_address_tells_the_host_from_the_port(host: str, address: str) -> None:
    assert format_address(host, 7000) == address


@pytest.mark.parametrize(("version", "size"), [(0x0A, 80), (0x09, 80), (0x08, 56), (0x07, 56), (0x06, 32), (0x05, 24)])
def test_each_release_has_entries_of_its_own(version: int, size: int) -> None:
    space = 0 if version == 0x05 else 1 << 40
    io = ("10.0.0.9", 7009) if version >= 0x07 else (None, 0)
    node = Node("192.168.1.2", 7000, 4, 128, space, *io)

    packed = pack_node(node, version)

    assert len(packed) == size
    assert unpack_nodes(packed * 2, version) == [node, node]


def test_a_release_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a known internal version, got 0x4"):
        unpack_nodes(b"", 4)


def test_more_nodes_than_there_can_be_are_refused() -> None:
    with pytest.raises(ValueError, match="expected at most 6144 nodes, got 6145"):
        unpack_nodes(pack_node(NODE) * 6145)


def test_a_list_is_read_if_it_is_as_long_as_the_answer_says() -> None:
    assert unpack_node_list(NodeReply(nr_nodes=2).pack(), pack_node(NODE) * 2) == [NODE, NODE]


@pytest.mark.parametrize("said", [0, 1, 3, 0xFFFFFFFF])
def test_a_list_whose_entries_are_of_another_layout_is_refused(said: int) -> None:
    with pytest.raises(ValueError, match=f"expected {said} nodes, got 2"):
        unpack_node_list(NodeReply(nr_nodes=said).pack(), pack_node(NODE) * 2)
