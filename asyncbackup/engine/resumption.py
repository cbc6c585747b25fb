"""Finds out from where an unfinished backup can be gone on with.

What an interrupted run left is not believed. After a power failure, lines of the manifest may be on disk without the
data that they speak of. So each record that the manifest names is read and digested, in order. The last record that
counts is the last one whose data is what its line says. What follows is written again.
"""

from __future__ import annotations

from array import array
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Final, NamedTuple

import xxhash
from anyio import to_thread

from asyncbackup.engine.manifest import open_lines
from asyncbackup.engine.progress import OnProgress, Progress
from asyncbackup.engine.record_writer import Checkpoint
from asyncbackup.errors import BegunOtherwise, PartialDamaged
from asyncbackup.format.decoder import Damage
from asyncbackup.format.manifest import MAX_LINE, ManifestDecoder, Missing, RecordDigests, Subject
from asyncbackup.format.piece import PieceRange
from asyncbackup.format.record import RECORD_HEADER_SIZE
from asyncbackup.storage import Source
from asyncbackup.storage.source import BlockingSource

_STEP_SIZE: Final = 64 << 20
"""Bytes to digest in one call in a thread. A cancellation waits for its end."""

_STEP_LINES: Final = 4096
"""Lines to read in one call in a thread, which takes some 40 ms."""

_BUFFER_SIZE: Final = 1 << 20


class Resumption(NamedTuple):
    """From where an unfinished backup can be gone on with."""

    checkpoint: Checkpoint
    indices: array[int]
    """The idx of each record up to there."""
    missing: array[int]
    """The idx of each object up to there that was left out."""
    beginning: bytes
    """The first line of the manifest: what was begun."""


async def find_resumption(
    target: str, data: BlockingSource, manifest: Source, subject: Subject, on_progress: OnProgress | None = None
) -> Resumption:
    """Read what is there of an unfinished backup of ``subject``. Messages call it ``target``.

    Raises BegunOtherwise if it is a backup of something else, PartialDamaged if nothing says what it is a backup of,
    and SourceUnreadable.
    """
    walk = _Walk(data, manifest, subject)
    await to_thread.run_sync(walk.begin, target)
    while await to_thread.run_sync(walk.go_on):
        if on_progress is not None:
            on_progress(Progress(walk.records, None, walk.position, data.size, is_checking=True))
    found = Checkpoint(walk.position, walk.records, walk.last_idx, walk.length)
    return Resumption(found, walk.indices, walk.missing, walk.beginning)


async def read_lines(manifest: Source) -> AsyncGenerator[bytes, None]:
    """Read the lines of a manifest, each with its end, some at a time."""
    lines = iter(partial(open_lines(manifest).readline, MAX_LINE), b"")
    while block := await to_thread.run_sync(_take, lines):
        for line in block:
            yield line


def _take(lines: Iterator[bytes]) -> list[bytes]:
    return list(islice(lines, _STEP_LINES))


class _Walk:
    """Goes through data and manifest, as far as they agree. It blocks, so it is for threads."""

    def __init__(self, data: BlockingSource, manifest: Source, subject: Subject) -> None:
        self._data = data
        self._name = manifest.name
        self._subject = subject
        self._lines = open_lines(manifest)
        self._decoder = ManifestDecoder()
        self._through = memoryview(bytearray(_BUFFER_SIZE))
        self.indices: array[int] = array("I")
        self.missing: array[int] = array("I")
        self.last_idx = -1
        self.position = len(subject.opening)
        self.length = 0
        """Bytes of the lines so far."""
        self.beginning = b""

    @property
    def records(self) -> int:
        return len(self.indices)

    def begin(self, target: str) -> None:
        """Judge the first line, which says what was begun."""
        line = self._lines.readline(MAX_LINE)
        try:
            begun = self._decoder.feed(line)
        except Damage as damage:
            raise PartialDamaged(target, self._name, str(damage)) from damage
        assert isinstance(begun, Subject), "the first line is nothing else"
        refuse_other(target, begun, self._subject)
        if line != begun.encode():
            raise PartialDamaged(target, self._name, "its first line is not written as it is written now")
        self.length = len(line)
        self.beginning = line

    def go_on(self) -> bool:
        """Go on by some records, and tell whether there may be more."""
        end = self.position + _STEP_SIZE
        for _ in range(_STEP_LINES):
            line = self._lines.readline(MAX_LINE)
            try:
                found = self._decoder.feed(line)
            except Damage:
                return False
            # A last line is there if the run was interrupted while it gave both files their names.
            if not isinstance(found, RecordDigests | Missing) or found.encode() != line or not self._take(found):
                return False
            self.length += len(line)
            if self.position >= end:
                break
        return True

    def _take(self, found: RecordDigests | Missing) -> bool:
        """Take over what a line says if the data agrees, and tell whether it does."""
        if isinstance(found, Missing):
            self.missing.append(found.idx)
            self.last_idx = found.idx
            return True
        if not self._is_good(found):
            return False
        self.indices.append(found.header.idx)
        self.last_idx = found.header.idx
        self.position += RECORD_HEADER_SIZE + found.header.length
        return True

    def _is_good(self, record: RecordDigests) -> bool:
        """Tell whether the data holds the record where it should stand."""
        start = self.position + RECORD_HEADER_SIZE
        header = self._through[:RECORD_HEADER_SIZE]
        if self._data.read_now(self.position, header) < len(header) or header != record.header.encode():
            return False
        digest, end = xxhash.xxh3_128(), start + record.header.length
        for offset in range(start, end, len(self._through)):
            view = self._through[: end - offset]
            if self._data.read_now(offset, view) < len(view):
                return False
            digest.update(view)
        return digest.hexdigest() == record.data


def refuse_other(target: str, begun: Subject, asked: Subject) -> None:
    """Raise BegunOtherwise unless both are the same. Of the fields that differ it names the one that says most.

    A backup that was begun whole may go on as one that leaves out what cannot be read. The reverse is refused.
    """
    if asked.may_lack:
        begun = replace(begun, may_lack=True)
    for field, one, other in zip(_FIELDS, _values(begun), _values(asked), strict=True):
        if one != other:
            raise BegunOtherwise(target, field, one, other)


_FIELDS: Final = (
    "VDI",
    "cluster",
    "snapshot",
    "base",
    "format",
    "size",
    "base size",
    "object size",
    "redundancy",
    "unreadable objects",
    "piece",
)


def _values(subject: Subject) -> tuple[object, ...]:
    return (
        f"'{subject.vdi}'",
        "one that does not say it" if subject.cluster is None else f"the one formatted {subject.cluster}",
        str(subject.identity),
        "nothing" if subject.base_identity is None else str(subject.base_identity),
        subject.dialect.value,
        subject.size,
        subject.base_size,
        subject.object_size,
        (subject.copies, subject.copy_policy),
        "to be left out" if subject.may_lack else "to end the run",
        "the whole backup" if subject.piece is None else _describe_piece(subject.piece),
    )


def _describe_piece(piece: PieceRange) -> str:
    return f"{piece}, {piece.objects} of plan {piece.plan}"
