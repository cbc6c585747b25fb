from __future__ import annotations

import pytest

from asyncbackup.engine.portion import Portion, cut


def test_what_fits_is_one_portion_which_is_first_and_last() -> None:
    assert list(cut(512, 2048, 4096)) == [Portion(512, 1536, is_first=True, is_last=True)]


@pytest.mark.parametrize(("start", "end", "size"), [(0, 4096, 512), (512, 4096, 1024), (512, 4096, 1536)])
def test_portions_cover_everything_once_in_order_and_fit(start: int, end: int, size: int) -> None:
    portions = list(cut(start, end, size))

    assert [byte for each in portions for byte in range(each.offset, each.end)] == list(range(start, end))
    assert all(0 < portion.length <= size for portion in portions)
    assert [portion.is_first for portion in portions] == [True] + [False] * (len(portions) - 1)
    assert [portion.is_last for portion in portions] == [False] * (len(portions) - 1) + [True]


def test_nothing_has_no_portion() -> None:
    assert list(cut(512, 512, 512)) == []
