"""Servers that answer like the embedded ones, but for some answers, which they spoil."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Self

from hypothesis import strategies as st

from asyncbackup.sheep.cluster import ClusterState
from asyncbackup.sheep.release import Release
from asyncbackup.sheep.service import Answer, Service
from asyncbackup.sheep.store import MemoryStore, Store
from asyncbackup.wire import btree
from asyncbackup.wire.constants import HEADER_SIZE, Opcode, Result
from asyncbackup.wire.inode import TABLE_OFFSET, Inode
from asyncbackup.wire.messages import NodeReply, ObjectBody, RequestHeader, ResponseHeader
from asyncbackup.wire.nodes import Node, pack_node
from asyncbackup.wire.oid import INODE_BIT
from tests.faults.proxy import serve

MAX_ANSWERS: Final = 2000
"""After so many it falls silent: what goes on for as long as somebody answers then ends by its deadlines."""

_HEADER: Final = struct.Struct("<BBHIIII28s")


@dataclass
class Message:
    """An answer on its way: the header's fields by name, and the payload."""

    request: RequestHeader
    header: dict[str, Any]
    payload: bytes
    pieces: list[bytes]
    """What is sent instead, if anything is here."""
    closes: bool = False
    resets: bool = False
    stalls: bool = False

    @classmethod
    def of(cls, request: RequestHeader, answer: Answer) -> Self:
        payload = bytes(answer.payload)
        header = ResponseHeader(0, request.opcode, 0, 1, request.id, len(payload), answer.result, answer.body)
        return cls(request, header._asdict(), payload, [])

    @property
    def body(self) -> ObjectBody:
        return ObjectBody.unpack(self.request.body)

    def is_of_inode(self) -> bool:
        return self.request.opcode == Opcode.READ_OBJ and bool(self.body.oid & INODE_BIT)

    def replace_payload(self, payload: bytes) -> None:
        self.payload = payload
        self.header["data_length"] = len(payload)

    def pack(self) -> bytes:
        return _HEADER.pack(*self.header.values()) + self.payload


Spoil = Callable[[Message], None]


@dataclass(frozen=True)
class Field:
    """Sets a field of the header."""

    name: str
    value: Any

    def __call__(self, message: Message) -> None:
        message.header[self.name] = self.value


@dataclass(frozen=True)
class InodeField:
    """Sets a field of an inode's header, where one is read."""

    name: str
    value: Any

    def __call__(self, message: Message) -> None:
        if not message.is_of_inode() or message.body.offset or len(message.payload) < Inode.HEADER_SIZE:
            return
        inode = Inode.unpack(message.payload)
        if self.name not in ("name", "tag"):
            packed = replace(inode, **{self.name: self.value}).pack()
            message.payload = packed + message.payload[len(packed) :]
            return
        at = 0 if self.name == "name" else 256
        message.payload = message.payload[:at] + self.value.ljust(256, b"\0") + message.payload[at + 256 :]


@dataclass(frozen=True)
class Table:
    """Puts a pattern, over and over, in place of what stands behind an inode's header."""

    pattern: bytes

    def __call__(self, message: Message) -> None:
        offset = message.body.offset - TABLE_OFFSET
        if not message.is_of_inode() or offset < 0:
            return
        length = len(message.payload)
        start = offset % len(self.pattern)
        message.payload = (self.pattern * (2 + length // len(self.pattern)))[start : start + length]


@dataclass(frozen=True)
class Tree:
    """Puts a B-tree's root behind an inode's header, of nodes that are named over and over."""

    depth: int
    count: int
    entry: bytes

    def __call__(self, message: Message) -> None:
        offset = message.body.offset - TABLE_OFFSET
        if not message.is_of_inode() or offset < 0:
            return
        root = btree.pack_node_header(self.depth, self.count) + self.entry * min(self.count, 4096)
        message.payload = root[offset : offset + len(message.payload)].ljust(len(message.payload), b"\0")


@dataclass(frozen=True)
class Invent:
    """Answers with success and a pattern, over and over, as much as the client can take."""

    pattern: bytes

    def __call__(self, message: Message) -> None:
        length = message.request.data_length - message.request.payload_length
        message.header["result"] = Result.SUCCESS
        message.replace_payload((self.pattern * (1 + length // len(self.pattern)))[:length])


@dataclass(frozen=True)
class Overwrite:
    """Changes bytes somewhere in the payload."""

    at: int
    data: bytes

    def __call__(self, message: Message) -> None:
        if message.payload:
            at = self.at % len(message.payload)
            length = len(message.payload)
            message.payload = (message.payload[:at] + self.data + message.payload[at + len(self.data) :])[:length]


@dataclass(frozen=True)
class Resize:
    """Makes the payload longer or shorter, and says so."""

    by: int

    def __call__(self, message: Message) -> None:
        message.replace_payload(message.payload + bytes(self.by) if self.by > 0 else message.payload[: self.by or None])


@dataclass(frozen=True)
class CutOff:
    """Sends so many bytes of the message, and closes, or resets, the connection."""

    after: int
    resets: bool

    def __call__(self, message: Message) -> None:
        message.pieces.append(message.pack()[: self.after])
        message.closes, message.resets = True, self.resets


@dataclass(frozen=True)
class Twice:
    """Sends the same answer twice."""

    def __call__(self, message: Message) -> None:
        message.pieces += [message.pack(), message.pack()]


@dataclass(frozen=True)
class Garbage:
    """Sends other bytes."""

    data: bytes

    def __call__(self, message: Message) -> None:
        message.pieces.append(self.data)


@dataclass(frozen=True)
class Trickle:
    """Sends the first bytes one by one."""

    count: int

    def __call__(self, message: Message) -> None:
        packed = message.pack()
        message.pieces += [packed[at : at + 1] for at in range(min(self.count, len(packed)))]
        message.pieces.append(packed[self.count :])


@dataclass(frozen=True)
class Strangers:
    """Puts nodes that don't exist into the list of nodes, and all of them ``times`` times, and miscounts them."""

    count: int
    times: int
    vnodes: int
    miscount: int

    def __call__(self, message: Message) -> None:
        version = message.request.proto_ver
        if message.request.opcode != Opcode.GET_NODE_LIST or not message.payload:
            return
        strangers = [Node(f"127.9.{n >> 8}.{n & 255}", 1, n, self.vnodes) for n in range(self.count)]
        entries = message.payload + b"".join(pack_node(node, version) for node in strangers)
        payload = entries * min(self.times, message.request.data_length // len(entries))
        number = len(payload) // len(pack_node(Node("127.0.0.1", 1, 1, 1), version))
        message.header["body"] = NodeReply(max(0, number + self.miscount)).pack()
        message.replace_payload(payload)


@dataclass(frozen=True)
class Stall:
    """Sends nothing, now or later, on this connection."""

    def __call__(self, message: Message) -> None:
        message.stalls = True


@dataclass(frozen=True)
class Spoiling:
    """Which answers are spoiled, and how: ``times`` of those to ``opcode``, or to any, after the first ``skip``.

    Those of the node ``at`` count, or of any.
    """

    opcode: Opcode | None
    skip: int
    times: int
    how: Spoil
    at: int | None = None


class Hostile:
    """Serves ``store`` as a cluster of some nodes, and spoils answers; ``async with`` it, for the ports."""

    def __init__(self, store: Store, spoilings: Sequence[Spoiling], release: Release, nodes: int = 1) -> None:
        self._cluster = ClusterState([store, *(MemoryStore() for _ in range(nodes - 1))], release=release)
        self._services = [Service(self._cluster, node) for node in range(nodes)]
        self._spoilings = spoilings
        self._seen = [0] * len(spoilings)
        self._answers = 0
        self.connections = 0
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> list[int]:
        ports = [
            await self._stack.enter_async_context(serve(partial(self._handle, node)))
            for node in range(len(self._services))
        ]
        self._cluster.begin([("127.0.0.1", port) for port in ports])
        return ports

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    async def _handle(self, node: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                header = RequestHeader.unpack(await reader.readexactly(HEADER_SIZE))
                payload = await reader.readexactly(header.payload_length)
                self._answers += 1
                message = Message.of(header, self._services[node].answer(header, memoryview(bytearray(payload))))
                self._spoil(message, node)
                if message.stalls or self._answers > MAX_ANSWERS:
                    await _drain(reader)
                    return
                for piece in message.pieces or [message.pack()]:
                    writer.write(piece)
                    await writer.drain()
                if message.resets:
                    _reset_at_close(writer)
                if message.closes:
                    return
        finally:
            self.connections -= 1

    def _spoil(self, message: Message, node: int) -> None:
        for number, spoiling in enumerate(self._spoilings):
            if spoiling.opcode not in (None, message.request.opcode) or spoiling.at not in (None, node):
                continue
            self._seen[number] += 1
            if 0 < self._seen[number] - spoiling.skip <= spoiling.times:
                spoiling.how(message)


async def _drain(reader: asyncio.StreamReader) -> None:
    with suppress(ConnectionError):
        while await reader.read(1 << 16):
            pass


def _reset_at_close(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


_U8 = st.sampled_from([0, 1, 2, 19, 20, 22, 31, 32, 64, 255])
_U32 = st.one_of(
    st.sampled_from([0, 1, 2, 1 << 24, (1 << 24) - 1, (1 << 31) - 1, 0xFFFFFFFF]), st.integers(0, 0xFFFFFFFF)
)
_U64 = st.one_of(
    st.sampled_from([0, 1, 511, 1 << 20, 1 << 22, (1 << 42) + 1, 1 << 52, 1 << 63, (1 << 64) - 1]),
    st.integers(0, (1 << 64) - 1),
)
_NAMES = st.one_of(
    st.sampled_from(
        [b"", b"disk", b"\x1b[2J", b"x" * 256, b"\xff\xfe", "\u202egpj".encode(), b"\xc2\x9b31m", b"a\nb", b"a/b"]
    ),
    st.binary(max_size=20),
)
_RESULTS = st.one_of(st.sampled_from(list(Result)), _U32.map(Result))
_PATTERNS = st.one_of(
    st.sampled_from(
        [b"\0", b"\xff", b"\1\0\0\0", struct.pack("<I", 0xFFFFFF), struct.pack("<HHI", 0x6274, 1, 1 << 20)]
    ),
    st.binary(min_size=1, max_size=64),
)
_INODE_FIELDS = st.one_of(
    st.builds(InodeField, st.sampled_from(["name", "tag"]), _NAMES),
    st.builds(InodeField, st.sampled_from(["vdi_size", "create_time", "snap_ctime", "vm_clock_nsec"]), _U64),
    st.builds(InodeField, st.sampled_from(["snap_id", "vdi_id", "parent_vdi_id"]), _U32),
    st.builds(InodeField, st.sampled_from(["copy_policy", "store_policy", "nr_copies"]), _U8),
    st.builds(InodeField, st.just("block_size_shift"), _U8.filter(lambda shift: shift < 64)),
)
_TREES = st.builds(
    Tree,
    st.sampled_from([1, 2, 3, 0xFFFF]),
    st.sampled_from([0, 1, 2, 400, 4096, 1 << 18, 0xFFFFFFFF]),
    st.one_of(
        st.builds(lambda low, oid: struct.pack("<IIQ", low, 0, oid), _U32, _U64),
        st.builds(lambda idx, vdi: struct.pack("<II", idx, vdi), _U32, _U32),
    ),
)
_LISTS = st.builds(
    Strangers,
    st.sampled_from([0, 1, 3, 300]),
    st.sampled_from([1, 2, 1000]),
    st.sampled_from([0, 1, 128, 65535]),
    st.sampled_from([0, 0, 1, -1]),
)
_HOWS: Final[st.SearchStrategy[Spoil]] = st.one_of(
    _INODE_FIELDS,
    st.builds(Table, _PATTERNS),
    _TREES,
    st.builds(Invent, _PATTERNS),
    st.builds(Field, st.just("result"), _RESULTS),
    st.builds(Field, st.sampled_from(["id", "data_length", "epoch"]), _U32),
    st.builds(Field, st.sampled_from(["opcode", "proto_ver"]), _U8),
    st.builds(Field, st.just("body"), st.binary(min_size=28, max_size=28)),
    st.builds(Overwrite, st.integers(0, 1 << 16), st.binary(min_size=1, max_size=40)),
    st.builds(Resize, st.sampled_from([-(1 << 20), -512, -1, 1, 512, 1 << 20])),
    st.builds(CutOff, st.sampled_from([0, 1, 47, 48, 49, 600, 5000]), st.booleans()),
    st.builds(Twice),
    st.builds(Garbage, st.binary(max_size=100)),
    st.builds(Trickle, st.integers(1, 100)),
    st.builds(Stall),
    _LISTS,
)

_ASKED: Final = (
    Opcode.READ_OBJ,
    Opcode.GET_VDI_INFO,
    Opcode.READ_VDIS,
    Opcode.READ_DEL_VDIS,
    Opcode.GET_NODE_LIST,
    Opcode.NEW_VDI,
    Opcode.CREATE_AND_WRITE_OBJ,
    Opcode.WRITE_OBJ,
    Opcode.DEL_VDI,
    Opcode.STAT_CLUSTER,
)

_TIMES: Final = st.sampled_from([1, 2, 10, MAX_ANSWERS])
_PLACES: Final = st.sampled_from([None, None, 0, 1])
spoilings: Final = st.lists(
    st.one_of(
        *[
            st.builds(
                Spoiling,
                st.one_of(st.just(Opcode.READ_OBJ), st.none(), st.sampled_from(_ASKED)),
                st.one_of(st.just(0), st.integers(0, 12)),
                _TIMES,
                _HOWS,
                _PLACES,
            )
        ]
        * 4,
        st.builds(Spoiling, st.just(Opcode.GET_NODE_LIST), st.just(0), _TIMES, _LISTS, _PLACES),
    ),
    min_size=1,
    max_size=4,
)
"""A few spoilings that go together."""
