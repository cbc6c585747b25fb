"""Which nodes of the cluster hold an object, as far as is known. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

from asyncbackup.client.ring import Ring
from asyncbackup.wire import oid
from asyncbackup.wire.nodes import Node

Address = tuple[str, int]
"""A host and a port."""

_RING_VERSION: Final = 0x0A
"""The internal version of the release whose ring is known, 1.0."""
_MAX_FOUND: Final = 1 << 12
"""Objects of which the holders are kept in mind."""
_MAX_VDIS: Final = 1 << 16
"""VDIs of which the copies are kept in mind."""


class Placement:
    """Knows the nodes of a cluster, the ring of 1.0, and how many copies VDIs have.

    Where it does not know one of these, it names no holder. Then any node will do.
    """

    def __init__(self) -> None:
        self.addresses: list[Address] = []
        """Where the nodes of the cluster serve clients."""
        self._ring: Ring | None = None
        self._copies: dict[int, int] = {}
        self._usual_copies = 1
        self._found: dict[int, list[Address]] = {}
        """What was found out: an object is read in several requests."""

    def learn(self, nodes: Sequence[Node], gateway: Address, peers: set[Address], internal_version: int) -> bool:
        """Take over a list of nodes from ``gateway``, which is connected at ``peers``; False if it is not in the list.

        The gateway keeps the address that it was named by.
        """
        found = [
            index for index, node in enumerate(nodes) if _address(node) in peers or (node.host, node.port) in peers
        ]
        found = found or [index for index, node in enumerate(nodes) if _is_here(node, peers)]
        # The same node may stand in the list more than once.
        places = {_address(nodes[index]) for index in found}
        if not found:
            return False
        self.addresses = [_address(node) for node in nodes]
        self._found.clear()
        if len(places) == 1:
            for index in found:
                self.addresses[index] = gateway
        try:
            self._ring = Ring(nodes) if internal_version == _RING_VERSION else None
        except ValueError:
            self._ring = None
        return True

    def note_copies(self, vdi_id: int, copies: int, copy_policy: int) -> None:
        """Keep in mind how often objects of a VDI are stored. What is coded, and not copied, has no known place."""
        if len(self._copies) >= _MAX_VDIS:
            self._copies.clear()
        self._copies[vdi_id] = 0 if copy_policy else copies
        self._usual_copies = self._copies[vdi_id]
        self._found.clear()

    def knows_copies(self, vdi_id: int) -> bool:
        """Tell whether it is known how many copies there are of a VDI's objects."""
        return vdi_id in self._copies

    def doubt(self, vdi_id: int) -> str | None:
        """Say why it is not known where the objects of a VDI are; None if it is."""
        if self._ring is None:
            return "the nodes of the cluster are not known, or they are of another release than 1.0"
        if not self._copies.get(vdi_id):
            return f"the objects of VDI {vdi_id:x} are coded, and not copied"
        return None

    def holders(self, object_id: int) -> list[Address]:
        """Name the nodes that should hold an object; none if that is not known."""
        if self._ring is None:
            return []
        found = self._found.get(object_id)
        if found is None:
            if len(self._found) >= _MAX_FOUND:
                self._found.clear()
            found = self._found[object_id] = self._find(self._ring, object_id)
        return found

    def _find(self, ring: Ring, object_id: int) -> list[Address]:
        copies = self._copies.get(oid.vdi_of(object_id), self._usual_copies)
        return [self.addresses[index] for index in ring.holders(object_id, copies)]


def _address(node: Node) -> Address:
    """Give where to reach a node: where it advertises an address for data, there."""
    if node.io_host is not None and node.io_port:
        return node.io_host, node.io_port
    return node.host, node.port


def _is_here(node: Node, peers: set[Address]) -> bool:
    """Tell whether a connection over loopback may lead to ``node``, which knows itself by another address."""
    return any(port == node.port and ipaddress.ip_address(host.partition("%")[0]).is_loopback for host, port in peers)
