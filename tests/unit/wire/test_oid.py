from __future__ import annotations

import pytest

from asyncbackup.wire.oid import (
    ATTR_BIT,
    LEDGER_BIT,
    VMSTATE_BIT,
    data_oid,
    index_of,
    inode_oid,
    is_data,
    vdi_of,
)
from tests.btree import btree_oid

VDI = 0xABCDEF


def test_golden_object_ids() -> None:
    assert f"{data_oid(VDI, 7):016x}" == "00abcdef00000007"
    assert f"{inode_oid(VDI):016x}" == "80abcdef00000000"
    assert f"{btree_oid(VDI, 2):016x}" == "10abcdef00000002"


@pytest.mark.parametrize("oid", [data_oid(VDI, 0xFFFFFFFF), inode_oid(VDI), btree_oid(VDI, 9)])
def test_every_kind_of_id_tells_its_vdi(oid: int) -> None:
    assert vdi_of(oid) == VDI


def test_an_id_tells_its_index() -> None:
    assert index_of(data_oid(VDI, 0xFFFFFFFE)) == 0xFFFFFFFE


def test_a_data_object_is_told_from_all_other_kinds() -> None:
    others = [
        inode_oid(VDI),
        btree_oid(VDI, 1),
        *(bit | data_oid(VDI, 1) for bit in (VMSTATE_BIT, ATTR_BIT, LEDGER_BIT)),
    ]

    assert is_data(data_oid(VDI, 1))
    assert not any(map(is_data, others))
