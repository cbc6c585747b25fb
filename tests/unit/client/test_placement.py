from __future__ import annotations

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
