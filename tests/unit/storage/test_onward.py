from __future__ import annotations

import pytest

from asyncbackup.errors import SourceUnreadable
from asyncbackup.storage.onward import OnwardSource


class Spelling(OnwardSource):
    """Gives a text, at most three bytes at a time."""

    def __init__(self, text: bytes) -> None:
        super().__init__("a text")
        self._rest = text

    async def _read_some(self, view: memoryview) -> int:
        part = self._rest[: min(3, len(view))]
        view[: len(part)] = part
        self._rest = self._rest[len(part) :]
        return len(part)


async def read(source: OnwardSource, offset: int, size: int) -> bytes:
    buffer = memoryview(bytearray(size))
    return bytes(buffer[: await source.read_into(offset, buffer)])


@pytest.mark.parametrize("sizes", [[4], [4, 7], [7, 4], [7, 4, 9, 2]])
async def test_what_was_looked_at_is_read_again(sizes: list[int]) -> None:
    source = Spelling(b"abcdefghij")
    for size in sizes:
        assert await source.peek(size) == b"abcdefghij"[:size]

    assert await read(source, 0, 5) == b"abcde"
    assert await read(source, 5, 50) == b"fghij"
    assert await read(source, 10, 50) == b""


async def test_no_thread_reads_it() -> None:
    with pytest.raises(SourceUnreadable, match="is a pipe"):
        Spelling(b"abc").read_now(0, memoryview(bytearray(3)))
