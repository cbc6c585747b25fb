from __future__ import annotations

import pytest

from asyncbackup.wire.nodes import NODE_ENTRY_SIZE, Node, format_address, pack_node, unpack_nodes

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
