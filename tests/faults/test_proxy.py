"""What the scripted servers do for themselves."""

from __future__ import annotations

import asyncio
import socket

from tests.faults.proxy import serve
from tests.waiting import until


async def test_a_connection_that_is_being_accepted_when_the_server_is_left_is_closed() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    before = asyncio.all_tasks()
    with socket.socket() as client:
        client.settimeout(10)
        async with serve(handle) as port:
            client.connect(("127.0.0.1", port))
            await until(lambda: asyncio.all_tasks() != before)

        assert await asyncio.to_thread(client.recv, 1) == b""
