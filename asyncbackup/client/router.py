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

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import anyio
from anyio.abc import TaskGroup

from asyncbackup.client.batch import Batch
from asyncbackup.client.connection import Attempt
from asyncbackup.client.hedge import LOOKUP_DELAY_S, MOST_LOOKUPS, Hedging
from asyncbackup.client.latency import Latencies
from asyncbackup.client.node import Node
from asyncbackup.client.options import ClientOptions
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
from asyncbackup.client.placement import Placement
from asyncbackup.client.rate import Bucket
from asyncbackup.client.request import Request
from asyncbackup.errors import AsyncBackupError, ClusterNotReady, ConnectionLost, RequestTimeout, Unreachable
from asyncbackup.wire import messages
from asyncbackup.wire.constants import Opcode, Result
from asyncbackup.wire.messages import Message
from asyncbackup.wire.nodes import MAX_NODES, NODE_ENTRY_SIZE, format_address, unpack_nodes

_log = logging.getLogger(__name__)

Address = tuple[str, int]
"""A host and a port."""

_ELSEWHERE: Final = frozenset({Outcome.REPEAT_ELSEWHERE, Outcome.ASK_ELSEWHERE})
_MANY: Final = 32
"""Repetitions after which the delay is the longest."""
_MOST_NODES: Final = 256
"""Nodes of a list to talk to. Each takes a descriptor or more; the others are reached through these."""
_SHARE_IN_RECOVERY: Final = 0.5
_RECOVERY_PAUSE_S: Final = 5.0
"""Seconds between two questions whether the cluster recovers objects. A recovery takes minutes."""
_REFRESH_PAUSE_S: Final = 1.0
"""Seconds between two looks at the list of nodes, at least: a cluster in trouble changes it often."""


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


class Router:
    """Sends requests to the nodes of a cluster, and again where that helps.

    Each request raises ClusterNotReady where the cluster serves nobody; and ConnectionLost, RequestTimeout,
    ProtocolViolation or Unreachable where the way to it fails. Cancelling one leaves the connections usable.
    """

    def __init__(self, gateways: Sequence[Address], options: ClientOptions) -> None:
        if not gateways:
            raise ValueError("expected at least one gateway")
        self.options = options
        self.gateways = list(dict.fromkeys(gateways))
        self.placement = Placement()
        self._nodes = {address: Node(*address, options, self) for address in self.gateways}
        self._gateway = self._nodes[self.gateways[0]]
        self._hedging = Hedging()
        self._budget = RetryBudget()
        self._random = random.Random()  # noqa: S311 - delays are no secret
        self._bucket = None if options.rate is None else Bucket(options.rate, time.monotonic())
        self._is_recovering = False
        self.epoch = 0
        """The newest epoch that an answer named."""
        self._changed = asyncio.Event()
        """Set when the list of nodes may have changed."""
        self._group: TaskGroup | None = None
        self._keeping: asyncio.Task[None] | None = None

    # The nodes.

    async def open(self) -> None:
        """Connect to the first gateway that answers, and find out which release it is, and which nodes there are.

        Raises Unreachable, ConnectionLost, ProtocolViolation or RequestTimeout if none answers: the error of the last.
        """
        for address in self.gateways:
            node = self._nodes[address]
            try:
                await node.open()
            except AsyncBackupError as error:
                if address == self.gateways[-1]:
                    raise
                _log.info("%s; trying the next gateway", error)
                continue
            self._gateway = node
            break
        started = anyio.Event()
        # Who opens a router may close it in another task. So the task group, which both would have to do in one, has a
        # task of its own. ``close`` waits for it.
        self._keeping = asyncio.create_task(self._keep_nodes(started))  # noqa: TID251 - as said above
        await started.wait()
        self._learn(self._gateway)

    async def _keep_nodes(self, started: anyio.Event) -> None:
        """Keep connections to nodes open, and the list of nodes up to date, until cancelled."""
        async with anyio.create_task_group() as group:
            self._group = group
            for node in self._nodes.values():
                group.start_soon(node.keep)
            group.start_soon(self._watch_recovery)
            started.set()
            await self._follow_changes()

    async def _watch_recovery(self) -> None:
        """Ask again and again whether the cluster recovers objects: then it gets half as much to do from us."""
        while True:
            await anyio.sleep(_RECOVERY_PAUSE_S)
            node = self.node
            if not node.is_open:
                continue
            with suppress(AsyncBackupError):
                request = await self._ask(node, messages.recovery_state())
                self._ease(request.result is Result.SUCCESS and messages.is_recovering(request.payload))

    def _ease(self, is_recovering: bool) -> None:  # noqa: FBT001 - what is said
        if is_recovering != self._is_recovering:
            _log.info("the cluster %s", "recovers objects: half the pace" if is_recovering else "has recovered")
        self._is_recovering = is_recovering
        for node in self._nodes.values():
            node.share = _SHARE_IN_RECOVERY if is_recovering else 1.0

    async def _follow_changes(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            node = self.node
            if node.is_open:
                with suppress(AsyncBackupError):
                    node.node_list = await self._read_node_list(node)
                    self._learn(node)
            await anyio.sleep(_REFRESH_PAUSE_S)

    async def _read_node_list(self, node: Node) -> memoryview:
        request = await self._ask(node, messages.node_list(MAX_NODES * NODE_ENTRY_SIZE))
        return request.payload if request.result is Result.SUCCESS else node.node_list

    async def _ask(self, node: Node, message: Message) -> Request:
        """Ask an open node something, and no other one in its place."""
        request = Request(message)
        connection = next(each for each in node.connections if each.is_open)
        await connection.call(request, node.version_for(message), self.options.connect_timeout_s)
        return request

    def _learn(self, node: Node) -> None:
        """Take over which nodes there are, from what ``node`` answered.

        Where the gateway is not in its own list, something stands between it and us, a proxy or a tunnel. Then
        only the gateways that were named are used.
        """
        if node.internal_version is None:
            return
        try:
            listed = unpack_nodes(node.node_list, node.internal_version)
        except ValueError as error:
            _log.info("%s: cannot read its list of nodes: %s", node.address, error)
            return
        gateway = (node.host, node.port)
        if not self.placement.learn(listed, gateway, node.peers, node.internal_version):
            _log.info("%s is not in its own list of nodes: only the gateways that were named are used", node.address)
            return
        wanted = {*self.gateways, *list(dict.fromkeys(self.placement.addresses))[:_MOST_NODES]}
        for address in wanted - self._nodes.keys():
            self._add(address)
        for address in self._nodes.keys() - wanted:
            self._remove(address)

    def _add(self, address: Address) -> None:
        node = self._nodes[address] = Node(*address, self.options, self)
        _log.info("%s is a node of the cluster", node.address)
        if self._group is not None:
            self._group.start_soon(node.keep)

    def _remove(self, address: Address) -> None:
        node = self._nodes.pop(address)
        _log.info("%s is no node of the cluster any more", node.address)
        if self._group is not None:
            self._group.start_soon(node.close)

    async def close(self) -> None:
        """Close all connections. Idempotent."""
        keeping, self._keeping, self._group = self._keeping, None, None
        if keeping is not None:
            keeping.cancel()
            with suppress(asyncio.CancelledError):
                await keeping
        for node in self._nodes.values():
            await node.close()

    @property
    def node(self) -> Node:
        """The node to ask what any node can answer: the gateway, or another one while that is away."""
        if not self._gateway.is_open:
            self._gateway = next((node for node in self._nodes.values() if node.is_open), self._gateway)
        return self._gateway

    @property
    def has_several_nodes(self) -> bool:
        """Whether there is more than one node to send to."""
        return len(self._nodes) > 1

    @property
    def in_flight(self) -> int:
        """Attempts that wait to be sent, or that servers still owe an answer for."""
        return sum(node.unanswered for node in self._nodes.values())

    @property
    def limit(self) -> int:
        """Bytes that may be under way now, over all nodes that are in use."""
        return sum(node.pace.limit for node in self._nodes.values() if node.is_open)

    # Requests.

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
                await anyio.sleep(min(delay_s, left_s))
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
        if outcome is Outcome.FAILED:
            if error is not None:
                raise error
            return None
        if outcome is Outcome.NOT_READY:
            raise ClusterNotReady(node.address, request.result, request.result.meaning)
        if outcome is Outcome.USE_OLDER_VERSION:
            node.use_older_version()
            return 0.0
        is_elsewhere = outcome in _ELSEWHERE and request.at is None and self._avoid(node, avoided)
        if outcome is Outcome.ASK_ELSEWHERE and not is_elsewhere:
            return None
        self._changed.set()
        causes[cause] += 1
        request.repeats += 1
        return self._delay_s(request.repeats - 1, is_elsewhere=is_elsewhere)

    def _avoid(self, node: Node, avoided: set[Node]) -> bool:
        """Have a request avoid ``node``; tell whether another one is left. Where none is, all may be asked again."""
        avoided.add(node)
        if any(other.is_open and other not in avoided for other in self._nodes.values()):
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
                raise ClusterNotReady(self.node.address, request.result, request.result.meaning)

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
            under_way = sum(node.pace.in_flight for node in self._nodes.values())
            counts.most_in_flight = max(counts.most_in_flight, under_way)
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
        share = _SHARE_IN_RECOVERY if self._is_recovering else 1.0
        delay_s = bucket.take(time.monotonic(), size, share=share)
        if delay_s:
            await anyio.sleep(delay_s)

    def _start(self, request: Request, buffer: memoryview | None, avoided: set[Node], batch: Batch) -> None:
        if is_read(request.message):
            self._hedging.sent += 1
        if request.message.opcode is Opcode.READ_PEER:
            request.message = request.message._replace(epoch=self.epoch)
        node = self._choose(request.message, avoided) if request.at is None else self._named(request.at)
        attempt = batch.begin(request, buffer)
        attempt.node = node
        node.submit(attempt)

    def _named(self, address: Address) -> Node:
        """Give the node at ``address``, for a request that no other may answer. Raises Unreachable."""
        if address not in self._nodes:
            raise Unreachable(format_address(*address), "it is no node of the cluster any more")
        return self._nodes[address]

    def _choose(self, message: Message, avoided: set[Node]) -> Node:
        """Give the node with the fewest bytes outstanding among the best that there are.

        The best are nodes that hold the object, then others that are open, then those that may open soon.
        """
        if not message.is_for_object:
            gateway = self.node
            if gateway.is_open and gateway not in avoided:
                return gateway
            holders: Sequence[Address] = ()
        else:
            holders = self.placement.holders(message.oid)
        for addresses in (holders, self._nodes):
            best = None
            for address in addresses:
                node = self._nodes.get(address)
                if node is None or not node.is_open or node in avoided:
                    continue
                if best is None or node.load < best.load:
                    best = node
            if best is not None:
                return best
        untroubled = (node for node in self._nodes.values() if node.trouble is None)
        return next(untroubled, self._gateway)

    def _watch_s(self, message: Message) -> float:
        """Say how long to wait before looking whether a request takes too long."""
        if len(self._nodes) == 1 or not is_hedgeable(message):
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
            if node is None or not any(other.is_open and other is not node for other in self._nodes.values()):
                continue
            self._hedge(attempt.request, batch, counts)
            if is_read(message) and self._may_hold(node, message.oid) and node.hangs(now_s - hang_s):
                node.set_aside(Unreachable(node.address, f"it has answered nothing for {hang_s:.1f} s"))

    def _may_hold(self, node: Node, object_id: int) -> bool:
        """Tell whether a node should answer for an object itself. One that asks others may wait for them."""
        holders = self.placement.holders(object_id)
        return not holders or (node.host, node.port) in holders

    def _hedge(self, request: Request, batch: Batch, counts: Counts) -> None:
        """Send a late request to another node, unless that was done, or too many were."""
        under_way = batch.under_way(request)
        if is_read(request.message):
            if len(under_way) > 1 or self._hedging.delay_s() is None or not self._hedging.may_hedge():
                return
        elif len(under_way) >= MOST_LOOKUPS:
            return
        asked = {attempt.node for attempt in under_way if attempt.node is not None}
        if all(node in asked for node in self._nodes.values() if node.is_open):
            asked = {under_way[-1].node} if under_way[-1].node is not None else set()
        counts.hedges += 1
        counts.requests += 1
        second = batch.begin(request, None if request.buffer is None else memoryview(bytearray(len(request.buffer))))
        second.node = self._choose(request.message, asked)
        _log.info("%s is late; sending it to %s as well", request.message, second.node.address)
        second.node.submit(second)

    def _timeout_s(self, message: Message) -> float:
        """Say how long to wait for an answer. What may not be sent again is worth all the patience that there is."""
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

    # What nodes tell.

    def note_answer(self, node: Node, attempt: Attempt, latency_s: float) -> None:
        """Learn from an answer how long answers take, and whether the membership has changed."""
        del node
        attempt.latency_s = latency_s
        if is_read(attempt.request.message):
            self._hedging.latencies.note(latency_s)
        epoch = attempt.header.epoch if attempt.header is not None else 0
        if epoch > self.epoch:
            if self.epoch:
                self._changed.set()
            self.epoch = epoch

    def note_trouble(self, node: Node, error: AsyncBackupError) -> None:
        """Look again which nodes there are."""
        _log.info("%s is set aside: %s", node.address, error)
        self._changed.set()


def _cause(error: AsyncBackupError) -> str:
    """Name the kind of an error of the way, in a few words."""
    if isinstance(error, ConnectionLost):
        return "connection lost"
    if isinstance(error, RequestTimeout):
        return "no answer in time"
    return "unreachable"
