"""What happens on the sockets: framing, faults, back-pressure, the end."""

from __future__ import annotations

import asyncio
import struct

import pytest

from asyncbackup.sheep import Fault, MemoryStore, Sheep
from asyncbackup.sheep.connection import MAX_PAYLOAD, MAX_QUEUED_ANSWERS
from asyncbackup.wire.constants import Flag, Opcode, Result
from asyncbackup.wire.messages import (
    RequestHeader,
    VdiReply,
    create_object,
    new_vdi,
    node_list,
    read_object,
    vdi_info,
)
from asyncbackup.wire.oid import data_oid
from tests.unit.sheep.plain_client import Client, Connect, Start

OID = data_oid(5, 0)
SIZE = 1 << 22
DATA = bytes(range(256)) * (SIZE // 256)


def stored() -> MemoryStore:
    store = MemoryStore()
    store.put(OID, SIZE, [(0, DATA)])
    return store


async def test_an_object_comes_back_as_written(start: Start) -> None:
    _, client = await start()
    header, _ = await client.ask(new_vdi("disk", 1 << 26))
    oid = data_oid(VdiReply.unpack(header.body).vdi_id, 3)

    await client.ask(create_object(oid, 0, DATA, copies=1))
    header, data = await client.ask(read_object(oid, 0, SIZE))

    assert header.result is Result.SUCCESS
    assert data == DATA


async def test_pipelined_requests_are_all_answered(start: Start) -> None:
    _, client = await start(stored())
    for request_id in range(50):
        client.send(read_object(OID, request_id * 512, 512), request_id)

    answers = [await client.receive() for _ in range(50)]

    assert [header.id for header, _ in answers] == list(range(50))
    assert all(data == DATA[:512] for _, data in answers)


async def test_requests_are_counted_and_shown(start: Start) -> None:
    seen: list[RequestHeader] = []
    sheep, client = await start(on_request=seen.append)

    await client.ask(node_list(80))
    await client.ask(vdi_info("none"))
    client.send_raw(0x70)
    await client.receive()

    assert sheep.requests == {Opcode.GET_NODE_LIST: 1, Opcode.GET_VDI_INFO: 1}
    assert [header.opcode for header in seen] == [0x82, 0x14, 0x70]


async def test_an_unknown_opcode_is_refused_and_its_payload_dropped(start: Start) -> None:
    _, client = await start()

    client.send_raw(0x70, flags=Flag.WRITE, data_length=200_000, payload=bytes(200_000))
    header, _ = await client.receive()
    again, _ = await client.ask(node_list(80))

    assert (header.result, header.opcode) == (Result.INVALID_PARMS, 0x70)
    assert again.result is Result.SUCCESS


async def test_who_announces_too_much_is_disconnected(start: Start) -> None:
    sheep, client = await start()

    client.send_raw(Opcode.WRITE_OBJ, flags=Flag.WRITE, data_length=MAX_PAYLOAD + 1)

    assert await closed(client)
    assert sheep.connections == 0


async def test_who_sends_another_protocol_is_disconnected(start: Start) -> None:
    _, client = await start()

    client.writer.write(b"\xff" * 4096)

    assert await closed(client)


async def test_a_client_that_leaves_in_the_middle_is_forgotten(start: Start, connect: Connect) -> None:
    sheep, leaving = await start()
    staying = await connect(sheep)

    leaving.writer.write(b"\x02\x14")
    leaving.writer.close()
    await leaving.writer.wait_closed()
    while sheep.connections > 1:
        await staying.ask(node_list(80))

    header, _ = await staying.ask(node_list(80))
    assert header.result is Result.SUCCESS


async def test_a_client_that_does_not_read_is_not_read_from(start: Start, connect: Connect) -> None:
    sheep, idle = await start(stored())
    other = await connect(sheep)
    for request_id in range(20_000):
        idle.send(read_object(OID, 0, SIZE), request_id)

    previous = -1
    while sheep.requests[Opcode.READ_OBJ] != previous:
        previous = sheep.requests[Opcode.READ_OBJ]
        for _ in range(50):
            await other.ask(node_list(80))

    assert 0 < previous < 2 * MAX_QUEUED_ANSWERS


@pytest.mark.slow
async def test_a_client_that_reads_late_gets_everything(start: Start) -> None:
    _, client = await start(stored())
    count = MAX_QUEUED_ANSWERS * 2
    for request_id in range(count):
        client.send(read_object(OID, 0, SIZE), request_id)

    for request_id in range(count):
        header, data = await client.receive()
        assert header.id == request_id
        assert len(data) == SIZE


async def test_an_error_is_answered_and_the_request_not_carried_out(start: Start) -> None:
    _, client = await start(faults=[Fault.parse("new_vdi@1:error=NO_SPACE")])

    refused, _ = await client.ask(new_vdi("disk", 1 << 22))
    missing, _ = await client.ask(vdi_info("disk"))

    assert refused.result is Result.NO_SPACE
    assert missing.result is Result.NO_VDI


async def test_a_reordered_answer_comes_after_later_ones(start: Start) -> None:
    _, client = await start(stored(), faults=[Fault.parse("read_obj@2:reorder=2")])
    for request_id in range(5):
        client.send(read_object(OID, 0, 512), request_id)

    assert [(await client.receive())[0].id for _ in range(5)] == [0, 2, 3, 1, 4]


async def test_a_delayed_answer_is_overtaken(start: Start) -> None:
    _, client = await start(stored(), faults=[Fault.parse("read_obj@1:delay=0.01")])
    for request_id in range(2):
        client.send(read_object(OID, 0, 512), request_id)

    assert [(await client.receive())[0].id for _ in range(2)] == [1, 0]


async def test_a_short_answer_admits_its_length(start: Start) -> None:
    _, client = await start(stored(), faults=[Fault.parse("read_obj@1:short=512")])

    header, data = await client.ask(read_object(OID, 0, SIZE))

    assert header.result is Result.SUCCESS
    assert data == DATA[:512]


async def test_a_long_answer_admits_its_length(start: Start) -> None:
    _, client = await start(stored(), faults=[Fault.parse("read_obj@1:long=512")])

    _, data = await client.ask(read_object(OID, 0, 4096))

    assert data == DATA[:4096] + bytes(512)


async def test_a_wrong_id_is_none_that_was_asked_under(start: Start) -> None:
    _, client = await start(stored(), faults=[Fault.parse("read_obj@1:wrong-id")])

    header, _ = await client.ask(read_object(OID, 0, 512))

    assert header.id == 0x4000_0001


async def test_a_reset_is_a_reset(start: Start) -> None:
    _, client = await start(stored(), faults=[Fault.parse("read_obj@1:reset")])

    with pytest.raises(ConnectionResetError):
        await client.ask(read_object(OID, 0, 512))


@pytest.mark.parametrize(("length", "asked"), [(100, 512), (5000, SIZE), (0, SIZE)])
async def test_a_cut_answer_ends_early(start: Start, length: int, asked: int) -> None:
    _, client = await start(stored(), faults=[Fault.parse(f"read_obj@1:cut={length}")])
    client.send(read_object(OID, 0, asked))

    received = await client.reader.read()

    assert received[48:] == DATA[:length]
    assert struct.unpack_from("<I", received, 12) == (asked,)


async def test_garbage_is_the_same_every_time(start: Start) -> None:
    received = []
    for _ in range(2):
        _, client = await start(stored(), faults=[Fault.parse("read_obj@1:garbage=64")])
        client.send(read_object(OID, 0, 512))
        received.append(await client.reader.readexactly(64))

    assert received[0] == received[1]


async def test_a_stalled_request_leaves_the_others_alone(start: Start) -> None:
    _, client = await start(stored(), faults=[Fault.parse("read_obj@1:stall")])
    for request_id in range(2):
        client.send(read_object(OID, 0, 512), request_id)

    header, _ = await client.receive()

    assert header.id == 1


async def test_leaving_closes_every_connection(connect: Connect) -> None:
    async with Sheep(MemoryStore()) as sheep:
        client = await connect(sheep)
        await client.ask(node_list(80))

    assert await closed(client)
    with pytest.raises(ConnectionRefusedError):
        await connect(sheep)


async def test_a_store_can_be_served_again(connect: Connect) -> None:
    store = MemoryStore()
    async with Sheep(store) as sheep:
        await (await connect(sheep)).ask(new_vdi("disk", 1 << 22))

    async with Sheep(store) as sheep:
        header, _ = await (await connect(sheep)).ask(vdi_info("disk"))

    assert header.result is Result.SUCCESS


async def closed(client: Client) -> bool:
    """Wait for the other side to end the connection."""
    async with asyncio.timeout(10):
        try:
            while await client.reader.read(1 << 16):
                pass
        except ConnectionResetError:
            return True
    return True
