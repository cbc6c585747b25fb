"""Pieces of a backup that do not make a whole one."""

from __future__ import annotations

from collections.abc import Sequence

from asyncbackup.errors.incompatible import Incompatible
from asyncbackup.errors.wording import list_indices


class PieceGiven(Incompatible):
    """``source`` is piece ``number`` of ``count`` of a backup, and a whole backup is needed."""

    def __init__(self, source: str, number: int, count: int) -> None:
        super().__init__(f"{source} is piece {number} of {count} of a backup, not a whole one")
        self.source = source
        self.number = number
        self.count = count


class PieceNeeded(Incompatible):
    """``source`` is no piece of a backup; ``problem`` says why."""

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(f"{source} is no piece of a backup: {problem}")
        self.source = source


class PieceForeign(Incompatible):
    """``source`` does not go together with the other piece ``other``: its ``fact`` is ``got`` and not ``expected``."""

    def __init__(self, source: str, other: str, fact: str, expected: object, got: object) -> None:
        super().__init__(
            f"{source} is no piece of the backup that {other} is of: {fact}: expected {expected}, got {got}"
        )
        self.source = source
        self.other = other
        self.fact = fact


class PieceDoubled(Incompatible):
    """``sources`` are all piece ``number`` of ``count``."""

    def __init__(self, sources: Sequence[str], number: int, count: int) -> None:
        super().__init__(f"{' and '.join(sources)} are both piece {number} of {count}")
        self.sources = tuple(sources)
        self.number = number


class PieceMissing(Incompatible):
    """Of ``count`` pieces those with ``numbers`` are not there."""

    def __init__(self, numbers: Sequence[int], count: int) -> None:
        noun, verb = ("piece", "is") if len(numbers) == 1 else ("pieces", "are")
        super().__init__(f"{noun} {list_indices(numbers)} of {count} {verb} missing")
        self.numbers = tuple(numbers)
        self.count = count
