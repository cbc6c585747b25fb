"""Content through layers, in memory and in files, for tests."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

from asyncbackup.storage import Access, FileSource, FileTarget, Layers, Source, publish
from asyncbackup.storage.layers import unwrap_source


async def write_layered(path: Path, content: bytes, layers: Layers, *, cut: int = 1 << 20) -> None:
    """Write ``content`` to a new file through ``layers``, ``cut`` bytes at a time."""
    async with AsyncExitStack() as stack:
        target = await layers.wrap_target(stack, await stack.enter_async_context(FileTarget(path)))
        for start in range(0, len(content), cut):
            await target.append([content[start : start + cut]])
        await publish(target)


async def read_all(source: Source, size: int = 300_001) -> bytes:
    """Read ``source`` in order, ``size`` bytes at a time."""
    content, buffer = bytearray(), memoryview(bytearray(size))
    while count := await source.read_into(len(content), buffer):
        content += buffer[:count]
    return bytes(content)


async def read_layered(path: Path, *identities: Path, size: int = 300_001) -> bytes:
    """Read what the layers of a file hold."""
    async with AsyncExitStack() as stack:
        file = await stack.enter_async_context(FileSource(path))
        source = await unwrap_source(stack, file, Access(identities=tuple(map(str, identities))))
        return await read_all(source, size)
