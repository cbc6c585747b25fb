from __future__ import annotations

import struct

import pytest

from asyncbackup.wire import messages
from asyncbackup.wire.constants import HEADER_SIZE, NAME_SIZE, VDI_BITMAP_SIZE, VDI_STATE_SIZE, Flag, Opcode, Result
from asyncbackup.wire.messages import (
    Message,
    NodeReply,
    ObjectBody,
    ObjectReply,
    RequestHeader,
    ResponseHeader,
    VdiBody,
    VdiReply,
)

OID = 0x00ABCDEF00000007


def test_headers_are_48_bytes() -> None:
    assert len(RequestHeader(2, 2, 0, 0, 1, 0, bytes(32)).pack()) == HEADER_SIZE
    assert len(ResponseHeader(2, 2, 0, 0, 1, 0, Result.SUCCESS, bytes(28)).pack()) == HEADER_SIZE


@pytest.mark.parametrize("body", [ObjectBody(OID), VdiBody()])
def test_request_bodies_are_32_bytes(body: ObjectBody | VdiBody) -> None:
    assert len(body.pack()) == 32


@pytest.mark.parametrize("body", [ObjectReply(), VdiReply(), NodeReply()])
def test_response_bodies_are_28_bytes(body: ObjectReply | VdiReply | NodeReply) -> None:
    assert len(body.pack()) == 28


def test_golden_read_request() -> None:
    header = messages.read_object(OID, 0x1200, 0x400).header(request_id=0x01020304, proto_ver=2)

    assert header.hex(" ", 4) == (
        "02020800 00000000 04030201 00040000 "  # version, opcode, DIRECT, epoch, id, room for 1024 bytes
        "07000000 efcdab00 00000000 00000000 00000000 00000000 00120000 00000000"  # oid, …, offset
    )


def test_golden_read_of_a_replica() -> None:
    message = messages.read_replica(OID, 0x1200, 0x400)._replace(epoch=7)

    assert message.is_internal
    assert message.header(request_id=0x01020304, proto_ver=0x0A).hex(" ", 4) == (
        "0aa40000 07000000 04030201 00040000 "  # version, opcode, no flags, epoch, id, room for 1024 bytes
        "07000000 efcdab00 00000000 00000000 00000000 00000000 00120000 00000000"  # oid, …, offset
    )


def test_golden_read_response() -> None:
    header = ResponseHeader.unpack(
        bytes.fromhex(
            "00020000 01000000 04030201 00040000 8f000000"  # version, opcode, flags, epoch, id, length, result
            "03000000 00020000 00000000 00000000 00000000 00000000 00000000"  # copies, offset
        )
    )

    assert (header.opcode, header.epoch, header.id, header.data_length) == (2, 1, 0x01020304, 1024)
    assert header.result is Result.AGAIN
    assert ObjectReply.unpack(header.body) == ObjectReply(copies=3, offset=512)


def test_golden_vdi_response() -> None:
    body = bytes.fromhex("00000000 efcdab00 00000000 0316") + bytes(14)

    assert VdiReply.unpack(body) == VdiReply(0xABCDEF, copies=3, block_size_shift=22)


def test_golden_new_vdi_request() -> None:
    request = messages.new_vdi("vm", 1 << 30, base_vdi_id=0xAB, snapshot=True, copies=3, block_size_shift=22)

    assert request.header(1, 2)[16:].hex(" ", 4) == (
        "00000040 00000000 ab000000 03000016 01000000 00000000 00000000 00000000"
    )


def test_a_request_with_a_payload_announces_its_length() -> None:
    request = messages.write_object(OID, 0, b"x" * 512, copies=1)
    header = RequestHeader.unpack(request.header(1, 2))

    assert header.payload_length == header.data_length == 512


def test_a_request_without_a_payload_announces_room_and_sends_nothing() -> None:
    header = RequestHeader.unpack(messages.read_object(OID, 0, 4096).header(1, 2))

    assert (header.data_length, header.payload_length) == (4096, 0)


def test_creating_an_object_copies_only_if_there_is_one_to_copy() -> None:
    assert not messages.create_object(OID, 0, b"x", copies=1).flags & Flag.COW
    copying = messages.create_object(OID, 0, b"x", copies=1, cow_oid=5)
    assert copying.flags & Flag.COW
    assert ObjectBody.unpack(copying.body).cow_oid == 5


def test_a_lookup_sends_name_and_tag() -> None:
    request = messages.vdi_info("vm", snapid=3, tag="monday")

    assert request.payload == b"vm".ljust(NAME_SIZE, b"\0") + b"monday".ljust(NAME_SIZE, b"\0")
    assert VdiBody.unpack(request.body).snapid == 3


@pytest.mark.parametrize(("old", "opcode"), [(False, 0x17), (True, 0x81)])
def test_deleting_has_two_opcodes(*, old: bool, opcode: int) -> None:
    assert messages.delete_vdi("vm", tag="t", old=old).opcode == opcode


@pytest.mark.parametrize(("deleted", "opcode"), [(False, 0x15), (True, 0xC9)])
def test_the_bitmap_takes_2_mib(*, deleted: bool, opcode: int) -> None:
    request = messages.read_vdi_bitmap(deleted=deleted)

    assert (request.opcode, request.capacity) == (opcode, VDI_BITMAP_SIZE)


def test_only_opcodes_from_0x80_on_are_internal() -> None:
    assert messages.node_list(80).is_internal
    assert not messages.vdi_info("vm").is_internal


def test_a_request_is_told_by_its_name() -> None:
    assert str(Message(Opcode.READ_VDIS, bytes(32))) == "READ_VDIS"


@pytest.mark.parametrize("name", ["", "vm", "ü" * 127, "x" * 255])
def test_a_name_survives_packing(name: str) -> None:
    packed = messages.pack_name(name)

    assert len(packed) == NAME_SIZE
    assert messages.unpack_name(packed) == name


@pytest.mark.parametrize("name", ["x" * 256, "ü" * 128, "a\0b"])
def test_a_name_that_does_not_fit_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="at most 255 bytes"):
        messages.pack_name(name)


def test_a_name_that_is_no_utf8_survives() -> None:
    field = b"\xff\xfe".ljust(NAME_SIZE, b"\0")

    assert messages.pack_name(messages.unpack_name(field)) == field


def test_a_name_ends_at_its_first_zero() -> None:
    assert messages.unpack_name(b"vm\0left over") == "vm"


@pytest.mark.parametrize("snapid", [-1, 1 << 32])
def test_a_snapshot_id_that_does_not_fit_is_refused(snapid: int) -> None:
    with pytest.raises(ValueError, match=f"expected a snapshot id of 32 bits, got {snapid}"):
        messages.vdi_info("vm", snapid=snapid)


def states(*locks: tuple[int, int]) -> bytes:
    """Build entries of a GET_VDI_COPIES answer of 1.0: vdi ids and locks."""
    return b"".join(struct.pack("<I12xI", *lock).ljust(VDI_STATE_SIZE, b"\xff") for lock in locks)


@pytest.mark.parametrize(("lock", "is_locked"), [(1, False), (2, True), (3, True)])
def test_a_lock_is_found_by_the_vdi_id(lock: int, *, is_locked: bool) -> None:
    others = [(4, 3 - lock % 2), (6, 3 - lock % 2)]

    assert messages.find_lock(states(others[0], (5, lock), others[1]), 5) is is_locked


@pytest.mark.parametrize("answer", [b"", states((4, 2)), states((5, 2))[:-1], states((4, 2), (5, 2))[:-1]])
def test_an_answer_that_does_not_speak_of_a_vdi_tells_no_lock(answer: bytes) -> None:
    assert messages.find_lock(answer, 5) is None
