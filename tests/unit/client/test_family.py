from __future__ import annotations

import pytest

from asyncbackup.client.family import descend
from asyncbackup.wire.inode import Inode


def family(*descents: tuple[int, int]) -> list[Inode]:
    """Make VDIs from ids and the ids of their parents."""
    return [Inode(f"vdi{vdi_id}", vdi_id, 1 << 22, parent_vdi_id=parent) for vdi_id, parent in descents]


def places(inodes: list[Inode]) -> list[tuple[int, int, bool, bool]]:
    return [(member.inode.vdi_id, member.depth, member.is_last, member.is_cut) for member in descend(inodes)]


def test_nothing_descends_from_nothing() -> None:
    assert places([]) == []


def test_children_follow_their_parent_in_their_order() -> None:
    found = places(family((9, 0), (3, 9), (7, 9), (4, 3), (8, 0)))

    assert found == [
        (9, 0, False, False),
        (3, 1, False, False),
        (4, 2, True, False),
        (7, 1, True, False),
        (8, 0, True, False),
    ]


def test_a_parent_that_is_not_there_is_none() -> None:
    assert places(family((3, 77))) == [(3, 0, True, False)]


def test_a_circle_is_cut_where_it_is_entered_and_all_are_given_once() -> None:
    found = places(family((1, 0), (5, 4), (4, 3), (3, 2), (2, 4)))

    assert found == [
        (1, 0, True, False),
        (4, 0, True, True),
        (5, 1, False, False),
        (2, 1, True, False),
        (3, 2, True, False),
    ]


def test_a_vdi_that_is_its_own_parent_is_cut() -> None:
    assert places(family((5, 5))) == [(5, 0, True, True)]


@pytest.mark.slow
def test_a_line_of_100000_is_followed() -> None:
    line = family(*((vdi_id, vdi_id - 1) for vdi_id in range(1, 100_001)))

    assert [(member.inode.vdi_id, member.depth) for member in descend(line)] == [(n, n - 1) for n in range(1, 100_001)]
