"""Other ways to find out how much may be in flight, to compare ``client/pace`` with them.

They count requests, and are told of each latency. The formulas and constants are those of Gradient2Limit, VegasLimit
and WindowedLimit of Netflix/concurrency-limits; where they begin, and the least they go to, is as for a Pace. A window
is as short as a round of a Pace, not a second: else they had no chance to learn anything in a short run.
"""

from __future__ import annotations

import math
import random
from typing import Final

from asyncbackup.client.pace import PaceOptions
from tests.simulated import READ

_OPTIONS: Final = PaceOptions()
_MOST: Final = _OPTIONS.most_bytes // READ


class _Requests:
    """Counts requests in flight, up to a number that changes."""

    def __init__(self) -> None:
        self.most = float(_OPTIONS.start_bytes // READ)
        self.in_flight = 0
        self._count = 0

    @property
    def limit(self) -> int:
        return int(self.most) * READ

    def has_room(self, size: int) -> bool:  # noqa: ARG002 - a request counts as one, whatever its size is
        return self._count < int(self.most)

    def note_waiting(self) -> None:
        pass

    def note_sent(self, now_s: float, size: int) -> tuple[float, int]:
        self._count += 1
        self.in_flight += size
        return now_s, size

    def note_answered(self, now_s: float, sent: tuple[float, int]) -> None:
        at_s, size = sent
        self.learn(now_s, now_s - at_s, self._count)
        self._count -= 1
        self.in_flight -= size

    def learn(self, now_s: float, latency_s: float, count: int) -> None:
        """Take the latency of an answer, and how many requests were in flight when it came."""

    def set_most(self, most: float) -> None:
        self.most = max(_OPTIONS.least_bytes / READ, min(_MOST, most))


class Fixed(_Requests):
    """As many as in the beginning, for ever."""


class Gradient(_Requests):
    """Shrinks by as much as latency is above its long average, and grows by four requests.

    The long average follows over some 600 windows: where the queue is there from the beginning, it is taken for normal.
    """

    def __init__(self) -> None:
        super().__init__()
        self._window: list[float] = []
        self._window_at_s = 0.0
        self._long_s = 0.0
        self._windows = 0

    def learn(self, now_s: float, latency_s: float, count: int) -> None:
        self._window.append(latency_s)
        is_long = now_s - self._window_at_s >= _OPTIONS.round_s
        if is_long and len(self._window) >= _OPTIONS.round_answers:
            self._update(sum(self._window) / len(self._window), count)
            self._window, self._window_at_s = [], now_s

    def _update(self, short_s: float, count: int) -> None:
        self._windows += 1
        # The first ten make a plain mean.
        share = 1 / self._windows if self._windows <= 10 else 2 / 601
        self._long_s += (short_s - self._long_s) * share
        if self._long_s > 2 * short_s:
            self._long_s *= 0.9
        if count < self.most / 2:
            return
        gradient = max(0.5, min(1.0, self._long_s / short_s))
        self.set_most(0.8 * self.most + 0.2 * (self.most * gradient + 4))


class Vegas(_Requests):
    """Grows while less than a few requests wait, and shrinks if it is more: few is some times log10 of the limit.

    How many wait follows from the least latency. That is taken anew from time to time, from whatever answer comes then.
    """

    def __init__(self) -> None:
        super().__init__()
        self._random = random.Random(1)
        self._least_s = math.inf
        self._seen = 0
        self._jitter = self._random.uniform(0.5, 1)

    def learn(self, now_s: float, latency_s: float, count: int) -> None:  # noqa: ARG002
        self._seen += 1
        if self._seen >= self._jitter * 30 * self.most:
            self._seen, self._least_s, self._jitter = 0, latency_s, self._random.uniform(0.5, 1)
        elif latency_s < self._least_s:
            self._least_s = latency_s
        elif 2 * count >= self.most:
            self._update(math.ceil(self.most * (1 - self._least_s / latency_s)))

    def _update(self, queue: int) -> None:
        few = max(1.0, math.log10(self.most))
        if queue <= few:
            self.set_most(self.most + 6 * few)
        elif queue < 3 * few:
            self.set_most(self.most + few)
        elif queue > 6 * few:
            self.set_most(self.most - few)
