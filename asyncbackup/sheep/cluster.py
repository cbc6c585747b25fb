"""What the nodes of an embedded cluster have in common: who is in it, its objects, its VDIs and its attributes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from asyncbackup.sheep.attributes import Attributes
from asyncbackup.sheep.membership import Membership
from asyncbackup.sheep.release import Release
from asyncbackup.sheep.replicas import Member, Replicas
from asyncbackup.sheep.store import ClusterConfig, Store
from asyncbackup.sheep.volumes import Volumes
from asyncbackup.wire.constants import DEFAULT_BLOCK_SIZE_SHIFT
from asyncbackup.wire.nodes import Node
from asyncbackup.wire.oid import vdi_of

VNODES: Final = 128
"""What a single node of 1.0 comes to: all vnodes that sheep gives to an average node."""


class ClusterState:
    """The state of a cluster with a node for each of ``stores``.

    New stores are formatted with ``copies``; formatted ones keep their own.
    """

    def __init__(
        self,
        stores: Sequence[Store],
        *,
        copies: int = 1,
        release: Release = Release.V1_0,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.release = release
        self.members = [Member(store) for store in stores]
        self.membership = Membership()
        self.replicas = Replicas(self.members, self.membership, self._copies_of)
        self.config = self.replicas.load_config() or _format(self.replicas, copies, clock_ns())
        self.volumes = Volumes(self.replicas, self.config, release, clock_ns)
        self.attributes = Attributes(self.replicas, overwrites=release.value.overwrites_attributes)
        self._clock_ns = clock_ns
        self._addresses = [("127.0.0.1", 0)] * len(stores)

    def _copies_of(self, oid: int) -> int:
        return self.volumes.state(vdi_of(oid)).copies

    def begin(self, addresses: Sequence[tuple[str, int]]) -> None:
        """Begin an epoch in which the nodes are at ``addresses``, IPv4 or IPv6 ones; the ring depends on them."""
        self._addresses = [*addresses]
        self._change_membership()

    def leave(self, index: int) -> None:
        """Take a node out of the cluster. The others make up for its replicas at once, as far as they have others."""
        member = self.members[index]
        member.is_present = member.is_stalled = False
        self._change_membership()

    def join(self, index: int) -> None:
        """Take a node that left into the cluster again, with what its store holds and is not out of date."""
        self.members[index].is_present = True
        self._change_membership()

    def _change_membership(self) -> None:
        # A zone for each: no two replicas are on one node.
        nodes = {
            index: Node(*self._addresses[index], index + 1, VNODES, member.store.space().size)
            for index, member in enumerate(self.members)
            if member.is_present
        }
        self.membership.change(nodes, self._clock_ns() // 10**9)
        if len(self.members) > 1:
            self.replicas.recover()


def _format(store: Store, copies: int, now_ns: int) -> ClusterConfig:
    seconds, nanoseconds = divmod(now_ns, 10**9)
    config = ClusterConfig(seconds << 32 | nanoseconds, copies, DEFAULT_BLOCK_SIZE_SHIFT)
    store.save_config(config)
    return config
