from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from asyncbackup.engine.fetch import Unreadable
from asyncbackup.engine.plan import Pair
from asyncbackup.engine.unreadable import Losses, raise_failures, until_failure
from asyncbackup.errors import ObjectReadFailed, ObjectsUnreadable


def lost(idx: int) -> Unreadable:
    return Unreadable(idx, ObjectReadFailed(idx, idx, 2, "no such object"))


async def pairs(count: int) -> AsyncGenerator[Pair, None]:
    for idx in range(count):
        yield Pair(idx, 1, (0,))


def test_what_is_skipped_is_kept_in_mind() -> None:
    losses = Losses(are_skipped=True)
    losses.begin_with([1, 2])

    assert losses.note(lost(5))
    raise_failures([losses])
    assert losses.missing.tolist() == [1, 2, 5]


async def test_after_a_failure_no_more_is_begun() -> None:
    losses, seen = Losses(are_skipped=False), []

    async for pair in until_failure(pairs(9), [losses]):
        seen.append(pair.idx)
        if pair.idx == 2:
            assert not losses.note(lost(2))

    assert seen == [0, 1, 2]


async def test_all_is_begun_where_losses_are_skipped() -> None:
    losses = Losses(are_skipped=True)
    losses.note(lost(0))

    assert len([pair async for pair in until_failure(pairs(4), [losses])]) == 4


def test_one_failure_is_raised_as_it_is() -> None:
    losses, failure = Losses(are_skipped=False), lost(4)
    losses.note(failure)

    with pytest.raises(ObjectReadFailed) as raised:
        raise_failures([losses])
    assert raised.value is failure.error


def test_several_failures_are_named_together() -> None:
    losses = Losses(are_skipped=False)
    for idx in (4, 7, 9):
        losses.note(lost(idx))

    with pytest.raises(
        ObjectsUnreadable, match="3 objects cannot be read: 4, 7, 9; the first of them: reading"
    ) as raised:
        raise_failures([losses])
    assert raised.value.idx == 4
    assert [failure.idx for failure in raised.value.failures] == [4, 7, 9]


def test_what_several_backups_lack_is_named_once() -> None:
    first, second = Losses(are_skipped=False), Losses(are_skipped=False)
    for losses, idx in ((first, 4), (second, 4), (second, 2)):
        losses.note(lost(idx))

    with pytest.raises(ObjectsUnreadable) as raised:
        raise_failures([first, second])
    assert [failure.idx for failure in raised.value.failures] == [2, 4]
