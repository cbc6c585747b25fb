"""Names the objects of a hyper volume's tree, which only tests make."""

from __future__ import annotations

from asyncbackup.wire.oid import BTREE_BIT, data_oid


def btree_oid(vdi_id: int, number: int) -> int:
    """Name the ``number``-th B-tree node object of hyper volume ``vdi_id``."""
    return BTREE_BIT | data_oid(vdi_id, number)
