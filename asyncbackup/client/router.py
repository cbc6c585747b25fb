"""Carries requests out over the nodes of a cluster.

The law of this module:

- A request goes to a node that holds a replica of its object, to the one with the fewest bytes outstanding. Where it is
  not known who holds it, it goes to any node: a server forwards what it has not. So a wrong guess is only slower.
- ``client/outcome`` says what an answer means, and what an error of the way means. A request is tried again for as long
  as ``give_up_after_s`` says, and elsewhere at once.
- A request that names its node, for the replica there, goes nowhere else: it is tried there again, or fails.
- A read that takes much longer than its peers is sent to a second node. The first answer counts.
- No attempt writes into a buffer after the call that made it has returned.
- No repetition is silent: it is counted by its cause, and logged.
"""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import anyio

from asyncbackup.client.batch import Batch
from asyncbackup.client.connection import Attempt
from asyncbackup.client.hedge import LOOKUP_DELAY_S, MOST_LOOKUPS, Hedging
from asyncbackup.client.latency import Latencies
from asyncbackup.client.node import Node
from asyncbackup.client.nodes import Nodes
from asyncbackup.client.outcome import (
    NOT_SERVING,
    Outcome,
    RetryBudget,
    is_hedgeable,
    is_read,
    is_repeatable,
    judge_error,
    judge_result,
    repeat_delay_s,
)
from asyncbackup.client.rate import Bucket
from asyncbackup.client.request import Request
from asyncbackup.errors import AsyncBackupError, ClusterNotReady, ConnectionLost, RequestTimeout, Unreachable
from asyncbackup.wire.constants import Opcode, Result
from asyncbackup.wire.messages import Message

_log = logging.getLogger(__name__)

_ELSEWHERE: Final = frozenset({Outcome.REPEAT_ELSEWHERE, Outcome.ASK_ELSEWHERE})
_MANY: Final = 32
"""Repetitions after which the delay is the longest."""


@dataclass(slots=True)
class Counts:
    """What was sent for one job."""

    requests: int = 0
    """Requests sent, repeated and hedged ones included."""
    causes: Counter[str] = field(default_factory=Counter)
    """Why requests were repeated, and how often."""
    hedges: int = 0
    """Requests that were sent to a second node, because the first one took long."""
    most_in_flight: int = 0
    """Bytes that were under way at a time, at most, for all jobs together."""
    latencies: Latencies = field(default_factory=Latencies)
    """How long answers took."""

    @property
    def retries(self) -> int:
        """Requests among them that repeat one."""
        return self.causes.total()

    def add(self, other: Counts) -> None:
        """Take over what another process sent. Most in flight is then that of one process."""
        self.requests += other.requests
        self.causes += other.causes
        self.hedges += other.hedges
        self.most_in_flight = max(self.most_in_flight, other.most_in_flight)
        self.latencies.add(other.latencies)


class Router:
    """Sends requests to the nodes of a cluster, and again where that helps.

    Each request raises ClusterNotReady where the cluster serves nobody; and ConnectionLost, RequestTimeout,
    ProtocolViolation or Unreachable where the way to it fails. Cancelling one leaves the connections usable.
    """

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        self.options = nodes.options
        self._hedging = Hedging(nodes.latencies)
        self._budget = RetryBudget()
        self._random = random.Random()  # noqa: S311 - delays are no secret
        self._bucket = None if self.options.rate is None else Bucket(self.options.rate, time.monotonic())

    async def call(self, requests: Sequence[Request], counts: Counts) -> None:
        """Carry out requests of one kind, at least one, together. Afterwards each has an answer, maybe an error.

        After an error or a cancellation the buffers are free for other use. Which requests were carried out is open.
        """
        failing_since_s: float | None = None
        avoided: dict[Request, set[Node]] = {}
        while True:
            batch = await self._carry_out(requests, avoided, counts)
            again, delay_s = [], 0.0
            causes: Counter[str] = Counter()
            for request in requests:
                if request.answer is not None and request.answer.result is Result.SUCCESS:
                    self._budget.note_success()
                    continue
                wait_s = self._judge(request, batch.last[request], avoided.setdefault(request, set()), causes)
                if wait_s is not None:
                    again.append(request)
                    delay_s = max(delay_s, wait_s)
            if not again:
                return
            for cause, count in causes.items():
                _log.info("%s: sending %d of %d %s again", cause, count, len(requests), requests[0].message)
            counts.causes += causes
            if delay_s:
                now_s = time.monotonic()
                failing_since_s = now_s if failing_since_s is None else failing_since_s
                left_s = failing_since_s + self.options.give_up_after_s - now_s
                if left_s <= 0:
                    self._give_up(again)
                    return
                await self._pause(min(delay_s, left_s))
            requests = again

    def _judge(self, request: Request, attempt: Attempt, avoided: set[Node], causes: Counter[str]) -> float | None:
        """Say in how many seconds to try again; None if the request is done, or failed for good.

        Raises the error of a request that failed without an answer, and ClusterNotReady.
        """
        node, error, message = attempt.node, request.error, request.message
        assert node is not None
        if error is not None:
            outcome, cause = judge_error(error, message, is_sent=attempt.connection is not None), _cause(error)
        else:
            outcome, cause = judge_result(request.result, message, attempt.proto_ver), request.result.meaning
        if error is not None and (outcome is Outcome.FAILED or self.nodes.closed.is_set()):
            raise error
        if outcome is Outcome.FAILED:
            return None
        if outcome is Outcome.NOT_READY:
            raise ClusterNotReady(node.address, request.result, request.result.meaning)
        if outcome is Outcome.USE_OLDER_VERSION:
            node.versions.use_older()
            return 0.0
        is_elsewhere = outcome in _ELSEWHERE and request.at is None and self._avoid(node, avoided)
        if outcome is Outcome.ASK_ELSEWHERE and not is_elsewhere:
            return None
        self.nodes.note_change()
        causes[cause] += 1
        request.repeats += 1
        return self._delay_s(request.repeats - 1, is_elsewhere=is_elsewhere)

    def _avoid(self, node: Node, avoided: set[Node]) -> bool:
        """Have a request avoid ``node``; tell whether another one is left. Where none is, all may be asked again."""
        avoided.add(node)
        if self.nodes.has_other(avoided):
            return True
        avoided.clear()
        return False

    def _delay_s(self, repeats: int, *, is_elsewhere: bool) -> float:
        """Give the seconds before a request that was repeated ``repeats`` times is sent again."""
        if not self._budget.spend():
            repeats = _MANY
        elif is_elsewhere:
            return 0.0
        return repeat_delay_s(repeats, self.options.retry_delay_s, self._random.random())

    def _give_up(self, requests: Sequence[Request]) -> None:
        """Raise why requests got no answer. One that has an answer keeps it, unless the cluster serves nobody."""
        for request in requests:
            if request.error is not None:
                raise request.error
            if request.result in NOT_SERVING:
                raise ClusterNotReady(self.nodes.gateway.address, request.result, request.result.meaning)

    async def _carry_out(self, requests: Sequence[Request], avoided: dict[Request, set[Node]], counts: Counts) -> Batch:
        """Make one attempt at each request, or two where the first one takes long, and wait until all have ended."""
        counts.requests += len(requests)
        if self._bucket is not None:
            await self._keep_to(self._bucket, requests)
        batch = Batch(requests)
        try:
            for request in requests:
                self._start(request, request.buffer, avoided.get(request, set()), batch)
            timeout_s = self._timeout_s(requests[0].message)
            deadline_s = time.monotonic() + timeout_s
            counts.most_in_flight = max(counts.most_in_flight, self.nodes.in_flight)
            while not batch.has_ended:
                if not await batch.wait(min(self._watch_s(requests[0].message), deadline_s - time.monotonic())):
                    if time.monotonic() >= deadline_s:
                        self._expire(batch, timeout_s)
                    else:
                        self._look_after(batch, counts)
        finally:
            batch.give_up()
        for attempt in batch.last.values():
            if attempt.sent is not None and attempt.error is None:
                counts.latencies.note(attempt.latency_s)
        return batch

    async def _keep_to(self, bucket: Bucket, requests: Sequence[Request]) -> None:
        """Wait until what is to be read may be read."""
        size = sum(request.message.capacity for request in requests)
        delay_s = bucket.take(time.monotonic(), size, share=self.nodes.share)
        if delay_s:
            await self._pause(delay_s)

    async def _pause(self, delay_s: float) -> None:
        """Wait, but no longer than until the nodes are closed."""
        with anyio.move_on_after(delay_s):
            await self.nodes.closed.wait()

    def _start(self, request: Request, buffer: memoryview | None, avoided: set[Node], batch: Batch) -> None:
        if is_read(request.message):
            self._hedging.sent += 1
        if request.message.opcode is Opcode.READ_PEER:
            request.message = request.message._replace(epoch=self.nodes.epoch)
        node = self.nodes.choose(request.message, avoided) if request.at is None else self.nodes.named(request.at)
        attempt = batch.begin(request, buffer)
        attempt.node = node
        node.submit(attempt)

    def _watch_s(self, message: Message) -> float:
        """Say how long to wait before looking whether a request takes too long."""
        if not self.nodes.are_several or not is_hedgeable(message):
            return self.options.request_timeout_s
        if not is_read(message):
            return LOOKUP_DELAY_S
        delay_s = self._hedging.delay_s()
        return self._hedging.hang_s() if delay_s is None else delay_s

    def _look_after(self, batch: Batch, counts: Counts) -> None:
        """Send what is late to a second node, and set nodes aside that hang."""
        now_s = time.monotonic()
        hang_s = self._hedging.hang_s()
        for attempt in batch.under_way():
            node, message = attempt.node, attempt.request.message
            if attempt.on_end is None:
                continue  # It ended when its node was set aside just now.
            if node is None or not self.nodes.has_other({node}):
                continue
            self._hedge(attempt.request, batch, counts)
            if is_read(message) and self.nodes.may_hold(node, message.oid) and node.hangs(now_s - hang_s):
                node.set_aside(Unreachable(node.address, f"it has answered nothing for {hang_s:.1f} s"))

    def _hedge(self, request: Request, batch: Batch, counts: Counts) -> None:
        """Send a late request to another node, unless that was done, or too many were."""
        under_way = batch.under_way(request)
        if is_read(request.message):
            if len(under_way) > 1 or self._hedging.delay_s() is None or not self._hedging.may_hedge():
                return
        elif len(under_way) >= MOST_LOOKUPS:
            return
        asked = {attempt.node for attempt in under_way if attempt.node is not None}
        if not self.nodes.has_other(asked):
            asked = {under_way[-1].node} if under_way[-1].node is not None else set()
        counts.hedges += 1
        counts.requests += 1
        second = batch.begin(request, None if request.buffer is None else memoryview(bytearray(len(request.buffer))))
        second.node = self.nodes.choose(request.message, asked)
        _log.info("%s is late; sending it to %s as well", request.message, second.node.address)
        second.node.submit(second)

    def _timeout_s(self, message: Message) -> float:
        """Say how long to wait for an answer. What may not be sent again gets all the patience that there is."""
        options = self.options
        if is_repeatable(message):
            return options.request_timeout_s
        return max(options.request_timeout_s, options.give_up_after_s)

    def _expire(self, batch: Batch, timeout_s: float) -> None:
        """End what has no answer in time. A node that answered nothing meanwhile is set aside."""
        for attempt in batch.under_way():
            node = attempt.node
            assert node is not None
            error = RequestTimeout(node.address, str(attempt.request.message), timeout_s)
            batch.fail(attempt, error)
            if node.hangs(batch.begun_s):
                node.set_aside(error)


def _cause(error: AsyncBackupError) -> str:
    """Name the kind of an error of the way, in a few words."""
    if isinstance(error, ConnectionLost):
        return "connection lost"
    if isinstance(error, RequestTimeout):
        return "no answer in time"
    return "unreachable"
