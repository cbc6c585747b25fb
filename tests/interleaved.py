"""Several runs on one cluster, in simulated time: a seed says when each request arrives, and when it is answered.

The loop's clock jumps to the next timer, so that nothing waits, and a seed gives the same order each time. A request
that was given up may still be carried out, as in a cluster.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor, Future
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import pytest

from asyncbackup import ClientOptions, Cluster
from asyncbackup.client.nodes import Nodes
from asyncbackup.client.outcome import is_repeatable
from asyncbackup.client.request import Request
from asyncbackup.client.router import Counts, Router
from asyncbackup.client.versions import Versions
from asyncbackup.errors import ConnectionLost
from asyncbackup.sheep import MemoryStore
from asyncbackup.sheep.cluster import ClusterState
from asyncbackup.sheep.service import Answer, Service
from asyncbackup.wire.constants import INTERNAL_VERSIONS, Result
from asyncbackup.wire.messages import Message, RequestHeader, ResponseHeader
from asyncbackup.wire.oid import INODE_BIT

_ADDRESS: Final = ("127.0.0.1", 7000)
_INODE_USED: Final = 8 << 10
"""Bytes of an inode with a table of few entries."""
_BEGUN_NS: Final = 1_700_000_000 * 10**9


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop that never waits for a timer: its clock jumps to it."""

    def __init__(self) -> None:
        self._now_s = 0.0
        super().__init__(_Selector(self._pass))

    def time(self) -> float:
        return self._now_s

    def _pass(self, seconds: float) -> None:
        self._now_s += seconds


class _Selector(selectors.SelectSelector):
    def __init__(self, wait: Callable[[float], None]) -> None:
        super().__init__()
        self._wait = wait

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return super().select(None)
        self._wait(max(timeout, 0))
        return super().select(0)


async def _run_inline(function: Callable[..., Any], *arguments: Any, **_: Any) -> Any:
    await asyncio.sleep(0)
    return function(*arguments)


class _InlineThread:
    def __init__(self, target: Callable[[], object], **_: Any) -> None:
        self.start = target


class _InlineExecutor(Executor):
    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(function(*arguments, **named))
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the caller's
            done.set_exception(error)
        return done


def without_threads(patch: pytest.MonkeyPatch) -> None:
    """Let work for threads be done in the loop: a thread would take its turn by chance."""
    patch.setattr("anyio.to_thread.run_sync", _run_inline)
    patch.setattr("asyncbackup.storage.opening.threading.Thread", _InlineThread)
    patch.setattr("asyncbackup.storage.serial_file.ThreadPoolExecutor", _InlineExecutor)


@dataclass(frozen=True)
class Trouble:
    """What happens to one request of a run.

    ``error``: the cluster refuses it. ``lost``: the connection is lost after it was carried out, or before that.
    ``stopped``: the run sleeps for ``seconds`` before the request is sent, or before its answer is read.
    """

    kind: str
    nth: int
    is_carried_out: bool = True
    seconds: float = 0.0


def copy_of(store: MemoryStore) -> MemoryStore:
    """Copy a store whose VDIs have few objects."""
    copy = MemoryStore()
    config = store.load_config()
    assert config is not None
    copy.save_config(config)
    for oid in store.oids():
        content = store.get(oid)
        assert content is not None
        used = content[:_INODE_USED] if oid & INODE_BIT else content
        copy.put(oid, len(content), [(0, used)])
    return copy


class World:
    """A cluster of one node that several runs use. ``slowest_s``: how long a request or an answer is under way."""

    def __init__(self, store: MemoryStore, chance: random.Random, slowest_s: float = 0.05) -> None:
        self.store = store
        self.chance = chance
        self.slowest_s = slowest_s
        loop = asyncio.get_running_loop()
        state = ClusterState([store], clock_ns=lambda: _BEGUN_NS + int(loop.time() * 10**9))
        state.begin([_ADDRESS])
        self.service = Service(state)

    def connect(self, trouble: Trouble | None = None) -> Simulated:
        """Give a run its own way into the cluster."""
        return Simulated(_Router(self, trouble))


class _Router(Router):
    def __init__(self, world: World, trouble: Trouble | None) -> None:
        nodes = Nodes([_ADDRESS], ClientOptions())
        nodes.gateway.versions = Versions(INTERNAL_VERSIONS[0])
        super().__init__(nodes)
        self.world = world
        self.trouble = trouble
        self.sent: list[tuple[float, Message]] = []
        self.has_met_trouble = False
        self._awake_s = 0.0

    async def call(self, requests: Sequence[Request], counts: Counts) -> None:
        await asyncio.gather(*[self._call(request) for request in requests])

    async def _call(self, request: Request) -> None:
        loop = asyncio.get_running_loop()
        self.sent.append((loop.time(), request.message))
        trouble = self.trouble
        if trouble is None or len(self.sent) != trouble.nth:
            return await self._serve(request)
        self.has_met_trouble = True
        match trouble.kind:
            case "error":
                await self._pass()
                self._answer(request, Answer(Result.EIO))
            case "stopped":
                if trouble.is_carried_out:
                    await self._serve(request, stop_s=trouble.seconds)
                else:
                    self._awake_s = loop.time() + trouble.seconds
                    await self._serve(request)
            case "lost":
                if trouble.is_carried_out:
                    await self._serve(request)
                if not is_repeatable(request.message):
                    raise ConnectionLost("127.0.0.1:7000", "it was reset")
                request.repeats += 1
                await self._serve(request)
        return None

    async def _serve(self, request: Request, stop_s: float = 0.0) -> None:
        loop = asyncio.get_running_loop()
        message = request.message._replace(payload=bytes(request.message.payload))
        version = self.nodes.gateway.versions.for_message(message)
        answered: asyncio.Future[Answer] = loop.create_future()

        def serve() -> None:
            length = len(message.payload) or message.capacity
            header = RequestHeader(version, message.opcode, message.flags, message.epoch, 1, length, message.body)
            answer = self.world.service.answer(header, memoryview(message.payload))
            answer = Answer(answer.result, answer.body, bytes(answer.payload))
            loop.call_later(self._delay(), tell, answer)

        def tell(answer: Answer) -> None:
            if not answered.done():
                answered.set_result(answer)

        await self._sleep_on()
        if stop_s:
            self._awake_s = loop.time() + stop_s
        # It is carried out even if nobody waits for it any more.
        loop.call_later(self._delay(), serve)
        answer = await answered
        await self._sleep_on()
        self._answer(request, answer)

    async def _sleep_on(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() < self._awake_s:
            await asyncio.sleep(self._awake_s - loop.time())

    async def _pass(self) -> None:
        await asyncio.sleep(self._delay())

    def _delay(self) -> float:
        """Draw by lot how long something is under way: mostly it is quick."""
        chance = self.world.chance
        return self.world.slowest_s * chance.random() ** 4

    def _answer(self, request: Request, answer: Answer) -> None:
        header = ResponseHeader(0, request.message.opcode, 0, 1, 1, len(answer.payload), answer.result, answer.body)
        request.answer = header
        request.payload = memoryview(b"")
        if answer.result is Result.SUCCESS and answer.payload:
            request.payload = request.place(header, request.buffer)
            request.payload[:] = answer.payload


class Simulated(Cluster):
    """One run's way into a world."""

    router: _Router

    @property
    def sent(self) -> list[tuple[float, Message]]:
        """What the run sent, and when."""
        return self.router.sent

    @asynccontextmanager
    async def connected_anew(self) -> AsyncIterator[Cluster]:
        yield self

    def counted(self) -> Cluster:
        return self

    def in_flight_limit(self) -> int:
        return 64 << 20
