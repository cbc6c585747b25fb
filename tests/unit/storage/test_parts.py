"""Parts are as large as memory allows and the object needs."""

from __future__ import annotations

import pytest

from asyncbackup.errors import MemoryTooSmall
from asyncbackup.storage.parts import Parts, plan_parts


def test_parts_take_a_share_of_the_memory() -> None:
    assert plan_parts(None, 128 << 20) == Parts(8 << 20, 5)
    assert plan_parts(None, 32 << 20) == Parts(5 << 20, 3)
    assert plan_parts(None, 16 << 30) == Parts(64 << 20, 5)


def test_parts_are_large_enough_for_a_large_object() -> None:
    parts = plan_parts(1 << 40, 1 << 30)
    assert parts.most >= 1 << 40
    assert 2 * parts.memory <= 1 << 30


def test_a_large_object_needs_memory() -> None:
    with pytest.raises(MemoryTooSmall) as caught:
        plan_parts(1 << 40, 128 << 20)
    assert plan_parts(1 << 40, caught.value.needed).most >= 1 << 40


def test_an_object_that_may_be_smaller_gets_what_memory_allows() -> None:
    assert plan_parts(1 << 40, 128 << 20, may_be_less=True) == Parts(21 << 20, 3)


def test_a_small_object_needs_little_memory() -> None:
    assert plan_parts(1 << 20, 4 << 20).size == 5 << 20
