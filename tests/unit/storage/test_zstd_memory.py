from __future__ import annotations

import pytest

from asyncbackup.storage.zstd_memory import plan_threads

MIB = 1 << 20


@pytest.mark.parametrize(("level", "each"), [(3, 6), (6, 8), (7, 14), (12, 14), (13, 20), (22, 20)])
def test_threads_are_counted_by_their_level_but_for_what_is_free(level: int, each: int) -> None:
    assert plan_threads(level, 4, 1024 * MIB, may_be_fewer=True) == (4, (4 * each - 8) * MIB)


@pytest.mark.parametrize(("memory", "threads", "held"), [(128, 8, 40), (64, 6, 28), (8, 2, 4), (1, 1, 0)])
def test_there_are_as_many_as_half_of_the_memory_is_enough_for(memory: int, threads: int, held: int) -> None:
    assert plan_threads(3, 8, memory * MIB, may_be_fewer=True) == (threads, held * MIB)


def test_a_number_that_was_asked_for_stays() -> None:
    assert plan_threads(19, 8, 32 * MIB, may_be_fewer=False) == (8, 152 * MIB)
