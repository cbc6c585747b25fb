"""What a pace knows of a path: the best rate lately, and the least latency. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class PathModel:
    """What was learnt of a path."""

    request: int = 0
    """Bytes of a request, as mean of a round: in that with the largest."""
    usual_rate: float = 0.0
    """A sliding mean over some eight rounds that were full. The best rate is above it, if only by chance."""
    latency_s: float | None = None
    """The least mean latency of a round."""
    latency_at_s: float = 0.0
    """When it was seen last."""
    latency_load: float = 0.0
    """Bytes that were in flight then."""
    _rates: deque[tuple[float, float]] = field(default_factory=deque)
    """Times and rates of rounds: the best one, and each that is the best of those after it."""

    @property
    def rate(self) -> float:
        """The best rate, or 0."""
        return self._rates[0][1] if self._rates else 0.0

    def product(self, gain: float) -> int:
        """Give ``gain`` times the bytes that the path holds without a queue."""
        return int(gain * self.rate * (self.latency_s or 0.0))

    def note_rate(self, now_s: float, rate: float, window_s: float, *, is_full: bool) -> None:
        """Take the rate of a round. One that is full makes those older than ``window_s`` forgotten."""
        rates = self._rates
        if not is_full and rate < self.rate:
            return
        if is_full:
            self.usual_rate += (rate - self.usual_rate) / (8 if self.usual_rate else 1)
        while rates and rates[-1][1] <= rate:
            rates.pop()
        rates.append((now_s, rate))
        while rates[0][0] < now_s - window_s:
            rates.popleft()

    def note_latency(self, now_s: float, latency_s: float, load: float) -> None:
        """Take the mean latency of a round, if it is the least."""
        if self.latency_s is None or latency_s <= self.latency_s:
            self.latency_s, self.latency_at_s, self.latency_load = latency_s, now_s, load
