from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from asyncbackup.engine.joining import NamedPiece, arrange_pieces, join_subjects
from asyncbackup.errors import PieceDoubled, PieceForeign, PieceMissing
from asyncbackup.format import Dialect
from asyncbackup.format.identity import Identity
from asyncbackup.format.manifest import Subject, Trailer
from asyncbackup.format.piece import PieceRange

WHOLE = Subject(
    size=8 << 20,
    object_size=1 << 20,
    copies=1,
    copy_policy=0,
    dialect=Dialect.COLLIE,
    identity=Identity("vm", "2", "2026-11-02T01:00:00.000000000Z", None, 2, "b"),
    base_identity=None,
    base_size=None,
)
BOUNDS = [0, 3, 3, 8]


def piece(number: int, **changes: Any) -> NamedPiece:
    """Make one of three pieces; ``changes`` are of its range, or else of its subject."""
    of_range = {name: changes.pop(name) for name in list(changes) if name in PieceRange.__dataclass_fields__}
    found = PieceRange(number, 3, BOUNDS[number - 1], BOUNDS[number], 6, "0" * 32)
    return NamedPiece(Path(f"p{number}"), replace(WHOLE, piece=replace(found, **of_range), **changes), Trailer(0, 0))


PIECES = [piece(1), piece(2), piece(3)]


def test_pieces_in_any_order_come_into_theirs() -> None:
    assert arrange_pieces([PIECES[2], PIECES[0], PIECES[1]]) == PIECES


def test_pieces_that_are_missing_are_named() -> None:
    with pytest.raises(PieceMissing, match="pieces 1, 3 of 3 are missing") as caught:
        arrange_pieces([PIECES[1]])

    assert caught.value.numbers == (1, 3)


def test_a_piece_that_was_given_twice_is_named() -> None:
    with pytest.raises(PieceDoubled, match="p2 and p2 are both piece 2 of 3"):
        arrange_pieces([PIECES[0], PIECES[1], PIECES[1], PIECES[2]])


OTHER = replace(WHOLE.identity, vdi_id="3")


@pytest.mark.parametrize(
    ("foreign", "fact"),
    [
        (piece(2, plan="1" * 32), "plan"),
        (piece(2, planned=7), "objects in the plan"),
        (piece(2, identity=OTHER), "snapshot"),
        (piece(2, identity=replace(WHOLE.identity, created="2026-11-02T01:00:00.000000001Z")), "snapshot"),
        (piece(2, base_identity=replace(OTHER, vdi_id="1"), base_size=1), "base"),
        (piece(2, dialect=Dialect.DOG), "format"),
        (piece(2, count=4), "pieces"),
        (piece(2, copies=2), "redundancy"),
        (piece(2, size=(8 << 20) - 512), "size"),
        (piece(2, identity=replace(WHOLE.identity, vdi="other")), "VDI"),
        (piece(2, identity=replace(WHOLE.identity, cluster="2026-01-01T00:00:00.000000000Z")), "cluster"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_foreign_piece_is_the_one_that_differs_from_most(foreign: NamedPiece, fact: str) -> None:
    for given in ([foreign, PIECES[0], PIECES[2]], [PIECES[0], foreign, PIECES[2]]):
        with pytest.raises(PieceForeign) as caught:
            arrange_pieces(given)

        assert (caught.value.source, caught.value.other, caught.value.fact) == ("p2", "p1", fact)


def test_a_range_that_does_not_follow_is_foreign() -> None:
    with pytest.raises(PieceForeign, match=r"p3 is no piece .* p2 is of: first object: expected 3, got 4"):
        arrange_pieces([PIECES[0], PIECES[1], piece(3, first=4)])


def test_the_whole_may_lack_what_one_piece_may_lack() -> None:
    assert join_subjects(PIECES) == WHOLE
    assert join_subjects([PIECES[0], piece(2, may_lack=True), PIECES[2]]) == replace(WHOLE, may_lack=True)
