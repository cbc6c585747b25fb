"""Reads what a filter makes of another source, such as decrypted bytes, in order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Protocol, Self

from anyio import to_thread

from asyncbackup.storage.onward import OnwardSource
from asyncbackup.storage.source import Source, located

_INPUT_SIZE: Final = 256 << 10
"""Bytes to feed a filter with at a time."""


class Filter(Protocol):
    """Makes other bytes of bytes, step by step. Its methods block."""

    def feed(self, data: memoryview) -> None:
        """Take the next bytes; none at the end. They stay as they are until the filter is hungry again.

        Raises what ``take`` raises.
        """

    def take(self) -> bytes | None:
        """Give the next bytes. None: it is hungry. Nothing: that was all, and what it was fed with was complete.

        Raises Damage, or another SourceError.
        """

    def close(self) -> None:
        """End what still runs. Does nothing the second time."""


class FilteredSource(OnwardSource):
    """What the filter that ``make`` makes gives of ``inner``, which was entered. ``layer`` is its name.

    The last bytes are given only when the filter found the end complete. So whoever reads all of a backup learns that
    something behind it is lost or changed. ``read_now`` works if ``inner`` has a size: going back begins anew.

    Raises BackupDamaged where the filter finds damage.
    """

    def __init__(self, inner: Source, layer: str, make: Callable[[], Filter]) -> None:
        super().__init__(inner.name)
        self.inner = inner
        self.layer = layer
        self._make = make
        self._filter = make()
        self._buffer = memoryview(bytearray(_INPUT_SIZE))
        self._fed = 0
        self._piece = memoryview(b"")
        self._held = b""
        self._has_ended = False
        self._at = 0
        """Where the filter stands in what it gives."""
        self._read = 0
        """Bytes that were read in order."""
        self._lock = threading.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._filter.close()

    async def _read_some(self, view: memoryview) -> int:
        if self.inner.size is None:
            while (count := await to_thread.run_sync(self._step, view)) is None:
                self._feed(await self.inner.read_into(self._fed, self._buffer))
        else:
            count = await to_thread.run_sync(self.read_now, self._read, view)
        self._read += count
        return count

    def read_now(self, offset: int, view: memoryview) -> int:
        if self.inner.size is None:
            return super().read_now(offset, view)
        with self._lock:
            if offset < self._at:
                self._begin_anew()
            while self._at < offset and self._fill(view[: offset - self._at]):
                pass
            return self._fill(view)

    def _begin_anew(self) -> None:
        self._filter.close()
        self._filter = self._make()
        self._fed = self._at = 0
        self._piece, self._held, self._has_ended = memoryview(b""), b"", False

    def _fill(self, view: memoryview) -> int:
        done = 0
        while done < len(view):
            count = self._step(view[done:])
            if count is None:
                self._feed(self.inner.read_now(self._fed, self._buffer))
            elif count:
                done += count
            else:
                break
        return done

    def _feed(self, count: int) -> None:
        self._fed += count
        with located(self.name):
            self._filter.feed(self._buffer[:count])

    def _step(self, view: memoryview) -> int | None:
        """Give some bytes, and their count, 0 at the end; None if the filter is hungry."""
        while not self._piece and not self._has_ended:
            with located(self.name):
                piece = self._filter.take()
            if piece is None:
                return None
            self._piece, self._held, self._has_ended = memoryview(self._held), piece, not piece
        part = self._piece[: len(view)]
        view[: len(part)] = part
        self._piece = self._piece[len(part) :]
        self._at += len(part)
        return len(part)
