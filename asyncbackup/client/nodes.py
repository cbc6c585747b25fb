"""The nodes of a cluster: which there are, and which of them to ask.

The law of this module:

- What was named stays in use. What the cluster lists is used as well, for as long as it is listed.
- The list is read again when an answer names a newer epoch, and when something went wrong with a node.
- While the cluster recovers objects, it gets half as much to do from us.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from contextlib import suppress
from itertools import islice
from typing import Final

import anyio
from anyio.abc import TaskGroup

from asyncbackup.client.connection import Attempt
from asyncbackup.client.latency import Latencies
from asyncbackup.client.node import Node
from asyncbackup.client.options import ClientOptions
from asyncbackup.client.outcome import is_read
from asyncbackup.client.placement import Address, Placement
from asyncbackup.client.request import Request
from asyncbackup.client.total_pace import TotalPace
from asyncbackup.errors import AsyncBackupError, Unreachable
from asyncbackup.wire import messages
from asyncbackup.wire.constants import Result
from asyncbackup.wire.messages import Message
from asyncbackup.wire.nodes import MAX_NODES, NODE_ENTRY_SIZE, format_address, unpack_node_list

_log = logging.getLogger(__name__)

_MOST_NODES: Final = 256
"""Nodes to talk to. Each takes a descriptor or more; the others are reached through these."""
_SHARE_IN_RECOVERY: Final = 0.5
_RECOVERY_PAUSE_S: Final = 5.0
"""Seconds between two questions whether the cluster recovers objects. A recovery takes minutes."""
_REFRESH_PAUSE_S: Final = 1.0
"""Seconds between two looks at the list of nodes, at least: a cluster in trouble changes it often."""
_LATENCIES: Final = 2000
"""Answers that are remembered, about: a second or so of a fast run."""


class Nodes:
    """Keeps connections to the nodes of a cluster, and says which node to ask.

    ``gateways`` are the nodes that somebody named. The others are learnt from the list of the one that answers first.
    """

    def __init__(self, gateways: Sequence[Address], options: ClientOptions) -> None:
        if not gateways:
            raise ValueError("expected at least one gateway")
        self.options = options
        self.gateways = list(dict.fromkeys(gateways))
        self.placement = Placement()
        self.epoch = 0
        """The newest epoch that an answer named."""
        self.latencies = Latencies(_LATENCIES)
        """How long reads took lately, those included that nobody waited for any more."""
        self.pace = TotalPace()
        """How much may be in flight to all nodes together."""
        self.share = 1.0
        """Share of the pace, and of a rate, that is used: less while the cluster recovers objects."""
        self._nodes = {address: Node(*address, options, self) for address in self.gateways}
        self._gateway = self._nodes[self.gateways[0]]
        self._waiting: dict[Node, None] = {}
        """Nodes at which attempts wait for room in the pace of all, in the order in which they take turns."""
        self.closed = asyncio.Event()
        """Set when nothing is sent any more."""
        self._changed = asyncio.Event()
        self._group: TaskGroup | None = None
        self._keeping: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect to the first gateway that answers, and find out which release it is, and which nodes there are.

        Raises Unreachable, ConnectionLost, ProtocolViolation or RequestTimeout if none answers: the error of the last.
        """
        self._gateway = await self._open_any()
        started = anyio.Event()
        # Who opens this may close it in another task. So the task group, which both would have to do in one, has a task
        # of its own. ``close`` waits for it.
        self._keeping = asyncio.create_task(self._keep(started))  # noqa: TID251 - as said above
        await started.wait()
        if self._gateway.listing is not None:
            self._learn(self._gateway, self._gateway.listing)

    async def _open_any(self) -> Node:
        *others, last = (self._nodes[address] for address in self.gateways)
        for node in others:
            try:
                await node.open()
            except AsyncBackupError as error:
                _log.info("%s; trying the next gateway", error)
            else:
                return node
        await last.open()
        return last

    async def close(self) -> None:
        """End all connections and what waits, and wait until they are closed. Idempotent.

        Cancelled: all of it ends nevertheless, and the next call waits for it.
        """
        self.closed.set()
        for node in self._nodes.values():
            node.abort()
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        for node in self._nodes.values():
            await node.close()
        if self._keeping is not None and not self._keeping.cancelled():
            self._keeping.result()

    # Which nodes there are.

    async def _keep(self, started: anyio.Event) -> None:
        """Keep connections to nodes open, and the list of nodes up to date, until cancelled."""
        async with anyio.create_task_group() as group:
            self._group = group
            for node in self._nodes.values():
                group.start_soon(node.keep)
            group.start_soon(self._watch_recovery)
            started.set()
            await self._follow_changes()

    async def _follow_changes(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            node = self.gateway
            if node.is_open:
                with suppress(AsyncBackupError):
                    self._learn(node, await self._ask(node, messages.node_list(MAX_NODES * NODE_ENTRY_SIZE)))
            await anyio.sleep(_REFRESH_PAUSE_S)

    async def _ask(self, node: Node, message: Message) -> Request:
        """Ask an open node something, and no other one in its place."""
        request = Request(message)
        connection = next(each for each in node.connections if each.is_open)
        await connection.call(request, node.versions.for_message(message), self.options.connect_timeout_s)
        return request

    def _learn(self, node: Node, listing: Request) -> None:
        """Take over which nodes there are, from what ``node`` answered.

        Where the gateway is not in its own list, something stands between it and us, a proxy or a tunnel. Then
        only the gateways that were named are used.
        """
        if node.versions.internal is None or listing.result is not Result.SUCCESS:
            return
        self.epoch = max(self.epoch, listing.header.epoch)
        try:
            listed = unpack_node_list(listing.header.body, listing.payload, node.versions.internal)
        except ValueError as error:
            _log.info("%s: cannot read its list of nodes: %s", node.address, error)
            return
        gateway = (node.host, node.port)
        if not self.placement.learn(listed, gateway, node.peers, node.versions.internal):
            _log.info("%s is not in its own list of nodes: only the gateways that were named are used", node.address)
            return
        most = max(_MOST_NODES, len(self.gateways))
        wanted = set(islice(dict.fromkeys([*self.gateways, *self.placement.addresses]), most))
        for address in wanted - self._nodes.keys():
            self._add(address)
        for address in self._nodes.keys() - wanted:
            self._remove(address)

    def _add(self, address: Address) -> None:
        node = self._nodes[address] = Node(*address, self.options, self)
        node.share = self.share
        _log.info("%s is a node of the cluster", node.address)
        if self._group is not None:
            self._group.start_soon(node.keep)

    def _remove(self, address: Address) -> None:
        node = self._nodes.pop(address)
        _log.info("%s is no node of the cluster any more", node.address)
        node.abort()

    async def _watch_recovery(self) -> None:
        """Ask again and again whether the cluster recovers objects."""
        while True:
            await anyio.sleep(_RECOVERY_PAUSE_S)
            node = self.gateway
            if not node.is_open:
                continue
            with suppress(AsyncBackupError):
                request = await self._ask(node, messages.recovery_state())
                self._ease(request.result is Result.SUCCESS and messages.is_recovering(request.payload))

    def _ease(self, is_recovering: bool) -> None:  # noqa: FBT001 - what is said
        share = _SHARE_IN_RECOVERY if is_recovering else 1.0
        if share != self.share:
            _log.info("the cluster %s", "recovers objects: half the pace" if is_recovering else "has recovered")
        self.share = share
        for node in self._nodes.values():
            node.share = share

    # Which one to ask.

    @property
    def gateway(self) -> Node:
        """The node to ask what any node can answer: the one that answered first, or another while that is away."""
        if not self._gateway.is_open:
            self._gateway = next((node for node in self._nodes.values() if node.is_open), self._gateway)
        return self._gateway

    @property
    def are_several(self) -> bool:
        """Whether there is more than one node to send to."""
        return len(self._nodes) > 1

    def named(self, address: Address) -> Node:
        """Give the node at ``address``, for a request that no other may answer. Raises Unreachable."""
        if address not in self._nodes:
            raise Unreachable(format_address(*address), "it is no node of the cluster any more")
        return self._nodes[address]

    def choose(self, message: Message, avoided: Collection[Node] = ()) -> Node:
        """Give the node with the fewest bytes outstanding among the best that there are.

        The best are nodes that hold the object, then others that are open, then those that may open soon.
        """
        if not message.is_for_object:
            gateway = self.gateway
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

    def has_other(self, avoided: Collection[Node]) -> bool:
        """Tell whether a node is open that is not among ``avoided``."""
        return any(node.is_open and node not in avoided for node in self._nodes.values())

    def may_hold(self, node: Node, object_id: int) -> bool:
        """Tell whether a node should answer for an object itself. One that asks others may wait for them."""
        holders = self.placement.holders(object_id)
        return not holders or (node.host, node.port) in holders

    # What is under way.

    @property
    def in_flight(self) -> int:
        """Bytes that are under way now, over all nodes."""
        return self.pace.in_flight

    @property
    def limit(self) -> int:
        """Bytes that may be under way now, over all nodes that are in use."""
        return min(self.pace.limit, sum(node.pace.limit for node in self._nodes.values() if node.is_open))

    # What others tell.

    def note_change(self) -> None:
        """Take note that the list of nodes may have changed."""
        self._changed.set()

    def note_answer(self, attempt: Attempt) -> None:
        """Learn from an answer how long reads take, and whether the membership has changed."""
        if is_read(attempt.request.message):
            self.latencies.note(attempt.latency_s)
        if attempt.header is not None and attempt.header.epoch > self.epoch:
            self.epoch = attempt.header.epoch
            self._changed.set()

    def note_waiting(self, node: Node) -> None:
        """Let ``node`` send when it is its turn, and there is room in the pace of all."""
        self.pace.note_waiting()
        self._waiting[node] = None

    def note_room(self) -> None:
        """Let nodes send that wait for their turn, for as long as there is room."""
        while self._waiting and self.pace.has_room(0):
            node = next(iter(self._waiting))
            del self._waiting[node]
            node.send()
            if node in self._waiting:
                return

    def note_trouble(self, node: Node, error: AsyncBackupError) -> None:
        """Look again which nodes there are."""
        _log.info("%s is set aside: %s", node.address, error)
        self._changed.set()
