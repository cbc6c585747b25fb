"""The numbers that are told of measurements. Pure.

What disturbs a machine for a while disturbs all that runs then. So ratios are taken within a round, and are told as a
median, with the least and the most beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple


class Spread(NamedTuple):
    """The median of some values, and between which they lie."""

    median: float
    least: float
    most: float

    def is_clear_of(self, value: float) -> bool:
        """Tell whether all values are on one side of ``value``: else a difference to it may be noise."""
        return not self.least <= value <= self.most

    def overlaps(self, other: Spread) -> bool:
        """Tell whether the two have values in common: then a difference between them may be noise."""
        return self.least <= other.most and other.least <= self.most


def spread(values: Sequence[float]) -> Spread:
    """Give the spread of at least one value."""
    return Spread(median(values), min(values), max(values))


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Divide what was measured in the same round. Raises ValueError unless there are as many of both."""
    return [above / below for above, below in zip(numerators, denominators, strict=True)]
