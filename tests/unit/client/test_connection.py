"""The law of the connection, against servers that play a script."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

import anyio
import pytest

from asyncbackup.client.connection import Attempt, Connection
from asyncbackup.client.request import Request
from asyncbackup.errors import ConnectionLost, ProtocolViolation, RequestTimeout, Unreachable
from asyncbackup.wire.constants import Flag, Opcode, Result
from asyncbackup.wire.messages import Message, read_object, write_object
from tests.faults.proxy import Handler, answer, receive, serve
from tests.waiting import until

READ = read_object(7, 0, 4)


class Told:
    """Keeps what a connection tells its owner."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.unanswered: list[Attempt] = []

    def note_answer(self, attempt: Attempt) -> None:
        self.events.append(f"answer {attempt.id}")

    def note_room(self) -> None:
        self.events.append("room")

    def note_loss(self, unanswered: Sequence[Attempt]) -> None:
        self.events.append("loss")
        self.unanswered.extend(unanswered)


async def opened(port: int, told: Told | None = None) -> Connection:
    return await Connection.open("127.0.0.1", port, 5, told or Told())


async def carry_out(connection: Connection, message: Message = READ, timeout_s: float = 5) -> Request:
    request = Request(message)
    await connection.call(request, 2, timeout_s)
    return request


async def call(connection: Connection, message: Message = READ, timeout_s: float = 5) -> bytes:
    return bytes((await carry_out(connection, message, timeout_s)).payload)


async def read_into(buffer: bytearray, connection: Connection, timeout_s: float = 5) -> None:
    await connection.call(Request(READ, memoryview(buffer)), 2, timeout_s)


async def start(connection: Connection, count: int) -> list[asyncio.Task[bytes]]:
    """Send ``count`` requests; they are on their way when this returns."""
    tasks = [asyncio.create_task(call(connection)) for _ in range(count)]
    await until(lambda: connection.unanswered == count)
    return tasks


async def hold(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


def replying(*pieces: bytes) -> Handler:
    """Send ``pieces`` after the first request, then close."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await receive(reader)
        writer.writelines(pieces)

    return handle


answer_to_the_first = bytes([2, 2]) + bytes(6) + b"\1\0\0\0\4\0\0\0" + bytes(32) + b"data"


async def answer_three_backwards(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    requests = [await receive(reader) for _ in range(3)]
    for request in reversed(requests):
        writer.write(answer(request, request.id.to_bytes(4, "big")))
    await reader.read()


async def test_answers_may_come_in_any_order() -> None:
    async with serve(answer_three_backwards) as port:
        connection = await opened(port)
        tasks = await start(connection, 3)

        assert [int.from_bytes(await task, "big") for task in tasks] == [1, 2, 3]
        assert connection.unanswered == 0
        await connection.close()


async def test_a_payload_lands_in_the_buffer_named_for_it() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(await receive(reader), b"data"))
        await reader.read()

    async with serve(handle) as port:
        connection = await opened(port)
        buffer = bytearray(4)

        await read_into(buffer, connection)

        assert buffer == b"data"
        await connection.close()


async def test_each_attempt_is_told_its_own_end() -> None:
    ended: list[Attempt] = []
    async with serve(answer_three_backwards) as port:
        connection = await opened(port)
        attempts = [Attempt(Request(READ), None, ended.append) for _ in range(3)]
        for attempt in attempts:
            connection.send(attempt, 2)

        await until(lambda: len(ended) == 3)

        assert ended == attempts[::-1]
        assert [int.from_bytes(attempt.payload, "big") for attempt in attempts] == [1, 2, 3]
        await connection.close()


async def test_answers_and_the_end_are_told() -> None:
    told = Told()
    async with serve(replying(answer_to_the_first)) as port:
        connection = await opened(port, told)

        await call(connection)
        assert told.events[:1] == ["answer 1"]
        await until(lambda: not connection.is_open)
        await connection.close()

    assert told.events == ["answer 1", "loss"]


async def test_the_end_tells_what_is_unanswered_before_it_ends_that() -> None:
    ended: list[Attempt] = []
    told = Told()
    async with serve(hold) as port:
        connection = await opened(port, told)
        attempts = [Attempt(Request(READ), None, lambda each: ended.extend([each, *told.unanswered])) for _ in range(2)]
        for attempt in attempts:
            connection.send(attempt, 2)

        await connection.close()

    assert ended == [attempts[0], *attempts, attempts[1], *attempts]
    assert all(isinstance(attempt.error, ConnectionLost) for attempt in attempts)


async def test_the_answer_of_a_tombstone_is_told() -> None:
    told = Told()
    async with serve(replying(answer_to_the_first)) as port:
        connection = await opened(port, told)
        attempt = Attempt(Request(READ), None, None)
        connection.send(attempt, 2)

        await until(lambda: told.events[:1] == ["answer 1"])

        assert bytes(attempt.payload) == b""
        await connection.close()


async def test_a_connection_knows_where_it_leads() -> None:
    async with serve(hold) as port:
        connection = await opened(port)

        assert connection.peer == ("127.0.0.1", port)
        await connection.close()


async def test_an_error_answer_has_no_payload_even_if_it_brings_one() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(await receive(reader), b"junk", result=Result.EIO))
        writer.write(answer(await receive(reader), b"data"))
        await reader.read()

    async with serve(handle) as port:
        connection = await opened(port)

        reply = await carry_out(connection)

        assert (reply.result, bytes(reply.payload)) == (Result.EIO, b"")
        assert await call(connection) == b"data"
        await connection.close()


async def test_a_payload_is_sent() -> None:
    received = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        header = await reader.readexactly(48)
        received.append(await reader.readexactly(5))
        writer.write(header[:16] + bytes(32))

    async with serve(handle) as port:
        connection = await opened(port)
        message = Message(Opcode.WRITE_OBJ, bytes(32), Flag.WRITE, b"bytes")
        with pytest.raises(ProtocolViolation, match="at most 0 bytes for WRITE_OBJ, got 5 bytes"):
            await carry_out(connection, message)
        await connection.close()

    assert received == [b"bytes"]


async def test_an_answer_to_no_request_is_fatal() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(await receive(reader), request_id=77))
        await reader.read()

    async with serve(handle) as port:
        connection = await opened(port)

        with pytest.raises(ProtocolViolation, match="expected an answer to one of our requests, got one to request 77"):
            await call(connection)

        assert not connection.is_open
        await connection.close()


async def test_an_answer_to_another_opcode_is_fatal() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(await receive(reader), opcode=0x15))
        await reader.read()

    async with serve(handle) as port:
        connection = await opened(port)

        with pytest.raises(ProtocolViolation, match=r"expected an answer to READ_OBJ \(opcode 0x02\), got opcode 0x15"):
            await call(connection)

        await connection.close()


async def test_an_answer_longer_than_asked_for_is_fatal() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(await receive(reader), b"12345"))
        await reader.read()

    async with serve(handle) as port:
        connection = await opened(port)

        with pytest.raises(ProtocolViolation, match="expected at most 4 bytes for READ_OBJ, got 5 bytes"):
            await call(connection)

        await connection.close()


async def test_an_answer_that_cannot_be_placed_is_fatal() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(await receive(reader), b"123"))
        await reader.read()

    async with serve(handle) as port:
        connection = await opened(port)

        with pytest.raises(ProtocolViolation, match=r"protocol: expected 4 bytes, got 3 bytes$"):
            await read_into(bytearray(4), connection)

        await connection.close()


async def test_the_end_gives_each_waiter_an_exception_of_its_own_with_the_cause() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests = [await receive(reader) for _ in range(3)]
        writer.write(answer(requests[0], request_id=77))
        await reader.read()

    async with serve(handle) as port:
        connection = await opened(port)
        tasks = await start(connection, 3)
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        await connection.close()

    assert all(isinstance(error, ProtocolViolation) for error in errors)
    assert len({id(error) for error in errors}) == 3
    assert len({id(error.__cause__) for error in errors if isinstance(error, ProtocolViolation)}) == 1


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b"", "closed by the server$"),
        (bytes(10), "closed by the server after 10 of 48 bytes of a header"),
        (answer_to_the_first[:-2], "after 2 of 4 bytes of a payload"),
    ],
)
async def test_a_connection_that_ends_says_how_far_it_had_come(sent: bytes, message: str) -> None:
    async with serve(replying(sent)) as port:
        connection = await opened(port)

        with pytest.raises(ConnectionLost, match=message):
            await call(connection)

        await connection.close()


async def test_a_reset_is_told() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await receive(reader)
        linger_none = b"\1\0\0\0\0\0\0\0"
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_none)
        writer.transport.abort()

    async with serve(reset) as port:
        connection = await opened(port)

        with pytest.raises(ConnectionLost, match=r"(?i)connection reset"):
            await call(connection)

        await connection.close()


async def test_nobody_waits_longer_than_the_deadline() -> None:
    async with serve(hold) as port:
        connection = await opened(port)

        with pytest.raises(RequestTimeout, match=r"did not answer READ_OBJ within 0\.01 s"):
            await call(connection, timeout_s=0.01)

        await connection.close()


async def test_a_late_answer_is_dropped_and_the_connection_goes_on() -> None:
    timed_out = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        late = await receive(reader)
        await timed_out.wait()
        writer.write(answer(late, b"late"))
        writer.write(answer(await receive(reader), b"data"))
        await reader.read()

    async with serve(handle) as port:
        connection = await opened(port)
        buffer = bytearray(4)
        with pytest.raises(RequestTimeout):
            await read_into(buffer, connection, timeout_s=0.01)
        assert connection.unanswered == 1
        timed_out.set()

        assert await call(connection) == b"data"

        assert buffer == bytes(4)
        assert connection.unanswered == 0
        await connection.close()


async def test_after_a_cancellation_mid_payload_the_buffer_is_ours() -> None:
    cancelled = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        late = answer(await receive(reader), b"late")
        writer.write(late[:-2])
        await cancelled.wait()
        writer.write(late[-2:])
        writer.write(answer(await receive(reader), b"data"))
        await reader.read()

    async with serve(handle) as port:
        connection = await opened(port)
        buffer = bytearray(4)
        task = asyncio.create_task(read_into(buffer, connection))
        await until(lambda: buffer[:2] == b"la")
        task.cancel()
        await asyncio.wait([task])
        buffer[:] = b"mine"
        cancelled.set()

        assert await call(connection) == b"data"

        assert task.cancelled()
        assert buffer == b"mine"
        await connection.close()


@pytest.mark.parametrize("size", [1 << 10, 8 << 20], ids=["sent", "partly sent"])
async def test_giving_up_a_partly_sent_request_ends_the_connection(size: int) -> None:
    async with serve(hold) as port:
        connection = await opened(port)

        with pytest.raises(RequestTimeout):
            await carry_out(connection, write_object(7, 0, bytes(size), copies=1), 0.05)

        assert connection.is_open is (size < 1 << 20)
        await connection.close()


async def test_a_connection_is_not_ready_while_its_socket_takes_nothing() -> None:
    may_read, told = asyncio.Event(), Told()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await may_read.wait()
        writer.write(answer(await receive(reader)))
        await reader.read()

    async with serve(handle) as port:
        connection = await opened(port, told)
        async with anyio.create_task_group() as group:
            group.start_soon(carry_out, connection, write_object(7, 0, bytes(8 << 20), copies=1))
            await until(lambda: connection.unanswered == 1)
            assert not connection.is_ready
            may_read.set()

        assert told.events == ["room", "answer 1"]
        await connection.close()


async def test_closing_ends_every_request() -> None:
    async with serve(hold) as port:
        connection = await opened(port)
        tasks = await start(connection, 3)

        await connection.close()

        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(error, ConnectionLost) and error.reason == "closed by us" for error in errors)


async def test_closing_twice_is_closing_once() -> None:
    async with serve(hold) as port:
        connection = await opened(port)

        await connection.close()
        await connection.close()

        assert not connection.is_open


async def test_a_closed_connection_takes_no_request() -> None:
    async with serve(hold) as port:
        connection = await opened(port)
        await connection.close()

        with pytest.raises(ConnectionLost, match="closed by us"):
            await call(connection)


async def test_a_connection_that_was_never_made_takes_no_request() -> None:
    connection = Connection("nowhere:1", Told())
    with pytest.raises(ConnectionLost, match="not open"):
        await call(connection)

    connection.abort()

    with pytest.raises(ConnectionLost, match="closed by us"):
        await call(connection)


async def test_a_refused_connection_is_told_with_its_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with pytest.raises(Unreachable, match=rf"127\.0\.0\.1:{port}: ."):
        await opened(port)


async def test_a_name_that_is_no_host_is_told() -> None:
    with pytest.raises(Unreachable, match="cannot reach a sheep at no host:7000"):
        await Connection.open("no host", 7000, 5, Told())


async def test_connecting_has_a_deadline() -> None:
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for filler in (first, second):  # A full queue: the kernel lets further connections wait.
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())

        with pytest.raises(Unreachable, match=r"no connection within 0\.05 s"):
            await Connection.open("127.0.0.1", listener.getsockname()[1], 0.05, Told())
