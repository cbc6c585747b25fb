"""Which nodes of a cluster of 1.0 hold an object: consistent hashing. Pure.

Each node has points on a ring of 64 bits, as many as it has vnodes. The replicas of an object are on the nodes of the
first points at or after that of the object, each in another zone. The hash is FNV-1a; ``docs/protocol.md`` has the
details.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from asyncbackup.wire.nodes import Node

_Hashes = NDArray[np.uint64]

_BASIS: Final = 0xCBF29CE484222325
_PRIME: Final = 0x100000001B3
_MASK: Final = (1 << 64) - 1

_MOST_POINTS: Final = 1 << 21
"""Points to make: twice what the largest cluster has, with the vnodes that servers choose by themselves."""
_MOST_OF_A_NODE: Final = 1 << 13
"""Points of one node. They are made one after the other, and a node of usual size has 128."""
_MOST_STEPS: Final = 1 << 12
"""Points to look at for one object. Only a ring that nobody would make needs more."""


def hash_bytes(data: bytes, start: int = _BASIS) -> int:
    """Compute FNV-1a of 64 bits over ``data``, from ``start``."""
    value = start
    for byte in data:
        value = (value ^ byte) * _PRIME & _MASK
    return value


def hash_oid(oid: int) -> int:
    """Give the point of an object."""
    value = hash_bytes(oid.to_bytes(8, "little"))
    return hash_bytes(value.to_bytes(8, "little"), value)


def _hash_again(values: _Hashes) -> _Hashes:
    """Compute FNV-1a over the 8 bytes of each value, from the value itself."""
    prime, byte = np.uint64(_PRIME), np.uint64(0xFF)
    hashed = values.copy()
    for shift in range(0, 64, 8):
        hashed ^= (values >> np.uint64(shift)) & byte
        hashed *= prime
    return hashed


class Ring:
    """The points of ``nodes``. Raises ValueError for more vnodes than a cluster can have."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        vnodes = np.array([node.vnodes for node in nodes], np.int64)
        if vnodes.sum() > _MOST_POINTS:
            raise ValueError(f"expected at most {_MOST_POINTS} vnodes, got {vnodes.sum()}")
        if max(vnodes, default=0) > _MOST_OF_A_NODE:
            raise ValueError(f"expected at most {_MOST_OF_A_NODE} vnodes of a node, got {max(vnodes)}")
        self._zones = [node.zone for node in nodes]
        self._zone_count = len({node.zone for node in nodes if node.vnodes})
        values = np.array([hash_bytes(_address_bytes(node)) for node in nodes], np.uint64)
        points, owners = [], []
        values = _hash_again(values)
        for number in range(int(max(vnodes, default=0))):
            having = np.flatnonzero(vnodes > number)
            values[having] = _hash_again(values[having])
            points.append(values[having])
            owners.append(having)
        all_points = np.concatenate(points) if points else np.zeros(0, np.uint64)
        all_owners = np.concatenate(owners) if owners else np.zeros(0, np.int64)
        order = np.argsort(all_points, kind="stable")
        self._points: _Hashes = all_points[order]
        self._owners = all_owners[order].astype(np.uint16)

    def holders(self, oid: int, copies: int) -> tuple[int, ...]:
        """Give the indices of the nodes that hold the replicas of an object, the first one first.

        There are fewer than ``copies`` where there are fewer zones.
        """
        count = len(self._points)
        wanted = min(copies, self._zone_count)
        if wanted <= 0:
            return ()
        start = int(np.searchsorted(self._points, np.uint64(hash_oid(oid))))
        found: list[int] = []
        zones: set[int] = set()
        for step in range(min(count, _MOST_STEPS)):
            node = int(self._owners[(start + step) % count])
            if self._zones[node] not in zones:
                zones.add(self._zones[node])
                found.append(node)
                if len(found) == wanted:
                    break
        return tuple(found)


def _address_bytes(node: Node) -> bytes:
    address = ipaddress.ip_address(node.host).packed.rjust(16, b"\0")
    return address + node.port.to_bytes(2, "little")
