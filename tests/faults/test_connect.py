"""What answers at an address without being a sheep that serves: told apart, and within the deadline."""

from __future__ import annotations

import asyncio
import socket

import pytest

from asyncbackup import ClientOptions, connect
from asyncbackup.errors import AsyncBackupError, ClusterError, ConnectionLost, ProtocolViolation, Unreachable
from tests.faults.proxy import Handler, answer, receive, serve
from tests.waiting import until

IMPATIENT = ClientOptions(connections=2, connect_timeout_s=0.2, give_up_after_s=0)


async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html; charset=utf-8\r\n\r\nno")


async def ssh(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")
    await reader.read()


async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)


async def closing(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    pass


async def zeros(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(bytes(4096))


async def one_good_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(answer(await receive(reader), bytes(80)))
    writer.write(b"surplus" * 10)
    await reader.read()


SILENCE = r"cannot reach a sheep at 127\.0\.0\.1:[0-9]+: it accepts connections but gave no answer within 0\.2 s"


@pytest.mark.parametrize(
    ("handler", "kind", "message"),
    [
        (http, ProtocolViolation, "does not speak the sheep protocol: expected an answer to one of our requests, got"),
        (ssh, Unreachable, SILENCE),
        (silent, Unreachable, SILENCE),
        (echo, Unreachable, SILENCE),
        (closing, ConnectionLost, "lost the connection to 127.0.0.1:[0-9]+: (closed by the server|.*reset)"),
        (zeros, ProtocolViolation, "does not speak the sheep protocol: expected an answer to one of our requests, got"),
    ],
    ids=["http", "ssh", "silent", "echo", "closing", "zeros"],
)
async def test_what_is_no_sheep_is_told_in_time(handler: Handler, kind: type[ClusterError], message: str) -> None:
    async with serve(handler) as port, asyncio.timeout(5):
        with pytest.raises(kind, match=message):
            async with connect("127.0.0.1", port, IMPATIENT):
                pytest.fail("connected")


async def test_surplus_after_a_good_answer_ends_the_connection() -> None:
    options = ClientOptions(connections=1, give_up_after_s=0)
    async with serve(one_good_answer) as port, connect("127.0.0.1", port, options) as cluster:
        await until(lambda: not cluster.nodes.gateway.connections[0].is_open)


@pytest.fixture
def nobody() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


async def test_an_address_where_nothing_listens_is_told(nobody: int) -> None:
    with pytest.raises(Unreachable, match=rf"127\.0\.0\.1:{nobody}: ."):
        async with connect("127.0.0.1", nobody, IMPATIENT):
            pytest.fail("connected")


@pytest.mark.parametrize("good", range(1, 4))
async def test_a_server_that_takes_too_few_connections_leaves_none_open(good: int) -> None:
    accepted = 0
    open_now = 0

    async def limited(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted, open_now
        accepted += 1
        open_now += 1
        try:
            if accepted <= good:
                writer.write(answer(await receive(reader), bytes(80)))
                await reader.read()
        finally:
            open_now -= 1

    async with serve(limited) as port:
        try:
            async with connect("127.0.0.1", port, ClientOptions(connections=4, give_up_after_s=0)):
                pass
        except AsyncBackupError:
            pytest.fail("a connection that is lost later is no reason not to connect")
        await until(lambda: open_now == 0)


async def test_cancelled_while_connecting_leaves_nothing_open() -> None:
    connected = asyncio.Event()
    ended = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await receive(reader)
        connected.set()
        await reader.read()
        ended.set()

    async def enter(port: int) -> None:
        async with connect("127.0.0.1", port):
            pytest.fail("connected")

    async with serve(handle) as port:
        task = asyncio.create_task(enter(port))
        await connected.wait()
        task.cancel()
        await asyncio.wait([task])
        async with asyncio.timeout(5):
            await ended.wait()

    assert task.cancelled()
