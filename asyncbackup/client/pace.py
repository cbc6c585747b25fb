"""How many bytes may be in flight: learnt from when requests are sent and answered. Pure: callers tell the time.

The model is that of BBR. What a path holds without a queue is its rate times its latency without load. More in flight
does not make it faster, it only waits somewhere; less leaves the path idle now and then. Both factors can't be seen
at once: the rate shows when the path is full, the latency when it isn't. So a Pace goes through three phases:

- Start-up: the limit doubles in each round, until the rate no longer grows by a quarter, or requests wait for long.
- Drain: the limit is halved while latency falls and the rate doesn't. Then latency is that of the path without load.
- Cruise: the limit is twice the product, and two requests. So it doubles in a round if the path got faster. It drains
  again from time to time, and at once if the rate falls by half, since then what was learnt no longer holds.

A *round* is the time in which some requests that are sent in it are answered too, so that they show what the limit of
the round does. Its rate and its mean latency are what the model learns from. The mean stands where BBR has the least:
answers from a cache come in no time, and one of them would make a disk look idle at one request.
A round is *full* if requests waited for room in it, or if it had half of what the limit allows in flight. Another one
shows what the application asks for, not what the path can do: its rate may raise the estimate, never lower it. Half is
enough, because the limit is twice what the path holds, and because an application may follow the limit: it asks for no
more, and spends a part of its time on what it got.

Sources: Cardwell, Cheng, Gunn, Yeganeh, Jacobson, "BBR: Congestion-Based Congestion Control", ACM Queue 14(5), 2016,
and net/ipv4/tcp_bbr.c of Linux, for the product, the gains, start-up, and rounds that are not full; Gradient2Limit of
Netflix/concurrency-limits for means of latency. docs/performance.md compares the three.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from asyncbackup.client.path_model import PathModel

_REQUEST: Final = 456 << 10
"""Bytes of a usual request, as ``client/objects`` cuts reads. All below is learnt; this only says where to begin."""

LEAST_CHARGE: Final = 64 << 10
"""Bytes that a request counts for at least. A server works on the smallest one as long as it sends about so much."""


def charge_for(size: int) -> int:
    """Give the bytes that a request counts for whose payload, or that of its answer, has ``size`` bytes."""
    return max(size, LEAST_CHARGE)


@dataclass(frozen=True, slots=True)
class PaceOptions:
    """Where to begin, where to end, and how to learn. If the first three are the same, the limit is always that."""

    start_bytes: int = 16 * _REQUEST
    """Bytes in flight before anything is known. 16 requests are nearly right for round trips of up to 2 ms."""
    least_bytes: int = 2 * _REQUEST
    """Bytes in flight at least. While one answer is on its way, the server works on the other."""
    most_bytes: int = 512 << 20
    """Bytes in flight at most. 1.5 GB/s over 100 ms, twice, is 300 MB."""
    gain: float = 2.0
    """How many times rate x latency the limit is.

    As in BBR: answers come in bursts, and a path that got faster shows it only to who asks for more. Where the gain is
    2, a latency that doubles does not yet make the limit sink into itself.
    """
    start_gain: float = 4.0
    """The same while starting up. Twice what is in flight now, of which half was in flight when its rate was seen."""
    spare_requests: int = 2
    """Requests on top: one that is being received, and one that is being sent. BBR allows three segments."""
    growth: float = 1.25
    """How many times as high a round's rate must be for start-up to go on. As in BBR."""
    start_stalls: int = 2
    """Rounds without growth that end start-up. BBR waits for three, but hears of each packet; ours are averages."""
    fallen_rounds: int = 3
    """Rounds with half the rate after which all is measured again. Servers halt for the time of one or two."""
    fall: float = 0.8
    """How many times as high latency or rate must be at most after the limit was halved, to count as fallen.

    While there is a queue, latency is 0.5 to 0.7 times what it was, and the rate the same; without, it is the other way
    round. Noise stays above.
    """
    rate_window_s: float = 0.5
    """Seconds for which the best rate counts, or ten rounds if they last longer. Servers halt now and then."""
    latency_window_s: float = 5.0
    """Seconds for which the least latency counts. Then it is time to drain, which costs half a round. As in BBR 3."""
    round_answers: int = 8
    """Answers that a round has at least to requests sent in it. A mean of fewer is noise."""
    round_s: float = 0.01
    """Seconds that a round lasts at least: what a scheduler or a collector takes away at once should not fill one."""

    def __post_init__(self) -> None:
        if not 0 < self.least_bytes <= self.most_bytes:
            raise ValueError("least_bytes must be at least 1, and at most most_bytes")
        if min(self.round_answers, self.start_stalls, self.fallen_rounds) < 1:
            raise ValueError("round_answers, start_stalls and fallen_rounds must be at least 1")
        if self.round_s <= 0:
            raise ValueError("round_s must be positive")


class Sent(NamedTuple):
    """What a pace remembers of an attempt on its way."""

    at_s: float
    charge: int
    """Bytes that it counts for."""
    round: int
    """The number of the round in which it was sent."""


@dataclass(frozen=True, slots=True)
class Change:
    """The limit is another one, for a reason that people may want to know. Bytes."""

    before: int
    limit: int
    reason: str


class _Phase(Enum):
    START_UP = "the rate still grows"
    DRAIN = "looks for the latency without load"
    CRUISE = "follows rate x latency"


_FALLEN: Final = "the rate fell by half: measures again"
_GROWN: Final = "the rate doubled: measures again"
_LARGER: Final = "requests are larger: measures again"

_NOTABLE: Final = 1.5
"""How many times as high or low the limit must be to be told while the phase stays. It sways a little all the time."""


class Pace:
    """How many bytes may be in flight on one path. ``client/total_pace`` has that of several paths together.

    Each ``note_sent`` is followed by one ``note_answered`` or one ``note_given_up`` for what it gave. Times are seconds
    of one clock that never goes back. It should tell microseconds, as ``time.monotonic`` does; uvloop's own tells
    milliseconds. Sizes are bytes of payload: what a read asks for, what a write sends.
    """

    def __init__(self, options: PaceOptions | None = None) -> None:
        self.options = options or PaceOptions()
        self.limit = 0
        """Bytes that may be in flight now."""
        self.in_flight = 0
        """Bytes that are in flight, as they are charged. More than ``limit`` after that fell."""
        self._is_waiting = False
        self._last_answer_s = 0.0
        self._round = 0
        self._begin_round(0.0)
        self._model = PathModel()
        self._phase = _Phase.START_UP
        self._stalled = 0
        self._start_rate = 0.0
        self._quickest_s = math.inf
        """The latency of the answer that took the least time since start-up began."""
        self._ceiling = 0
        self._drained_s: float | None = None
        self._start_up()
        self._told = self.limit

    @property
    def rate(self) -> float:
        """Bytes a second that the path delivers at most, as far as known; else 0."""
        return self._model.rate

    def has_room(self, size: int) -> bool:
        """Tell whether a request of ``size`` bytes may be sent now. The only one always may."""
        return not self.in_flight or self.in_flight + charge_for(size) <= self.limit

    def note_waiting(self) -> None:
        """Take note that a request waits because there is no room for it. Counts until the next one is sent."""
        self._is_waiting = True

    def note_sent(self, now_s: float, size: int) -> Sent:
        """Take note of an attempt at a request of ``size`` bytes."""
        if not self.in_flight:
            # While nothing is in flight, nothing is learnt: the round goes on as if that time had not been.
            self._round_at_s += now_s - self._last_answer_s
        charge = charge_for(size)
        self.in_flight += charge
        self._is_waiting = False
        return Sent(now_s, charge, self._round)

    def note_given_up(self, now_s: float, sent: Sent) -> None:
        """Take note that an attempt ended without an answer. Nothing is learnt from it."""
        self.in_flight -= sent.charge
        self._last_answer_s = now_s

    def note_answered(self, now_s: float, sent: Sent) -> Change | None:
        """Take note of an answer. Gives what it changes, if people may want to know."""
        at_s, charge, round_ = sent
        if self._is_waiting or 2 * self.in_flight >= self.limit:
            self._full += 1
            if self._phase is _Phase.START_UP and self.limit < self._ceiling:
                self.limit = min(self.limit + charge, self._ceiling)
        self.in_flight -= charge
        self._last_answer_s = now_s
        self._bytes += charge
        self._answers += 1
        if round_ == self._round:
            latency_s = now_s - at_s
            self._own += 1
            self._latencies_s += latency_s
            self._quickest_s = min(self._quickest_s, latency_s)
        if self._own < self.options.round_answers or now_s - self._round_at_s < self.options.round_s:
            return None
        reason = self._end_round(now_s)
        self._begin_round(now_s)
        return self._tell(reason)

    def _begin_round(self, now_s: float) -> None:
        self._round += 1
        self._round_at_s = now_s
        self._bytes = self._answers = self._full = self._own = 0
        self._latencies_s = 0.0

    def _end_round(self, now_s: float) -> str | None:
        """Learn from the round that ends now. Gives why the limit changed, if people may want to know."""
        model, request = self._model, self._bytes // self._answers
        if request > 2 * model.request > 0:
            # Other things than transfer took the time of smaller ones. What was learnt of those doesn't hold.
            self._start_up()
            return _LARGER
        if 2 * request <= model.request:
            # A limit that is right for larger ones is generous for these. They teach nothing, unless there is no other.
            if now_s - model.latency_at_s > self.options.latency_window_s:
                self._start_up()
            return None
        model.request = max(model.request, request)
        rate = self._bytes / (now_s - self._round_at_s)
        return self._learn(now_s, rate, self._latency_s(), is_full=2 * self._full > self._answers)

    def _latency_s(self) -> float:
        """Give the mean latency of the round that ends."""
        return self._latencies_s / self._own

    def _learn(self, now_s: float, rate: float, latency_s: float, *, is_full: bool) -> str | None:
        """Update the model, and set the limit from it. Gives the reason as ``_end_round`` does."""
        model, best = self._model, self._model.rate
        is_draining = self._phase is _Phase.DRAIN
        window_s = max(self.options.rate_window_s, 10 * (now_s - self._round_at_s))
        model.note_rate(now_s, rate, window_s, is_full=is_full and not is_draining)
        if is_draining:
            return self._drain_on(now_s, rate, latency_s)
        model.note_latency(now_s, latency_s, self.limit if is_full else rate * latency_s)
        if not is_full:
            return None
        if self._phase is _Phase.START_UP:
            return self._start_on(rate, latency_s)
        self._stalled = self._stalled + 1 if 2 * rate < best else 0
        if self._stalled < self.options.fallen_rounds:
            return self._cruise_on(now_s)
        self._model = PathModel(model.request)
        self._model.note_rate(now_s, rate, window_s, is_full=True)
        self._model.note_latency(now_s, latency_s, self.limit)
        self._drain()
        return _FALLEN

    def _start_up(self) -> None:
        """Begin to learn. The limit stays, unless it is too low to begin with."""
        self._model, self._phase = PathModel(), _Phase.START_UP
        self._stalled, self._start_rate, self._quickest_s = 0, 0.0, math.inf
        self._set_limit(max(self.limit, self.options.start_bytes))
        self._ceiling = min(max(self.limit, 2 * self.options.start_bytes), self.options.most_bytes)

    def _start_on(self, rate: float, latency_s: float) -> str | None:
        """Let the limit grow, as answers come, to a multiple of what the path seems to hold; or end start-up."""
        options, model = self.options, self._model
        if rate >= options.growth * self._start_rate:
            self._start_rate, self._stalled = rate, 0
        elif latency_s > options.growth * (model.latency_s or 0.0):
            # Without a queue it is the application that stalls: its workers are not as many yet as the limit allows.
            self._stalled += 1
        if self._stalled < options.start_stalls and not self._has_queue(latency_s):
            self._ceiling = min(max(self._ceiling, self._aim(options.start_gain)), options.most_bytes)
            return None
        # Where the least latency was seen with little in flight, it is that without load.
        return self._cruise() if model.latency_load <= model.product(0.5) else self._drain()

    def _has_queue(self, latency_s: float) -> bool:
        """Tell whether so many are in flight in start-up that they wait for one another.

        Where requests wait as long as the quickest took, twice as many are in flight as the path holds. HyStart of TCP
        CUBIC ends by that as well. It may be wrong, because of a cache: then the limit doubles while cruising.
        """
        return latency_s > 2 * self._quickest_s

    def _drain(self) -> str:
        self._phase, self._drained_s = _Phase.DRAIN, None
        self._set_limit(self._model.product(0.5))
        return _Phase.DRAIN.value

    def _drain_on(self, now_s: float, rate: float, latency_s: float) -> str | None:
        """Halve the limit again if that helped; else take the least latency that was seen for that without load."""
        model, limit = self._model, self.limit
        before_s = self._drained_s or model.latency_s or latency_s
        self._drained_s = min(latency_s, self._drained_s or latency_s)
        if self._still_waits(rate, latency_s, before_s):
            self._set_limit(limit // 2)
            if self.limit < limit:
                return None
        model.latency_s = None
        model.note_latency(now_s, self._drained_s, limit)
        return self._cruise()

    def _still_waits(self, rate: float, latency_s: float, before_s: float) -> bool:  # noqa: ARG002 - see TotalPace
        """Tell whether there was a queue in a round of the drain, before which latency was ``before_s``."""
        fall, model = self.options.fall, self._model
        # By Little's law the limit makes this rate. Where it is below the usual one, nothing waits any more.
        is_full = self.limit >= fall * model.usual_rate * latency_s
        return is_full and latency_s <= fall * before_s

    def _cruise(self) -> str:
        self._phase, self._stalled, self._start_rate = _Phase.CRUISE, 0, self.rate
        self._set_limit(self._aim(self.options.gain))
        return _Phase.CRUISE.value

    def _cruise_on(self, now_s: float) -> str | None:
        """Follow the product, or begin to look for one of its factors again."""
        model = self._model
        if model.rate > 2 * self._start_rate:
            self._phase, self._stalled, self._start_rate, self._ceiling = _Phase.START_UP, 0, model.rate, self.limit
            return _GROWN
        if now_s - model.latency_at_s > self.options.latency_window_s:
            return self._drain()
        self._set_limit(self._aim(self.options.gain))
        return None

    def _aim(self, gain: float) -> int:
        return self._model.product(gain) + self.options.spare_requests * self._model.request

    def _set_limit(self, limit: int) -> None:
        options = self.options
        self.limit = min(max(limit, options.least_bytes, 2 * self._model.request), options.most_bytes)

    def _tell(self, reason: str | None) -> Change | None:
        """Tell the limit if there is a reason, or if it is quite another than the one that was told last."""
        before, limit = self._told, self.limit
        lower, upper = sorted((before, limit))
        if lower == upper or (reason is None and upper <= lower * _NOTABLE):
            return None
        self._told = limit
        return Change(before, limit, reason or self._phase.value)
