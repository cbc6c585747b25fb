from __future__ import annotations

import pytest

from asyncbackup.client.objects import READ_SIZE, ObjectRead, cut, place_trimmed
from asyncbackup.errors import ObjectReadFailed, RequestFailed
from asyncbackup.wire.constants import Opcode, Result
from asyncbackup.wire.messages import ObjectBody, ResponseHeader
from asyncbackup.wire.oid import data_oid, inode_oid


def answered(result: Result, length: int) -> ResponseHeader:
    return ResponseHeader(2, Opcode.READ_OBJ, 0, 1, 1, length, result, bytes(28))


def test_a_read_is_cut_into_requests_that_fill_its_buffer_in_order() -> None:
    buffer = bytearray(2 * READ_SIZE + 512)

    parts = cut([ObjectRead(7, memoryview(buffer), 1024)], may_be_trimmed=False)

    bodies = [ObjectBody.unpack(part.message.body) for part in parts]
    assert [(body.oid, body.offset) for body in bodies] == [
        (7, 1024),
        (7, 1024 + READ_SIZE),
        (7, 1024 + 2 * READ_SIZE),
    ]
    assert [part.message.capacity for part in parts] == [READ_SIZE, READ_SIZE, 512]
    for number, part in enumerate(parts, 1):
        into = part.place(answered(Result.SUCCESS, part.message.capacity), part.buffer)
        into[:] = bytes([number]) * len(into)
    assert buffer == b"\1" * READ_SIZE + b"\2" * READ_SIZE + b"\3" * 512


def test_an_answer_goes_into_the_buffer_of_its_attempt() -> None:
    own, spare = bytearray(4), bytearray(4)
    (part,) = cut([ObjectRead(7, memoryview(own))], may_be_trimmed=False)

    part.place(answered(Result.SUCCESS, 4), memoryview(spare))[:] = b"data"

    assert own == bytes(4)
    assert spare == b"data"


@pytest.mark.parametrize(
    ("oid", "kind", "message"),
    [
        (data_oid(5, 255), ObjectReadFailed, r"reading object 255 \(oid 00000005000000ff\) failed: I/O error"),
        (inode_oid(5), RequestFailed, "reading object 8000000500000000 failed: I/O error"),
    ],
)
def test_an_object_that_cannot_be_read_is_told_with_its_id(oid: int, kind: type[RequestFailed], message: str) -> None:
    (part,) = cut([ObjectRead(oid, memoryview(bytearray(4)))], may_be_trimmed=False)
    part.answer = answered(Result.EIO, 0)

    with pytest.raises(kind, match=message):
        part.check()


def place(wanted: int, offset: int, length: int, *, may_be_trimmed: bool = True) -> tuple[bytearray, memoryview]:
    buffer = bytearray(b"\xee" * wanted)
    return buffer, place_trimmed(memoryview(buffer), offset, length, may_be_trimmed=may_be_trimmed)


@pytest.mark.parametrize(("offset", "length"), [(0, 512), (512, 512), (1536, 512), (0, 0), (2048, 0), (512, 1024)])
def test_a_trimmed_answer_lies_among_zeros(offset: int, length: int) -> None:
    buffer, view = place(2048, offset, length)

    view[:] = b"x" * length

    assert buffer == bytes(offset) + b"x" * length + bytes(2048 - offset - length)


@pytest.mark.parametrize(
    ("offset", "length", "got"),
    [
        (100, 512, "got 512 bytes at offset 100"),
        (2048, 512, "got 512 bytes at offset 2048"),
        (1024, 1536, "got 1536 bytes at offset 1024"),
    ],
)
def test_a_trimmed_answer_that_does_not_fit_is_refused(offset: int, length: int, got: str) -> None:
    with pytest.raises(ValueError, match=f"expected 2048 bytes, {got}"):
        place(2048, offset, length)


def test_a_short_answer_of_a_server_that_does_not_trim_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^expected 2048 bytes, got 512 bytes$"):
        place(2048, 0, 512, may_be_trimmed=False)
