from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from asyncbackup.sheep import FolderStore, MemoryStore, Sheep, Store
from tests.unit.sheep.plain_client import Client, Connect, Start


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    writers: list[asyncio.StreamWriter] = []

    async def open_client(sheep: Sheep) -> Client:
        reader, writer = await asyncio.open_connection(sheep.host, sheep.port)
        writers.append(writer)
        return Client(reader, writer)

    yield open_client
    for writer in writers:
        writer.transport.abort()


@pytest.fixture
async def start(connect: Connect) -> AsyncIterator[Start]:
    """Start a sheep, on a new memory store unless told otherwise, and connect a client to it."""
    async with AsyncExitStack() as stack:

        async def serve(store: Store | None = None, **options: Any) -> tuple[Sheep, Client]:
            sheep = await stack.enter_async_context(Sheep(store or MemoryStore(), **options))
            return sheep, await connect(sheep)

        yield serve


@pytest.fixture(params=["memory", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else FolderStore(tmp_path / "store")
