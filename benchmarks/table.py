"""Plain text tables, and the numbers in them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median


def draw(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for row in (header, *rows):
        first, *others = [
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join((first, *others)).rstrip())
    return "\n".join(lines)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Write the median, and between which values all are: ``1.07 (1.02-1.11)``."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Divide what was measured in the same round: a round's noise is mostly in both."""
    return [above / below for above, below in zip(numerators, denominators, strict=True)]
