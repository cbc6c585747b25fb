"""Which VDI descends from which. Pure, and without recursion: a line of descent may be very long."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from asyncbackup.wire.inode import Inode


class Member(NamedTuple):
    """An inode and its place. At ``depth`` 0 its parent is unknown; ``is_last``: it is the last child of its parent.

    ``is_cut``: its line of parents leads back to itself. No cluster makes such a line; it is cut here.
    """

    inode: Inode
    depth: int
    is_last: bool
    is_cut: bool = False


def descend(inodes: Sequence[Inode]) -> Iterator[Member]:
    """Give each inode once, parents before their children, and siblings in the order of ``inodes``."""
    known = {inode.vdi_id: inode for inode in inodes}
    children: defaultdict[int, list[Inode]] = defaultdict(list)
    for inode in inodes:
        children[inode.parent_vdi_id if inode.parent_vdi_id in known else 0].append(inode)
    given: set[int] = set()

    def walk(roots: list[Inode], *, is_cut: bool) -> Iterator[Member]:
        to_do = [Member(root, 0, root is roots[-1], is_cut) for root in reversed(roots)]
        while to_do:
            member = to_do.pop()
            given.add(member.inode.vdi_id)
            yield member
            below = [child for child in children[member.inode.vdi_id] if child.vdi_id not in given]
            to_do += [Member(child, member.depth + 1, child is below[-1]) for child in reversed(below)]

    yield from walk(children.pop(0, []), is_cut=False)
    for inode in inodes:
        if inode.vdi_id not in given:
            yield from walk([_first_met_twice(inode, known)], is_cut=True)


def _first_met_twice(inode: Inode, known: dict[int, Inode]) -> Inode:
    """Go from parent to parent, and give the first one that was met before: the entry to a circle of parents."""
    met: set[int] = set()
    while inode.vdi_id not in met:
        met.add(inode.vdi_id)
        inode = known[inode.parent_vdi_id]
    return inode
