"""Bodies of the answers that only a server packs: nodes of every release, cluster state, VDI states.

Sizes and offsets are facts of the protocol headers of sheepdog 0.4 to 1.0, checked against running servers.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from asyncbackup.sheep.membership import Epoch
from asyncbackup.wire.constants import EPOCH_LOG_SIZES, VDI_STATE_SIZE
from asyncbackup.wire.nodes import MAX_NODES, NODE_ENTRY_SIZE, Node, pack_node

AUTO_VNODES: Final = 0x0004
"""Cluster flag: the number of virtual nodes follows from the disk space. What ``dog cluster format`` sets."""

STORE_NAME: Final = b"plain"
"""The backend store that a 1.0 cluster is formatted with by default; ``dog cluster info -v`` shows it."""

RECOVERY_STATE_SIZE: Final = 24
STATISTICS_SIZE: Final = 120

_STATUS_OK: Final = 1
_UNLOCKED: Final = 1

_EPOCH_LOG: Final = struct.Struct("<QQIIBBB3xH16s")
_CLUSTER_INFO: Final = struct.Struct("<BBHIQHBBBB3x16s7x")
_CLUSTER_DEFAULT: Final = struct.Struct("<BBB25x")
_VDI_STATE: Final = struct.Struct("<IBBBBB3xII")
_VDI_COPIES_0_7: Final = struct.Struct("<II")
_EPOCH_LOG_0_6: Final = struct.Struct("<QQIII4x")


@dataclass(frozen=True, slots=True)
class VdiState:
    """What a server knows of a VDI without looking at its inode."""

    vdi_id: int
    copies: int
    copy_policy: int
    block_size_shift: int
    parent_vdi_id: int = 0
    is_snapshot: bool = False
    is_deleted: bool = False

    def pack_for(self, internal_version: int) -> bytes:
        """Build the entry of a GET_VDI_COPIES answer: id and copies, in 1.0 VDI_STATE_SIZE bytes, unlocked."""
        if internal_version <= 0x07:
            return _VDI_COPIES_0_7.pack(self.vdi_id, self.copies)
        return _VDI_STATE.pack(
            self.vdi_id,
            self.copies,
            self.is_snapshot,
            self.is_deleted,
            self.copy_policy,
            self.block_size_shift,
            self.parent_vdi_id,
            _UNLOCKED,
        ).ljust(VDI_STATE_SIZE, b"\0")


def pack_node_list(internal_version: int, nodes: Sequence[Node]) -> bytes:
    """Build the GET_NODE_LIST answer of the release that speaks ``internal_version``."""
    return b"".join(pack_node(node, internal_version) for node in nodes)


def pack_epoch_log(ctime: int, copies: int, epochs: Sequence[Epoch], room: int) -> bytes:
    """Build the STAT_CLUSTER answer of 1.0: the newest of ``epochs`` first, with room for ``room`` nodes in each."""
    return b"".join(
        _EPOCH_LOG.pack(
            ctime, epoch.time_s, epoch.number, len(epoch.nodes) if room else 0, 0, copies, 0, AUTO_VNODES, STORE_NAME
        )
        + pack_node_list(0x0A, epoch.nodes if room else ()).ljust(room * NODE_ENTRY_SIZE, b"\0")
        for epoch in reversed(epochs)
    )


def pack_epoch_log_for(internal_version: int, ctime: int, copies: int, epochs: Sequence[Epoch]) -> bytes:
    """Build the STAT_CLUSTER answer of 0.6 and before, which always has room for the most nodes there can be."""
    # In 0.6 a flag, whether recovery is disabled, stands in place of the copies.
    entries = (
        _EPOCH_LOG_0_6.pack(
            ctime, epoch.time_s, epoch.number, len(epoch.nodes), copies if internal_version <= 0x06 else 0
        )
        + pack_node_list(internal_version, epoch.nodes)
        for epoch in reversed(epochs)
    )
    return b"".join(entry.ljust(EPOCH_LOG_SIZES[internal_version], b"\0") for entry in entries)


def pack_cluster_info(internal_version: int, ctime: int, copies: int, block_size_shift: int, epoch: Epoch) -> bytes:
    """Build the CLUSTER_INFO answer: state, then room for the most nodes there can be."""
    info = _CLUSTER_INFO.pack(
        internal_version,
        0,
        len(epoch.nodes),
        epoch.number,
        ctime,
        AUTO_VNODES,
        copies,
        0,
        _STATUS_OK,
        block_size_shift,
        STORE_NAME,
    )
    return info + pack_node_list(0x0A, epoch.nodes).ljust(MAX_NODES * NODE_ENTRY_SIZE, b"\0")


def pack_cluster_default(copies: int, block_size_shift: int) -> bytes:
    """Build the opcode-specific bytes of a GET_CLUSTER_DEFAULT answer."""
    return _CLUSTER_DEFAULT.pack(copies, 0, block_size_shift)
