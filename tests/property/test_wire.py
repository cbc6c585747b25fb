from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbackup.wire import btree, messages
from asyncbackup.wire.constants import HEADER_SIZE, Result
from asyncbackup.wire.framing import MessageReader, Placement
from asyncbackup.wire.inode import Inode
from asyncbackup.wire.messages import (
    NodeReply,
    ObjectBody,
    ObjectReply,
    RequestHeader,
    ResponseHeader,
    VdiBody,
    VdiReply,
)
from asyncbackup.wire.nodes import Node, pack_node, unpack_nodes

U8 = st.integers(0, 0xFF)
U16 = st.integers(0, 0xFFFF)
U32 = st.integers(0, 0xFFFFFFFF)
U64 = st.integers(0, 0xFFFFFFFFFFFFFFFF)
NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=63)
HOSTS = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6).filter(lambda address: int(address) >> 32 != 0)).map(str)


@given(st.builds(RequestHeader, U8, U8, U16, U32, U32, U32, st.binary(min_size=32, max_size=32)))
def test_request_headers_survive_packing(header: RequestHeader) -> None:
    assert RequestHeader.unpack(header.pack()) == header


@given(st.builds(ResponseHeader, U8, U8, U16, U32, U32, U32, U32.map(Result), st.binary(min_size=28, max_size=28)))
def test_response_headers_survive_packing_whatever_the_result(header: ResponseHeader) -> None:
    assert ResponseHeader.unpack(header.pack()) == header


@given(
    st.one_of(
        st.builds(ObjectBody, U64, U64, U8, U8, U8, U32, U32),
        st.builds(VdiBody, U64, U32, U8, U8, U8, U8, U32, U32),
        st.builds(ObjectReply, U8, U64),
        st.builds(VdiReply, U32, U32, U8, U8),
        st.builds(NodeReply, U32, U64, U64),
    )
)
def test_bodies_survive_packing(body: ObjectBody | VdiBody | ObjectReply | VdiReply | NodeReply) -> None:
    assert type(body).unpack(body.pack()) == body


@given(NAMES)
def test_names_survive_packing(name: str) -> None:
    assert messages.unpack_name(messages.pack_name(name)) == name


@given(
    st.builds(
        Inode,
        name=NAMES,
        tag=NAMES,
        vdi_id=U32,
        vdi_size=U64,
        snap_id=U32,
        parent_vdi_id=U32,
        create_time=U64,
        snap_ctime=U64,
        vm_clock_nsec=U64,
        vm_state_size=U64,
        copy_policy=U8,
        store_policy=U8,
        nr_copies=U8,
        block_size_shift=st.integers(1, 0xFF),
    )
)
def test_inodes_survive_packing(inode: Inode) -> None:
    assert Inode.unpack(inode.pack()) == inode


@pytest.mark.slow
@given(st.lists(st.builds(Node, HOSTS, U16, U32, U16, U64), max_size=5))
def test_node_lists_survive_packing(nodes: list[Node]) -> None:
    assert unpack_nodes(b"".join(map(pack_node, nodes))) == nodes


@given(st.dictionaries(U32, U32, max_size=50).map(lambda owners: sorted(owners.items())))
def test_leaves_hold_what_was_put_in(pairs: list[tuple[int, int]]) -> None:
    entries = b"".join(idx.to_bytes(4, "little") + owner.to_bytes(4, "little") for idx, owner in pairs)

    idx, owners = btree.unpack_leaf(1, entries)

    assert list(zip(idx.tolist(), owners.tolist(), strict=True)) == pairs


class Stream:
    """Messages as a server might send them, and what a reader makes of them in given pieces."""

    def __init__(self, payloads: list[tuple[bytes, bool]]) -> None:
        self._payloads = payloads
        self.bytes = b"".join(
            bytes(HEADER_SIZE - 1) + bytes([number]) + data for number, (data, _) in enumerate(payloads)
        )
        self.calls: list[tuple[str, int, bytes | None]] = []
        self._current = 0
        self._target: bytearray | None = None
        self._reader = MessageReader(self._on_header, self._on_message)

    def _on_header(self, header: memoryview) -> Placement:
        self._current = header[HEADER_SIZE - 1]
        data, wanted = self._payloads[self._current]
        self._target = bytearray(len(data)) if wanted else None
        self.calls.append(("header", self._current, None))
        return len(data), None if self._target is None else memoryview(self._target)

    def _on_message(self) -> None:
        self.calls.append(("message", self._current, None if self._target is None else bytes(self._target)))

    def feed(self, pieces: list[int], drop_at: int | None = None) -> None:
        """Receive everything, at most ``pieces`` bytes at a time; at byte ``drop_at`` let go of the payload."""
        position = 0
        while position < len(self.bytes):
            if drop_at is not None and position >= drop_at:
                self._reader.drop_payload()
                if self._target is not None and self._reader.progress.endswith("payload"):
                    self._target = None
                drop_at = None
            buffer = self._reader.get_buffer()
            assert buffer
            piece = self.bytes[position : position + min(len(buffer), pieces[position % len(pieces)])]
            buffer[: len(piece)] = piece
            self._reader.advance(len(piece))
            position += len(piece)

    @property
    def expected(self) -> list[tuple[str, int, bytes | None]]:
        return [
            call
            for number, (data, wanted) in enumerate(self._payloads)
            for call in (("header", number, None), ("message", number, data if wanted else None))
        ]


PAYLOADS = st.lists(st.tuples(st.binary(max_size=100), st.booleans()), max_size=8)
PIECES = st.lists(st.integers(1, 120), min_size=1, max_size=10)


@pytest.mark.slow
@given(PAYLOADS, PIECES)
def test_any_split_of_the_stream_gives_the_same_messages(payloads: list[tuple[bytes, bool]], pieces: list[int]) -> None:
    stream = Stream(payloads)

    stream.feed(pieces)

    assert stream.calls == stream.expected


@pytest.mark.slow
@given(PAYLOADS, PIECES, st.integers(0, 1000))
def test_dropping_a_payload_anywhere_leaves_all_others_whole(
    payloads: list[tuple[bytes, bool]], pieces: list[int], drop_at: int
) -> None:
    stream = Stream(payloads)

    stream.feed(pieces, drop_at)

    pairs = list(zip(stream.calls, stream.expected, strict=True))
    assert [call[:2] for call, _ in pairs] == [expected[:2] for _, expected in pairs]
    assert sum(call != expected for call, expected in pairs) <= 1
    assert all(call == expected or call[2] is None for call, expected in pairs)
