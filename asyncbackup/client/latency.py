"""How long answers took: a histogram of constant size. Pure.

Its buckets grow by a twentieth each, so that a quantile is right within five per cent, as in HdrHistogram.
"""

from __future__ import annotations

import math
from typing import Final

_LEAST_S: Final = 1e-5
_GROWTH: Final = math.log(1.05)
_BUCKETS: Final = 340
"""From 10 microseconds to more than two minutes."""
_PERCENTS: Final = ("1", "5", "10", "25", "50", "75", "90", "95", "99", "99.9", "100")
"""Enough to draw how latencies are distributed."""


class Latencies:
    """Counts latencies. With ``memory`` older ones fade: about so many of the last ones decide."""

    def __init__(self, memory: int | None = None) -> None:
        self.count = 0
        """Latencies that were noted."""
        self._memory = memory
        self._counts = [0] * _BUCKETS
        self._total = 0

    def note(self, latency_s: float) -> None:
        """Take note of one."""
        bucket = int(math.log(latency_s / _LEAST_S) / _GROWTH) if latency_s > _LEAST_S else 0
        self._counts[min(bucket, _BUCKETS - 1)] += 1
        self._total += 1
        self.count += 1
        if self._total == self._memory:
            self._counts = [count // 2 for count in self._counts]
            self._total = sum(self._counts)

    def add(self, other: Latencies) -> None:
        """Take over what another one counted. Older ones do not fade for that."""
        self._counts = [ours + theirs for ours, theirs in zip(self._counts, other._counts, strict=True)]
        self._total += other._total
        self.count += other.count

    def quantile_s(self, share: float) -> float | None:
        """Give the seconds within which ``share`` of the answers came (0 to 1); None if there was none."""
        wanted = share * self._total
        seen = 0
        for bucket, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                return _LEAST_S * math.exp(_GROWTH * (bucket + 1))
        return None

    def percentiles_s(self) -> dict[str, float]:
        """Give the seconds within which so many per cent of the answers came; nothing if there was none."""
        found = {percent: self.quantile_s(float(percent) / 100) for percent in _PERCENTS}
        return {percent: latency_s for percent, latency_s in found.items() if latency_s is not None}
