"""Who is in an embedded cluster, epoch by epoch, and which of them hold an object: the ring of 1.0. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from asyncbackup.client.ring import Ring
from asyncbackup.wire.nodes import Node

MAX_PLACES: Final = 1 << 16
"""Objects whose holders are kept in mind."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """The nodes of a cluster from ``time_s`` on, in seconds since 1970, until the next epoch began."""

    number: int
    time_s: int
    nodes: tuple[Node, ...]


class Membership:
    """The nodes of a cluster, each under the index that it keeps when it leaves and comes back."""

    def __init__(self) -> None:
        self.epochs: list[Epoch] = []
        """All epochs, the newest one last."""
        self._indices: list[int] = []
        self._ring = Ring([])
        self._places: dict[tuple[int, int], tuple[int, ...]] = {}

    def change(self, nodes: Mapping[int, Node], time_s: int) -> None:
        """Begin a new epoch, with ``nodes`` by their indices."""
        self._indices = list(nodes)
        self._ring = Ring([*nodes.values()])
        self._places.clear()
        self.epochs.append(Epoch(self.epoch + 1, time_s, tuple(nodes.values())))

    @property
    def epoch(self) -> int:
        """The number of the present epoch, from 1; 0 before the first one."""
        return len(self.epochs)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes of the present epoch."""
        return self.epochs[-1].nodes if self.epochs else ()

    def holders(self, oid: int, copies: int) -> tuple[int, ...]:
        """Give the indices of the nodes that hold an object, the first one first."""
        found = self._places.get((oid, copies))
        if found is None:
            if len(self._places) >= MAX_PLACES:
                self._places.clear()
            found = tuple(self._indices[index] for index in self._ring.holders(oid, copies))
            self._places[oid, copies] = found
        return found
