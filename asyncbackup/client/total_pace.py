"""How many bytes may be in flight to all nodes together. Pure.

Each node has a pace of its own. Those know nothing of each other: where the bottleneck is our own link, each of thirty
nodes keeps its few requests in flight, all of them wait there, and each takes that for the latency of its path.
So there is a limit to the sum. It is learnt like that of one path (``client/pace``). But several paths are not one:

- The answers of the quick ones come first. Their mean would say that the others are quick, too. So latency is the bytes
  in flight, as mean over the round, divided by the rate (Little's law): that counts what is not answered yet.
- For the same reason the quickest answer of all says nothing about a queue.
- Less in flight shortens latency also where it is too little, since then the quick paths make more of the rate. So the
  limit is halved for as long as the rate stays.
"""

from __future__ import annotations

from asyncbackup.client.pace import Change, Pace, PaceOptions, Sent


class TotalPace(Pace):
    """A Pace of the sum over all nodes. It is told of each attempt, as the pace of its node is."""

    def __init__(self, options: PaceOptions | None = None) -> None:
        self._byte_seconds = 0.0
        """Bytes in flight, times the seconds that they were, in this round."""
        self._counted_s = 0.0
        super().__init__(options)

    def note_sent(self, now_s: float, size: int) -> Sent:
        """Take note of an attempt at a request of ``size`` bytes."""
        self._count(now_s)
        return super().note_sent(now_s, size)

    def note_given_up(self, now_s: float, sent: Sent) -> None:
        """Take note that an attempt ended without an answer. Nothing is learnt from it."""
        self._count(now_s)
        super().note_given_up(now_s, sent)

    def note_answered(self, now_s: float, sent: Sent) -> Change | None:
        """Take note of an answer. Gives what it changes, if people may want to know."""
        self._count(now_s)
        return super().note_answered(now_s, sent)

    def _count(self, now_s: float) -> None:
        self._byte_seconds += self.in_flight * (now_s - self._counted_s)
        self._counted_s = now_s

    def _begin_round(self, now_s: float) -> None:
        self._byte_seconds, self._counted_s = 0.0, now_s
        super()._begin_round(now_s)

    def _latency_s(self) -> float:
        return self._byte_seconds / self._bytes

    def _has_queue(self, latency_s: float) -> bool:  # noqa: ARG002
        return False

    def _still_waits(self, rate: float, latency_s: float, before_s: float) -> bool:  # noqa: ARG002
        return rate >= self.options.fall * self._model.rate
