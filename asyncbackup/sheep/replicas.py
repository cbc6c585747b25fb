"""The objects of an embedded cluster: each in the stores of the nodes that the ring names.

The law of this module:

- After each change, exactly the holders that are present have an object. So a store never has an old state of one.
- A node that comes back has missed changes. It drops what changed meanwhile, and gets it from the others.
- An object of which no replica is present is missing, until a node with one comes back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from asyncbackup.sheep.membership import Membership
from asyncbackup.sheep.store import ClusterConfig, Piece, Space, Store
from asyncbackup.wire.messages import Bytes

_STEP: Final = 1 << 16
_ZEROS: Final = bytes(_STEP)


@dataclass(slots=True, eq=False)
class Member:
    """A node's own store, and how the node fares."""

    store: Store
    is_present: bool = True
    is_stalled: bool = False
    """Whether it hangs: then it is in the cluster, and answers nothing, the other nodes included."""
    missed: set[int] = field(default_factory=set)
    """The objects that changed since the node left."""


class Replicas:
    """A store over the stores of several nodes. ``copies_of`` gives how often an object is to be kept."""

    def __init__(self, members: Sequence[Member], membership: Membership, copies_of: Callable[[int], int]) -> None:
        self._members = members
        self._membership = membership
        self._copies_of = copies_of

    @property
    def _present(self) -> list[Member]:
        return [member for member in self._members if member.is_present]

    def holders(self, oid: int) -> list[Member]:
        """Give the nodes that are to hold an object, the first one first. All of them are present."""
        if len(self._members) == 1:
            return self._present
        return [self._members[index] for index in self._membership.holders(oid, self._copies_of(oid))]

    def get(self, oid: int) -> memoryview | None:
        for member in self._present:
            if (view := member.store.get(oid)) is not None:
                return view
        return None

    def put(self, oid: int, size: int, pieces: Iterable[Piece]) -> None:
        pieces = list(pieces)
        for member in self._changing(oid):
            member.store.put(oid, size, pieces)

    def write(self, oid: int, offset: int, data: Bytes) -> bool:
        written = [member.store.write(oid, offset, data) for member in self._changing(oid)]
        return any(written)

    def remove(self, oid: int) -> bool:
        removed = [member.store.remove(oid) for member in self._changing(oid)]
        return any(removed)

    def _changing(self, oid: int) -> list[Member]:
        for member in self._members:
            if not member.is_present:
                member.missed.add(oid)
        return self.holders(oid)

    def oids(self) -> list[int]:
        return list({oid for member in self._present for oid in member.store.oids()})

    def space(self) -> Space:
        spaces = [member.store.space() for member in self._present]
        return Space(sum(space.size for space in spaces), sum(space.used for space in spaces))

    def load_config(self) -> ClusterConfig | None:
        return self._members[0].store.load_config()

    def save_config(self, config: ClusterConfig) -> None:
        for member in self._members:
            member.store.save_config(config)

    def recover(self) -> None:
        """Move replicas to where the ring of a new epoch wants them, at once."""
        for member in self._present:
            for oid in member.missed:
                member.store.remove(oid)
            member.missed.clear()
        for oid in self.oids():
            self._move(oid)

    def _move(self, oid: int) -> None:
        having = [member for member in self._present if member.store.get(oid) is not None]
        holders = self.holders(oid)
        view = having[0].store.get(oid)
        assert view is not None
        for member in holders:
            if member not in having:
                member.store.put(oid, len(view), _used(view))
        for member in having:
            if member not in holders:
                member.store.remove(oid)


def _used(view: memoryview) -> Iterator[Piece]:
    """Give what is not zeros: most of an inode is, and takes no memory before it is written."""
    for start in range(0, len(view), _STEP):
        piece = view[start : start + _STEP]
        if piece != _ZEROS[: len(piece)]:
            yield start, piece
