"""Clusters that are made up: requests pass through them in simulated time, always in the same way."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

KIB: Final = 1 << 10
MIB: Final = 1 << 20
READ: Final = 456 * KIB
"""A usual request."""
UNBOUNDED: Final = 1 << 30
"""Requests that an application has at a time if it always has more."""


class Limit(Protocol):
    """What bounds the bytes in flight: a Pace, or what is compared with one."""

    @property
    def limit(self) -> int: ...
    @property
    def in_flight(self) -> int: ...

    def has_room(self, size: int) -> bool: ...
    def note_waiting(self) -> None: ...
    def note_sent(self, now_s: float, size: int) -> Any: ...
    def note_answered(self, now_s: float, sent: Any) -> object: ...


@dataclass
class Link:
    """Sends bytes one after the other."""

    rate: float
    """Bytes a second."""
    busy_until_s: float = 0.0

    def pass_on(self, now_s: float, size: int) -> float:
        """Give the time when all of it is through."""
        self.busy_until_s = max(now_s, self.busy_until_s) + size / self.rate
        return self.busy_until_s


@dataclass
class Server:
    """A node behind a link: ``width`` requests are worked on at a time, for ``service_s`` each, more or less."""

    link: Link
    round_trip_s: float
    width: int = 1
    service_s: float = 0.0
    jitter: float = 0.2
    """How far times are from what they should be, as a part of it."""
    cached: float = 0.0
    """The part of requests that take no service at all."""
    free_at_s: list[float] = field(default_factory=list)

    def work(self, now_s: float, random_: random.Random) -> float:
        """Give the time when a request that arrives now has been worked on."""
        if not self.service_s:
            return now_s
        free = self.free_at_s
        start_s = max(now_s, heapq.heappop(free)) if len(free) >= self.width else now_s
        if random_.random() < self.cached:
            heapq.heappush(free, start_s)
            return start_s
        end_s = start_s + self.service_s * random_.uniform(1 - self.jitter, 1 + self.jitter)
        heapq.heappush(free, end_s)
        return end_s


@dataclass
class Run:
    """What a simulation saw."""

    answers: list[tuple[float, int, float, int]] = field(default_factory=list)
    """Of each answer: when it came, its bytes, its latency, and the node."""
    limits: list[tuple[float, int]] = field(default_factory=list)
    """The limit of the first node after each answer of any."""
    told: list[tuple[float, Any]] = field(default_factory=list)
    """What limits gave when they were told of answers."""

    def rate(self, start_s: float, end_s: float, node: int | None = None) -> float:
        """Give the bytes a second that were answered in a time, by one node or all."""
        answers = (answer for answer in self.answers if start_s < answer[0] <= end_s)
        return sum(answer[1] for answer in answers if node in (None, answer[3])) / (end_s - start_s)

    def latency_s(self, start_s: float, end_s: float) -> float:
        """Give the mean latency of what was answered in a time."""
        seen = [answer[2] for answer in self.answers if start_s < answer[0] <= end_s]
        return sum(seen) / len(seen)

    def limit(self, start_s: float, end_s: float) -> float:
        """Give the mean limit of the first node in a time."""
        seen = [limit for at_s, limit in self.limits if start_s < at_s <= end_s]
        return sum(seen) / len(seen)

    def time_to(self, rate: float, *, after_s: float = 0.0, span_s: float) -> float:
        """Give the seconds after ``after_s`` until ``rate`` was held for ``span_s``."""
        end_s = self.answers[-1][0]
        for step in range(int((end_s - after_s) / span_s * 4)):
            start_s = after_s + step * span_s / 4
            if self.rate(start_s, start_s + span_s) >= rate:
                return start_s - after_s
        return math.inf


@dataclass
class Simulation:
    """An application that reads from nodes, each with a limit, and perhaps one over all of them."""

    servers: Sequence[Server]
    limits: Sequence[Limit]
    over_all: Limit | None = None
    ours: Link | None = None
    """The link to the application, through which all answers pass."""
    demand: int = UNBOUNDED
    """Requests that the application has at a time."""
    sizes: Callable[[random.Random], int] = lambda _: READ
    later: Mapping[float, Callable[[Simulation], None]] = field(default_factory=dict)
    """What happens at a time, in seconds."""

    def __post_init__(self) -> None:
        self._run = Run()
        self._random = random.Random(1)
        self._order = itertools.count()
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._outstanding = 0
        self._next_size = self.sizes(self._random)

    def run(self, until_s: float) -> Run:
        """Run from the beginning until ``until_s``."""
        for at_s, what in self.later.items():
            self._at(at_s, partial(self._change, what))
        self._send(0.0)
        while self._events and self._events[0][0] <= until_s:
            now_s, _, happen = heapq.heappop(self._events)
            happen(now_s)
        return self._run

    def _at(self, when_s: float, what: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (when_s, next(self._order), what))

    def _change(self, what: Callable[[Simulation], None], now_s: float) -> None:
        what(self)
        self._send(now_s)

    def _send(self, now_s: float) -> None:
        while self._outstanding < self.demand:
            node = self._choose(self._next_size)
            if node is None:
                return
            self._outstanding += 1
            self._begin(now_s, node, self._next_size)
            self._next_size = self.sizes(self._random)

    def _choose(self, size: int) -> int | None:
        """Give the node with the fewest bytes in flight that has room."""
        if self.over_all is not None and not self.over_all.has_room(size):
            self.over_all.note_waiting()
            return None
        free = [node for node, limit in enumerate(self.limits) if limit.has_room(size)]
        if not free:
            for limit in self.limits:
                limit.note_waiting()
            return None
        return min(free, key=lambda node: self.limits[node].in_flight)

    def _begin(self, now_s: float, node: int, size: int) -> None:
        server, random_ = self.servers[node], self._random
        bounds = [self.limits[node], *([self.over_all] if self.over_all else [])]
        marks = [limit.note_sent(now_s, size) for limit in bounds]

        def arrive(arrived_s: float) -> None:
            self._at(server.work(arrived_s, random_), leave)

        def leave(done_s: float) -> None:
            back_s = server.round_trip_s / 2 * random_.uniform(1, 1 + server.jitter / 4)
            self._at(server.link.pass_on(done_s, size) + back_s, answer if self.ours is None else come)

        def come(came_s: float) -> None:
            assert self.ours is not None
            self._at(self.ours.pass_on(came_s, size), answer)

        def answer(answered_s: float) -> None:
            self._outstanding -= 1
            self._run.told += [
                (answered_s, limit.note_answered(answered_s, mark)) for limit, mark in zip(bounds, marks, strict=True)
            ]
            self._run.answers.append((answered_s, size, answered_s - now_s, node))
            self._send(answered_s)
            self._run.limits.append((answered_s, self.limits[0].limit))

        self._at(now_s + server.round_trip_s / 2, arrive)


GB: Final = 1e9
MS: Final = 1e-3
GIGABIT: Final = 125e6
"""Bytes a second that a link of 1 Gbit/s passes on."""


@dataclass(frozen=True)
class Path:
    """A way to a node, which can be made again and again."""

    make: Callable[[], Server]

    @property
    def rate(self) -> float:
        """Bytes a second that it delivers at most, in usual requests."""
        server = self.make()
        worked_s = server.service_s * (1 - server.cached)
        return min(server.link.rate, server.width * READ / worked_s if worked_s else math.inf)

    @property
    def latency_s(self) -> float:
        """Latency of a usual request without load, as mean."""
        server = self.make()
        return server.round_trip_s + server.service_s * (1 - server.cached) + READ / server.link.rate

    @property
    def held(self) -> float:
        """Bytes that it holds without a queue."""
        return self.rate * self.latency_s


PATHS: Final = {
    "loopback, 1.5 GB/s": Path(lambda: Server(Link(1.5 * GB), 0.2 * MS)),
    "a server of two cores": Path(lambda: Server(Link(5 * GB), 0.1 * MS, 2, 0.6 * MS)),
    "2 ms": Path(lambda: Server(Link(1.5 * GB), 2 * MS)),
    "20 ms, 0.7 GB/s": Path(lambda: Server(Link(0.7 * GB), 20 * MS)),
    "100 ms, 0.7 GB/s": Path(lambda: Server(Link(0.7 * GB), 100 * MS)),
    "four disks, 8 ms each": Path(lambda: Server(Link(1.5 * GB), 0.2 * MS, 4, 8 * MS)),
    "four disks, half of it cached": Path(lambda: Server(Link(1.5 * GB), 0.2 * MS, 4, 8 * MS, cached=0.5)),
    "1 Gbit/s": Path(lambda: Server(Link(GIGABIT), 0.2 * MS)),
    "1 Gbit/s, 20 ms": Path(lambda: Server(Link(GIGABIT), 20 * MS)),
}


def set_rate(rate: float) -> Callable[[Simulation], None]:
    """Make what gives the link of the first node another rate."""

    def change(simulation: Simulation) -> None:
        simulation.servers[0].link.rate = rate

    return change


def set_round_trip(round_trip_s: float) -> Callable[[Simulation], None]:
    """Make what gives the first node another round trip."""

    def change(simulation: Simulation) -> None:
        simulation.servers[0].round_trip_s = round_trip_s

    return change


def set_demand(demand: int) -> Callable[[Simulation], None]:
    """Make what lets the application ask for more, or less."""

    def change(simulation: Simulation) -> None:
        simulation.demand = demand

    return change


@dataclass(frozen=True)
class Cluster:
    """Nodes, and our own link to them."""

    make: Callable[[], list[Server]]
    our_rate: float

    @property
    def rate(self) -> float:
        """Bytes a second that it delivers at most, in usual requests."""
        return min(self.our_rate, sum(Path(lambda server=server: server).rate for server in self.make()))  # type: ignore[misc]


def _disk(cached: float = 0.0) -> Server:
    return Server(Link(1.25 * GB), 0.2 * MS, 4, 8 * MS, cached=cached)


CLUSTERS: Final = {
    "30 nodes, our link of 1 Gbit/s, 2 ms": Cluster(
        lambda: [Server(Link(GIGABIT), 2 * MS) for _ in range(30)], GIGABIT
    ),
    "30 nodes, our link of 10 Gbit/s, 2 ms": Cluster(
        lambda: [Server(Link(GIGABIT), 2 * MS) for _ in range(30)], 10 * GIGABIT
    ),
    "30 nodes, our link of 1 Gbit/s, 20 ms": Cluster(
        lambda: [Server(Link(GIGABIT), 20 * MS) for _ in range(30)], GIGABIT
    ),
    "30 nodes of 1 Gbit/s each": Cluster(lambda: [Server(Link(GIGABIT), 0.2 * MS) for _ in range(30)], 5 * GB),
    "9 nodes of 1 Gbit/s and one of 100 Mbit/s": Cluster(
        lambda: [Server(Link(GIGABIT / (1 if node else 10)), 0.2 * MS) for node in range(10)], 5 * GB
    ),
    "10 nodes of four disks": Cluster(lambda: [_disk() for _ in range(10)], 5 * GB),
    "10 nodes of four disks, half of it cached": Cluster(lambda: [_disk(0.5) for _ in range(10)], 5 * GB),
    "5 nodes of disks, 5 of flash": Cluster(
        lambda: [_disk() if node % 2 else Server(Link(1.25 * GB), 0.2 * MS, 4, 0.5 * MS) for node in range(10)], 5 * GB
    ),
    "3 nodes at 0.2 ms, 3 at 20 ms, 1 Gbit/s each": Cluster(
        lambda: [Server(Link(GIGABIT), (0.2 if node < 3 else 20) * MS) for node in range(6)], 10 * GIGABIT
    ),
    "3 nodes, our link of 1 Gbit/s": Cluster(lambda: [Server(Link(GIGABIT), 0.2 * MS) for _ in range(3)], GIGABIT),
}


def set_our_rate(rate: float) -> Callable[[Simulation], None]:
    """Make what gives our own link another rate."""

    def change(simulation: Simulation) -> None:
        assert simulation.ours is not None
        simulation.ours.rate = rate

    return change
