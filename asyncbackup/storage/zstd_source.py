"""Reads what zstd compressed: ranges of it where there is a seek table, and all of it in order elsewhere."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Final, Self

from anyio import to_thread

from asyncbackup.errors import BackupDamaged
from asyncbackup.format.decoder import Damage
from asyncbackup.format.seekable import FOOTER_SIZE, Frame, SeekTable, decode_footer
from asyncbackup.storage.filtered import FilteredSource
from asyncbackup.storage.ranged import RangedSource
from asyncbackup.storage.source import Source, located
from asyncbackup.storage.zstd import Decompression, decompress_frame

LAYER: Final = "zstd"

_MAX_FRAMES: Final = 8 << 20
"""The most frames of a table that is read: 64 MiB of memory, and 8 TiB in frames of ours."""

_MAX_FRAME: Final = 4 << 20
"""The most bytes of a frame, compressed or not, that is read whole. Ours have 1 MiB."""

_SLOTS: Final = 8
"""Frames to keep, and to decompress at a time. Neighbours never take one another's place."""


async def open_zstd(inner: Source) -> FilteredSource | ZstdSource:
    """Give a source, not yet entered, for the content of ``inner``, which was entered.

    Without a seek table, or with frames that are too many or too large to read one by one, it reads only in order.
    Raises SourceUnreadable, and BackupDamaged for a wrong seek table.
    """
    size = inner.size
    table = None if size is None else await to_thread.run_sync(_read_table, inner, size)
    return FilteredSource(inner, LAYER, Decompression) if table is None else ZstdSource(inner, table)


def _read_table(inner: Source, size: int) -> SeekTable | None:
    if size < FOOTER_SIZE:
        return None
    with located(inner.name):
        footer = decode_footer(_read(inner, size - FOOTER_SIZE, FOOTER_SIZE), size)
        if footer is None or not 0 < footer.frames <= _MAX_FRAMES:
            return None
        table = SeekTable.decode(_read(inner, size - footer.size, footer.size), size)
    return table if max(table.longest, table.largest) <= _MAX_FRAME else None


def _read(inner: Source, offset: int, length: int) -> memoryview:
    buffer = memoryview(bytearray(length))
    count = inner.read_now(offset, buffer)
    if count < length:
        raise Damage(offset + count, f"the file ends here; expected {length - count} more bytes")
    return buffer


class _Slot:
    """Keeps a frame."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.number = -1
        self.content = memoryview(b"")


class ZstdSource(RangedSource):
    """The content of ``inner``, which was entered, by its seek ``table``: at any offset, several readers at a time.

    Reading raises BackupDamaged where a frame is not what the table says.
    """

    layer = f"{LAYER} with a seek table"

    def __init__(self, inner: Source, table: SeekTable) -> None:
        super().__init__(inner.name)
        self.inner = inner
        self.size = table.size
        self.is_far = inner.is_far
        self._table = table
        self._slots = [_Slot() for _ in range(_SLOTS)]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing runs between two reads."""

    def read_now(self, offset: int, view: memoryview) -> int:
        end = min(offset + len(view), self.size)
        position = offset
        while position < end:
            frame = self._table.find(position)
            part = self._decompress(frame)[position - frame.start : end - frame.start]
            view[position - offset : position - offset + len(part)] = part
            position += len(part)
        return max(0, position - offset)

    def _decompress(self, frame: Frame) -> memoryview:
        slot = self._slots[frame.number % _SLOTS]
        with slot.lock:
            if slot.number != frame.number:
                try:
                    with located(self.name):
                        content = decompress_frame(_read(self.inner, frame.offset, frame.length), frame.size)
                except ValueError as error:
                    raise BackupDamaged(self.name, frame.offset, str(error)) from error
                slot.number, slot.content = frame.number, memoryview(content)
            return slot.content
