"""Attributes in a store: each an object, whose id begins at a hash of name and key and goes on where that is taken."""

from __future__ import annotations

from typing import Final

from asyncbackup.sheep.store import Store
from asyncbackup.sheep.volumes import Refused
from asyncbackup.wire.attributes import ATTRIBUTE_SIZE, NAME_OFFSET, TIME_OFFSET, Attribute
from asyncbackup.wire.constants import Flag, Result
from asyncbackup.wire.oid import attribute_oid
from asyncbackup.wire.vdi_ids import fnv1a

_ID_MASK: Final = 0xFFFFFFFF


class Attributes:
    """``overwrites``: writing one takes the place of what stands at its hash, which may be another's (from 0.9 on)."""

    def __init__(self, store: Store, *, overwrites: bool) -> None:
        self._store = store
        self._overwrites = overwrites

    def handle(self, vdi_id: int, asked: Attribute, flags: int) -> int:
        """Do what ``flags`` say with an attribute of the VDIs of a name, ``vdi_id``; give the attribute's id.

        Raises Refused with NO_OBJ if there is none, VDI_EXIST if it is to be made and is there.
        """
        creates, is_exclusive = bool(flags & Flag.ATTR_CREATE), bool(flags & Flag.ATTR_EXCLUSIVE)
        attr_id = _hash(asked)
        if creates and not is_exclusive and self._overwrites:
            self._put(attribute_oid(vdi_id, attr_id), asked)
            return attr_id
        while (view := self._store.get(attribute_oid(vdi_id, attr_id))) is not None:
            if Attribute.unpack(view).is_same(asked):
                if is_exclusive:
                    raise Refused(Result.VDI_EXIST)
                if flags & Flag.ATTR_DELETE:
                    self._store.write(attribute_oid(vdi_id, attr_id), NAME_OFFSET, b"\0")
                elif creates:
                    self._put(attribute_oid(vdi_id, attr_id), asked)
                return attr_id
            attr_id = (attr_id + 1) & _ID_MASK
        if not creates:
            raise Refused(Result.NO_OBJ)
        self._put(attribute_oid(vdi_id, attr_id), asked)
        return attr_id

    def _put(self, oid: int, asked: Attribute) -> None:
        self._store.put(oid, ATTRIBUTE_SIZE, [(0, asked.pack())])


def _hash(asked: Attribute) -> int:
    header = asked.pack_header()
    # The time and the length of the value, on both sides of the snapshot's id, are no part of it.
    after_time = TIME_OFFSET + 8
    return fnv1a(header[:TIME_OFFSET] + header[after_time : after_time + 4] + header[after_time + 8 :]) & _ID_MASK
