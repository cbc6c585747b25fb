from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from asyncbackup.format.piece import MAX_PIECES, PieceRange

PIECE = PieceRange(2, 3, first=4, end=6, planned=5, plan="ab" * 16)


def test_what_is_written_is_what_is_read() -> None:
    assert PieceRange.from_fields(PIECE.as_dict()) == PIECE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"number": 0}, "number: expected a number from 1 to 3, got 0"),
        ({"number": 4}, "number: expected a number from 1 to 3, got 4"),
        ({"count": MAX_PIECES + 1}, "count: expected a number from 1 to 4096, got 4097"),
        ({"first": 7}, "first: expected a number from 0 to 6, got 7"),
        ({"first": True}, "first: expected a number from 0 to 6, got True"),
        ({"number": 1}, "first: expected 0 for the first piece, got 4"),
        ({"end": -1}, "end: expected a number from 0 to 4294967295, got -1"),
        ({"planned": None}, "planned: expected a number from 0 to 4294967295, got None"),
        ({"plan": "AB" * 16}, "plan: expected a digest of 32 hex digits, got 'ABAB"),
    ],
)
def test_a_value_that_no_piece_can_have_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PIECE, **changes)


@pytest.mark.parametrize("found", [None, [], {}, {"number": 1}, PIECE.as_dict() | {"more": 1}])
def test_other_fields_are_refused(found: Any) -> None:
    with pytest.raises(ValueError, match="piece: expected an object with number, count, first"):
        PieceRange.from_fields(found)


def test_a_range_ends_within_the_vdi_and_the_last_one_at_its_end() -> None:
    PIECE.check_within(6)
    with pytest.raises(ValueError, match="end: expected a number from 0 to 5, got 6"):
        PIECE.check_within(5)
    with pytest.raises(ValueError, match="end: expected a number from 7 to 7, got 6"):
        replace(PIECE, number=3).check_within(7)


def test_a_range_is_named_in_words() -> None:
    assert (str(PIECE), PIECE.objects) == ("piece 2 of 3", "objects 4 to 5")
    assert replace(PIECE, end=4).objects == "no objects"
