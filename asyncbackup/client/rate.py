"""How many bytes a second may be read: a token bucket. Pure: callers tell the time, and wait."""

from __future__ import annotations

from typing import Final

BURST_S: Final = 0.25
"""Seconds of the rate that may be taken at once: short enough that a link, and its other users, hardly notice."""


class Bucket:
    """Lets ``rate`` bytes a second through. Who takes more than there is waits until it would be there.

    So the order in which bytes are taken is the order in which they go.
    """

    def __init__(self, rate: float, now_s: float) -> None:
        self._rate = rate
        self._left = rate * BURST_S
        self._at_s = now_s

    def take(self, now_s: float, size: int, *, share: float = 1.0) -> float:
        """Take ``size`` bytes, and give the seconds to wait before they are used.

        ``share`` of the rate counts from the last call until now, and for the wait.
        """
        rate = self._rate * share
        self._left = min(rate * BURST_S, self._left + (now_s - self._at_s) * rate)
        self._at_s = now_s
        self._left -= size
        return max(0.0, -self._left / rate)
