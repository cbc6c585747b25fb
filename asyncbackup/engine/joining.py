"""Decides whether pieces make a backup, and in which order. Pure. ``verbs/join`` copies what is in them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from asyncbackup.errors import PieceDoubled, PieceForeign, PieceMissing
from asyncbackup.format.manifest import Subject, Trailer
from asyncbackup.format.piece import PieceRange


@dataclass(frozen=True, slots=True)
class NamedPiece:
    """A piece, as its manifest says it, and where it is."""

    path: str | os.PathLike[str]
    subject: Subject
    trailer: Trailer

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def range(self) -> PieceRange:
        assert self.subject.piece is not None
        return self.subject.piece

    @property
    def facts(self) -> dict[str, object]:
        """Give what all pieces of a backup have in common, by what messages call it."""
        of, piece = self.subject, self.range
        return {
            "VDI": f"'{of.vdi}'",
            "cluster": of.cluster,
            "snapshot": of.identity,
            "base": of.base_identity or "nothing",
            "format": of.dialect.value,
            "pieces": piece.count,
            "objects in the plan": piece.planned,
            "plan": piece.plan,
            "size": of.size,
            "object size": of.object_size,
            "redundancy": (of.copies, of.copy_policy),
            "base size": of.base_size,
        }


def arrange_pieces(pieces: Sequence[NamedPiece]) -> list[NamedPiece]:
    """Put ``pieces``, at least one, in the order in which they make a backup.

    Raises PieceForeign, PieceDoubled and PieceMissing. A piece is foreign if it differs from most others.
    """
    _refuse_foreign(pieces)
    ordered = sorted(pieces, key=lambda each: each.range.number)
    count = ordered[0].range.count
    names: dict[int, list[str]] = {}
    for each in ordered:
        names.setdefault(each.range.number, []).append(each.name)
    for number, given in names.items():
        if len(given) > 1:
            raise PieceDoubled(given, number, count)
    missing = [number for number in range(1, count + 1) if number not in names]
    if missing:
        raise PieceMissing(missing, count)
    before = ordered[0]
    for each in ordered[1:]:
        if each.range.first != before.range.end:
            raise PieceForeign(each.name, before.name, "first object", before.range.end, each.range.first)
        before = each
    return ordered


def join_subjects(pieces: Sequence[NamedPiece]) -> Subject:
    """Say what the backup is of that ``pieces`` make."""
    return replace(pieces[0].subject, piece=None, may_lack=any(each.subject.may_lack for each in pieces))


def _refuse_foreign(pieces: Sequence[NamedPiece]) -> None:
    values = [tuple(each.facts.items()) for each in pieces]
    usual, _ = Counter(values).most_common(1)[0]
    one = pieces[values.index(usual)]
    for each, own in zip(pieces, values, strict=True):
        for (fact, expected), (_, got) in zip(usual, own, strict=True):
            if got != expected:
                raise PieceForeign(each.name, one.name, fact, expected, got)
