"""Reads the manifest of a backup, and takes the digests that stand in one."""

from __future__ import annotations

import io
from array import array
from collections.abc import Iterator
from typing import Any, Final

import xxhash

from asyncbackup.format import RecordHeader
from asyncbackup.format.decoder import Damage
from asyncbackup.format.manifest import (
    MAX_LINE,
    MAX_TRAILER,
    Line,
    ManifestDecoder,
    Missing,
    RecordDigests,
    Subject,
    Trailer,
    decode_data_length,
)
from asyncbackup.storage import Source
from asyncbackup.storage.source import located

_BUFFER_SIZE: Final = 64 << 10
"""Bytes of lines to read at a time."""


class ManifestReader:
    """A manifest, read from ``source``, which was entered, in constant memory. Blocks, so it is for threads.

    Reading raises SourceUnreadable and BackupDamaged.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.subject: Subject | None = None
        """What the backup is of; known once the manifest was checked, as the trailer is."""
        self.trailer: Trailer | None = None
        self.missing: array[int] = array("I")
        """The idx of each object that was left out."""

    def check(self) -> None:
        """Read all of it."""
        self.missing = array("I")
        for decoded in self.lines():
            if isinstance(decoded, Subject):
                self.subject = decoded
            elif isinstance(decoded, Trailer):
                self.trailer = decoded
            elif isinstance(decoded, Missing):
                self.missing.append(decoded.idx)

    def records(self) -> Iterator[RecordDigests]:
        """Read what it says of each record, in order."""
        for decoded in self.lines():
            if isinstance(decoded, RecordDigests):
                yield decoded

    def lines(self) -> Iterator[Line]:
        """Read what all lines say, in order. Whoever reads the last one knows that all were right."""
        decoder = ManifestDecoder()
        lines = open_lines(self.source)
        with located(self.source.name):
            while line := lines.readline(MAX_LINE):
                yield decoder.feed(line)
            decoder.finish()


async def read_subject(source: Source) -> Subject:
    """Read only the first line of a manifest, which says what its backup is of. ``source`` must be entered.

    Raises SourceUnreadable and BackupDamaged.
    """
    beginning = await source.peek(MAX_LINE)
    with located(source.name):
        subject = ManifestDecoder().feed(beginning[: beginning.find(b"\n") + 1] or beginning)
    assert isinstance(subject, Subject)
    return subject


async def read_data_length(source: Source) -> int | None:
    """Read only the end of a manifest, which says how many bytes its backup has. ``source`` must be entered.

    None: ``source`` is read only in order. Nothing is proved. Raises SourceUnreadable and BackupDamaged.
    """
    if source.size is None:
        return None
    offset = max(0, source.size - MAX_TRAILER)
    end = bytearray(source.size - offset)
    await source.read_into(offset, memoryview(end))
    with located(source.name):
        try:
            return decode_data_length(bytes(end))
        except ValueError as error:
            raise Damage(offset, f"the last line: {error}") from error


def open_lines(source: Source) -> io.BufferedReader:
    """Give what reads the lines of ``source``, from its beginning on. It blocks."""
    return io.BufferedReader(_Bytes(source), _BUFFER_SIZE)


class _Bytes(io.RawIOBase):
    """The bytes of a source from its beginning on, for what reads lines."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source = source
        self._offset = 0

    def readable(self) -> bool:
        return True

    # Any: a name for buffers in general comes only with Python 3.12.
    def readinto(self, buffer: Any) -> int:
        count = self._source.read_now(self._offset, memoryview(buffer))
        self._offset += count
        return count


class Digests:
    """The running digests of a record: of what it is laid over, if that is wanted, and of its own data, in order."""

    def __init__(self, *, with_base: bool = True) -> None:
        self.with_base = with_base
        self.base = xxhash.xxh3_128()
        self.data = xxhash.xxh3_128()

    def take_base(self, content: memoryview) -> None:
        """Take what data is about to be laid over."""
        if self.with_base:
            self.base.update(content)

    def of(self, header: RecordHeader) -> RecordDigests:
        """Give what was taken, as that of the record ``header``."""
        return RecordDigests(header, self.data.hexdigest(), self.base.hexdigest() if self.with_base else None)
