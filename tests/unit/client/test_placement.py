from __future__ import annotations

from dataclasses import replace

import pytest

from asyncbackup.client.placement import Placement
from asyncbackup.wire.nodes import Node
from asyncbackup.wire.oid import data_oid

NODES = [Node("10.0.0.1", 7000, 1, 128, 0), Node("10.0.0.2", 7000, 2, 128, 0)]
GATEWAY = ("10.0.0.1", 7000)


def placed(version: int = 0x0A) -> Placement:
    placement = Placement()
    assert placement.learn(NODES, GATEWAY, {GATEWAY}, version)
    return placement


def test_where_copies_are_is_known_of_a_vdi_of_which_their_number_is() -> None:
    placement = placed()
    assert not placement.knows_copies(5)

    placement.note_copies(5, 2, 0)

    assert placement.knows_copies(5)
    assert placement.doubt(5) is None
    assert sorted(placement.holders(data_oid(5, 0))) == [("10.0.0.1", 7000), ("10.0.0.2", 7000)]


def test_what_is_coded_has_no_known_place() -> None:
    placement = placed()
    placement.note_copies(5, 3, 0x21)

    assert placement.knows_copies(5)
    assert placement.doubt(5) == "the objects of VDI 5 are coded, and not copied"
    assert placement.holders(data_oid(5, 0)) == []


@pytest.mark.parametrize("placement", [Placement(), placed(0x09)], ids=["nothing is known", "another release"])
def test_without_a_ring_no_place_is_known(placement: Placement) -> None:
    placement.note_copies(5, 2, 0)

    assert placement.doubt(5) == "the nodes of the cluster are not known, or they are of another release than 1.0"


# Which of the nodes the gateway is

HERE, OTHER = Node("10.0.0.1", 7000, 1, 128), Node("10.0.0.2", 7000, 2, 128)
NAMED = ("sheep1", 7000)


def learnt(nodes: list[Node], *peers: tuple[str, int]) -> list[tuple[str, int]] | None:
    """Give the addresses that were learnt of ``nodes`` from a gateway that is connected at ``peers``."""
    placement = Placement()
    return placement.addresses if placement.learn(nodes, NAMED, set(peers), 0x0A) else None


@pytest.mark.parametrize(
    ("here", "peer"),
    [
        (HERE, ("10.0.0.1", 7000)),
        (replace(HERE, io_host="10.1.0.1", io_port=7001), ("10.0.0.1", 7000)),
        (replace(HERE, io_host="10.1.0.1", io_port=7001), ("10.1.0.1", 7001)),
        (HERE, ("127.0.0.1", 7000)),
        (HERE, ("::1", 7000)),
        (replace(HERE, host="fe80::1"), ("fe80::1", 7000)),
    ],
    ids=["by its address", "by its address for requests", "by its address for data", "loopback", "loopback 6", "IPv6"],
)
def test_a_gateway_that_is_known_in_the_list_keeps_the_address_that_it_was_named_by(
    here: Node, peer: tuple[str, int]
) -> None:
    assert learnt([replace(OTHER, port=7005), here], peer) == [("10.0.0.2", 7005), NAMED]


def test_data_goes_where_a_node_wants_it() -> None:
    other = replace(OTHER, io_host="10.1.0.2", io_port=7001)

    assert learnt([HERE, other], ("10.0.0.1", 7000)) == [NAMED, ("10.1.0.2", 7001)]


def test_a_gateway_that_is_listed_twice_is_one_node() -> None:
    assert learnt([HERE, OTHER, HERE], ("10.0.0.1", 7000)) == [NAMED, ("10.0.0.2", 7000), NAMED]


def test_over_loopback_a_gateway_may_be_any_node_with_its_port() -> None:
    assert learnt([HERE, OTHER], ("127.0.0.1", 7000)) == [("10.0.0.1", 7000), ("10.0.0.2", 7000)]


def test_an_address_of_its_own_counts_more_than_loopback() -> None:
    assert learnt([OTHER, Node("127.0.0.1", 7000, 1, 128)], ("127.0.0.1", 7000)) == [("10.0.0.2", 7000), NAMED]


@pytest.mark.parametrize(
    "peers", [[], [("10.0.0.9", 7000)], [("10.0.0.1", 7001)], [("127.0.0.1", 7001)], [("fe80::1%eth0", 7000)]]
)
def test_a_gateway_that_is_not_in_the_list_teaches_nothing(peers: list[tuple[str, int]]) -> None:
    assert learnt([HERE, OTHER], *peers) is None


def test_what_was_known_stays_where_a_list_teaches_nothing() -> None:
    placement = placed()
    before = placement.holders(data_oid(5, 0))

    assert not placement.learn([OTHER], GATEWAY, {GATEWAY}, 0x0A)
    assert placement.holders(data_oid(5, 0)) == before


def test_a_newer_list_moves_objects() -> None:
    placement = placed()
    placement.note_copies(5, 1, 0)
    before = {idx: placement.holders(data_oid(5, idx)) for idx in range(20)}

    placement.learn(NODES[:1], GATEWAY, {GATEWAY}, 0x0A)

    assert {address for idx in before for address in placement.holders(data_oid(5, idx))} == {GATEWAY}
    assert {address for holders in before.values() for address in holders} == {GATEWAY, ("10.0.0.2", 7000)}


def test_nodes_of_a_ring_that_cannot_be_are_used_without_it() -> None:
    placement = Placement()

    assert placement.learn([HERE, replace(OTHER, vnodes=65535)], GATEWAY, {GATEWAY}, 0x0A)
    assert placement.addresses == [GATEWAY, ("10.0.0.2", 7000)]
    assert placement.holders(data_oid(5, 0)) == []


def test_the_copies_of_very_many_vdis_are_not_all_kept_in_mind() -> None:
    placement = placed()
    for vdi_id in range(1, 70_000):
        placement.note_copies(vdi_id, 2, 0)

    assert sum(placement.knows_copies(vdi_id) for vdi_id in range(1, 70_000)) < 1 << 16
    assert placement.knows_copies(69_999)
