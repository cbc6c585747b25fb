"""When to send a request to a second node, because the first one takes much longer than is usual. Pure.

Source: "The Tail at Scale" (Dean and Barroso, 2013): the second request goes out when the first one has been under way
for longer than nearly all others took. So few are sent twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from asyncbackup.client.latency import Latencies

_QUANTILE: Final = 0.95
_MUCH_LONGER: Final = 3.0
"""Times that quantile. What only queues a little longer than usual is not sent twice."""
_LEAST_DELAY_S: Final = 0.05
"""This process pauses for as long itself: a shorter delay says nothing about a node."""
_LEAST_SEEN: Final = 20
"""Answers to see before any is called late."""
_SHARE: Final = 0.05
"""Hedges among all requests, at most."""
_FIRST: Final = 4
"""Hedges that are allowed before the share allows any."""
_HANGS: Final = 20.0
"""A node hangs if it answers nothing for this many times that quantile, and for the seconds below."""
_LEAST_HANG_S: Final = 2.0
LOOKUP_DELAY_S: Final = 0.5
"""A look-up is late after this time. Servers read several objects for one, of nodes that may hang."""
MOST_LOOKUPS: Final = 6
"""Attempts at one look-up that are under way together. Each makes the servers choose replicas at random."""


@dataclass(slots=True)
class Hedging:
    """Says which request is late, and whether it may be hedged."""

    latencies: Latencies
    """How long reads took lately."""
    sent: int = 0
    """Reads that were sent, hedges not included."""
    hedged: int = 0

    def delay_s(self) -> float | None:
        """Give the seconds after which an unanswered read is late; None if too little was seen."""
        usual = self.latencies.quantile_s(_QUANTILE) if self.latencies.count >= _LEAST_SEEN else None
        return None if usual is None else max(_LEAST_DELAY_S, usual * _MUCH_LONGER)

    def hang_s(self) -> float:
        """Give the seconds after which a node hangs, if it answered nothing and was asked for objects that it holds."""
        usual = self.latencies.quantile_s(_QUANTILE) if self.latencies.count >= _LEAST_SEEN else None
        return _LEAST_HANG_S if usual is None else max(_LEAST_HANG_S, usual * _HANGS)

    def may_hedge(self) -> bool:
        """Tell whether another hedge is allowed, and if so count it."""
        if self.hedged >= _FIRST + _SHARE * self.sent:
            return False
        self.hedged += 1
        return True
