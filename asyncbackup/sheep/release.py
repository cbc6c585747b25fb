"""Holds the differences between releases of sheepdog that a client notices."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from asyncbackup.wire.constants import FIRST_INTERNAL_OPCODE, Opcode

_SINCE_1_0: Final = frozenset({Opcode.GET_CLUSTER_DEFAULT, Opcode.READ_DEL_VDIS, Opcode.OIDS_EXIST})
_SINCE_0_6: Final = frozenset({Opcode.DISCARD_OBJ, Opcode.DEL_VDI, Opcode.STAT, Opcode.EXIST, Opcode.CLUSTER_INFO})


@dataclass(frozen=True, slots=True)
class Traits:
    """``missing`` are opcodes that the release does not know."""

    name: str
    internal_version: int
    newest_public_version: int
    missing: frozenset[Opcode]
    trims_from_version: int | None = None
    wide_copies: bool = False
    """``copies`` of a request is a u32, so the three bytes after it have to be 0."""
    overwrites_attributes: bool = False
    """An attribute that is written takes the place of whatever has its id (from 0.9 on): nothing is read before."""


class Release(Enum):
    """A sheepdog release to behave like."""

    V1_0 = Traits("1.0", 0x0A, 2, frozenset({Opcode.DEL_VDI_OLD}), overwrites_attributes=True)
    V0_6 = Traits("0.6", 0x07, 2, _SINCE_1_0 | {Opcode.DEL_VDI_OLD}, trims_from_version=2, wide_copies=True)
    V0_4 = Traits("0.4", 0x06, 1, _SINCE_1_0 | _SINCE_0_6, wide_copies=True)

    def accepts(self, opcode: int, proto_ver: int) -> bool:
        """Tell whether a request's protocol version fits: exactly the internal one, at most the newest public one."""
        if opcode >= FIRST_INTERNAL_OPCODE:
            return proto_ver == self.value.internal_version
        return proto_ver <= self.value.newest_public_version

    def knows(self, opcode: int) -> bool:
        return opcode not in self.value.missing

    def trims(self, proto_ver: int) -> bool:
        """Tell whether READ_OBJ answers to this public version come without zero sectors at their ends."""
        oldest = self.value.trims_from_version
        return oldest is not None and proto_ver >= oldest
