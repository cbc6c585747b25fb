"""Object id arithmetic: 64 bits, the kind in the top bits, the vdi id in bits 32 to 55, an index below."""

from __future__ import annotations

from typing import Final

INODE_BIT: Final = 1 << 63
VMSTATE_BIT: Final = 1 << 62
ATTR_BIT: Final = 1 << 61
BTREE_BIT: Final = 1 << 60
LEDGER_BIT: Final = 1 << 59

_VDI_SHIFT: Final = 32
_VDI_MASK: Final = 0xFFFFFF
_KIND_BITS: Final = INODE_BIT | VMSTATE_BIT | ATTR_BIT | BTREE_BIT | LEDGER_BIT


def data_oid(vdi_id: int, idx: int) -> int:
    """Name the data object at index ``idx`` that VDI ``vdi_id`` owns."""
    return vdi_id << _VDI_SHIFT | idx


def inode_oid(vdi_id: int) -> int:
    """Name the inode object of VDI ``vdi_id``."""
    return INODE_BIT | vdi_id << _VDI_SHIFT


def attribute_oid(vdi_id: int, attr_id: int) -> int:
    """Name the object of an attribute; servers say both ids, the first follows from the VDI's name."""
    return ATTR_BIT | vdi_id << _VDI_SHIFT | attr_id


def vdi_of(oid: int) -> int:
    """Give the vdi id in an object id of any kind."""
    return oid >> _VDI_SHIFT & _VDI_MASK


def index_of(oid: int) -> int:
    """Give the index (data object) or number (B-tree node) in an object id."""
    return oid & 0xFFFFFFFF


def is_data(oid: int) -> bool:
    """Tell whether ``oid`` names a data object."""
    return not oid & _KIND_BITS
