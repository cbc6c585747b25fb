"""Writes the records of a backup, and what its manifest says of them, in order.

Data comes before the lines that speak of it: a line is appended to the manifest only when the data was appended, and at
a checkpoint only when the data is durable. So whatever interrupts a run, the manifest promises nothing that is not
there. A target that compresses holds the last bytes back until they fill a frame: of these alone it may speak too soon.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from anyio import to_thread

from asyncbackup.engine.manifest import Digests
from asyncbackup.errors import PatchNeeded
from asyncbackup.format import Dialect, RecordHeader
from asyncbackup.format.decoder import Damage
from asyncbackup.format.manifest import Line, ManifestDecoder, ManifestEncoder, Missing, RecordDigests, Subject
from asyncbackup.format.record import RECORD_HEADER_SIZE
from asyncbackup.storage import Target, publish

_GATHERED_SIZE: Final = 64 << 10
"""Bytes of short records, and of lines, to gather before they are appended: a hop to a thread costs more."""

_REPEATED: Final = 4096
"""Lines to make again in one hop to a thread: some 40 ms, for which a cancellation waits."""


class Fragment(NamedTuple):
    """Bytes of a record on their way to the file: all of it, or a part of it.

    The first one of a record has its ``header``. The buffers are used until the writer's ``append`` returns.
    """

    header: RecordHeader | None
    data: Sequence[memoryview]
    base: Sequence[memoryview] | None = None
    """What the base holds in the same place; None where nobody read it: then the manifest has no digest of it."""
    is_last: bool = True
    known: RecordDigests | None = None
    """What the manifest says of the record, if it is known already: then no digests are taken. All fragments say it."""
    assumed: bool = False
    """Whether bytes of the record are of a base that nobody proved. The last fragment says it."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a record writer can go on: behind a whole record. Both lengths are durable."""

    position: int
    """Bytes of the data. What stands behind them belongs to a record that is not complete."""
    records: int
    last_idx: int
    """Index of the last record, or of an object that was left out behind it; -1 if there is none."""
    manifest_length: int
    """Bytes of the manifest; 0 without one."""


@dataclass(slots=True)
class _Repetition:
    """Makes lines of a manifest again, so that ``encoder`` knows them, and follows where they lead."""

    subject: Subject
    encoder: ManifestEncoder
    awaits_opening: bool
    decoder: ManifestDecoder = field(default_factory=ManifestDecoder)
    position: int = 0
    records: int = 0
    last_idx: int = -1
    length: int = 0
    """Bytes of the lines."""

    def __post_init__(self) -> None:
        self.decoder.feed(self.subject.encode())

    def repeat(self, lines: list[bytes]) -> None:
        """Make the next lines again. Raises Damage if they are others. Blocks."""
        for line in lines:
            if self.awaits_opening:
                self.awaits_opening = False
                again = self.encoder.opening(self.subject)
                self.position = len(self.subject.opening)
            else:
                again = self._repeat_line(self.decoder.feed(line))
            if line != again:
                raise Damage(self.length, "expected the line that stood here at the checkpoint, got another one")
            self.length += len(line)

    def _repeat_line(self, line: Line) -> bytes:
        if isinstance(line, Missing):
            self.last_idx = line.idx
            return self.encoder.leave_out(line)
        if not isinstance(line, RecordDigests):
            raise Damage(self.length, "expected a record, got the last line of a manifest")
        self.records, self.last_idx = self.records + 1, line.header.idx
        self.position += RECORD_HEADER_SIZE + line.header.length
        return self.encoder.record(line)


@dataclass(frozen=True, slots=True)
class Piece:
    """What is known of the records of a range of a backup: ``length`` bytes, and the lines of the manifest."""

    length: int
    records: int
    last_idx: int
    """-1 if there is neither a record nor an object that was left out."""
    lines: Sequence[bytes]


class RecordWriter:
    """Appends records to ``data`` and lines to ``manifest``, which both were entered, and publishes them together.

    ``subject`` is what the manifest says that the backup is of. With ``is_range``, or if the subject is a piece, it
    writes only the records: no opening, no ending, nothing that is patched. Such ranges, one after the other between
    the opening and the ending of a whole backup, are that backup. The manifest of a piece is whole; that of another
    range has only the lines of its records.

    Call ``start`` or ``resume`` first, then ``append`` and ``checkpoint`` as needed, then ``finish``; one at a time.
    All of them raise what the targets raise. After an error or a cancellation nothing is published, and the writer is
    of no further use.
    """

    def __init__(
        self,
        data: Target,
        dialect: Dialect,
        *,
        manifest: Target | None = None,
        subject: Subject | None = None,
        is_range: bool = False,
    ) -> None:
        assert manifest is None or subject is not None, "a manifest says what it is of"
        self._data = data
        self.dialect = dialect
        self._manifest = manifest
        self._subject = subject
        self._is_range = is_range or (subject is not None and subject.piece is not None)
        self._is_framed = not is_range
        """Whether the manifest has a first and a last line."""
        self._needs_patch = dialect.needs_patch and not self._is_range
        self._encoder = ManifestEncoder(may_lack=subject is not None and subject.may_lack)
        self._digests = Digests()
        self._digested: RecordHeader | None = None
        self._header: RecordHeader | None = None
        self._missing = 0
        self._position = 0
        self._whole_position = 0
        self._records = 0
        self._last_idx = -1
        self._has_ended = False
        self._waiting = bytearray()
        self._made: list[bytes] = []
        """Lines of records that perhaps were not appended yet."""
        self._lines: list[bytes] = []
        """Lines of what was appended."""
        self._lines_size = 0
        self._manifest_length = 0
        self.digest_s = 0.0
        """Seconds in which digests were taken."""
        self.write_s = 0.0
        """Seconds in which the target of the data was waited for, those of digests not counted."""

    @property
    def position(self) -> int:
        """Bytes of the file so far, of which some may wait to be appended."""
        return self._position

    @property
    def records(self) -> int:
        """Whole records so far."""
        return self._records

    @property
    def last_idx(self) -> int:
        """The index of the last whole record, or of an object that was left out behind it; -1 if there is none."""
        return self._last_idx

    @property
    def wants_base(self) -> bool:
        """Whether digests of what the base holds are taken where fragments have it."""
        return self._manifest is not None and self._subject is not None and not self._subject.is_full

    async def start(self, records: int | None = None) -> None:
        """Begin a new file. If it is known how many ``records`` it will have, nothing is patched later."""
        if self._is_framed and self._manifest is not None and self._subject is not None:
            self._keep(self._encoder.opening(self._subject))
        if self._is_range:
            return
        opening = self.dialect.opening
        if records is not None and self._needs_patch:
            opening, self._needs_patch = self.dialect.patch(records), False
        self._position = self._whole_position = len(opening)
        await self._gather([opening])

    async def resume(self, checkpoint: Checkpoint, lines: AsyncIterable[bytes]) -> None:
        """Go on from ``checkpoint``, as if this writer had written everything before it.

        The targets hold exactly what it says, and append behind that. ``lines`` are those of the manifest up to there,
        each with its end of line. Raises Damage if they are not what stood there at the checkpoint.
        """
        if self._manifest is not None and self._subject is not None:
            repeated = await self._repeat(self._subject, lines)
            if repeated != checkpoint:
                raise Damage(repeated.manifest_length, f"expected the lines of {checkpoint}, got those of {repeated}")
        self._position = self._whole_position = checkpoint.position
        self._records, self._last_idx = checkpoint.records, checkpoint.last_idx
        self._manifest_length = checkpoint.manifest_length

    async def _repeat(self, subject: Subject, lines: AsyncIterable[bytes]) -> Checkpoint:
        """Make ``lines`` again, so that the encoder knows them; tell where they lead."""
        repetition = _Repetition(subject, self._encoder, awaits_opening=self._is_framed)
        batch: list[bytes] = []
        async for line in lines:
            batch.append(line)
            if len(batch) == _REPEATED:
                await to_thread.run_sync(repetition.repeat, batch)
                batch = []
        await to_thread.run_sync(repetition.repeat, batch)
        return Checkpoint(repetition.position, repetition.records, repetition.last_idx, repetition.length)

    async def append(self, fragments: Sequence[Fragment]) -> None:
        """Write ``fragments``, in order. Their digests are taken in the same hop to the thread of the file.

        What is too short to be worth a hop is copied, and waits for more. The buffers are free when this returns.
        """
        buffers: list[bytes | memoryview] = []
        for fragment in fragments:
            self._follow(fragment)
            if fragment.header is not None:
                buffers.append(fragment.header.encode())
            buffers += fragment.data
        if sum(map(len, buffers)) < _GATHERED_SIZE:
            self._digest(fragments)
            await self._gather(buffers)
        else:
            await self._flush(buffers, None if self._manifest is None else lambda: self._digest(fragments))

    async def append_piece(self, piece: Piece, append: Callable[[], Awaitable[None]]) -> None:
        """Have ``append`` bring the records that another writer wrote (``is_range``), and append their lines."""
        await self.append_written(piece.length, append)
        if self._subject is not None and piece.lines:
            decoder = ManifestDecoder()
            decoder.feed(self._subject.encode())
            await self.append_lines(map(decoder.feed, piece.lines))
        else:
            self._records, self._last_idx = self._records + piece.records, max(self._last_idx, piece.last_idx)

    async def append_written(self, length: int, append: Callable[[], Awaitable[None]]) -> None:
        """Have ``append`` bring ``length`` bytes of whole records to the data, behind what is there.

        ``append_lines`` must follow with what a manifest says of them.
        """
        assert self._header is None, "the record before it is complete"
        await self._flush()
        self._position += length
        await append()
        self._whole_position = self._position

    async def append_lines(self, lines: Iterable[Line]) -> None:
        """Count records that were written already, and say of them in the manifest what ``lines`` say."""
        for line in lines:
            if isinstance(line, Missing):
                self.leave_out(line.idx)
            else:
                assert isinstance(line, RecordDigests), "a range has records and no end"
                assert line.header.idx > self._last_idx, "objects ascend"
                self._records, self._last_idx = self._records + 1, line.header.idx
                if self._manifest is not None:
                    self._keep(self._encoder.record(line))
        await self._flush()

    def leave_out(self, idx: int) -> None:
        """Say in the manifest, if there is one, that an object is missing. It has no record."""
        assert self._header is None, "the record before it is complete"
        assert idx > self._last_idx, "objects ascend"
        self._last_idx = idx
        if self._manifest is not None:
            self._keep(self._encoder.leave_out(Missing(idx)))

    async def checkpoint(self) -> Checkpoint:
        """Make everything so far durable, the data first, and tell where it can go on.

        In the middle of a record that is where the record began.
        """
        await self._flush()
        await self._data.sync()
        if self._manifest is not None:
            await self._append_lines(self._manifest)
            await self._manifest.sync()
        return Checkpoint(self._whole_position, self._records, self._last_idx, self._manifest_length)

    async def settle(self) -> None:
        """Make durable what was appended, and the lines that speak of it, after an error or a cancellation as well.

        A record, or a line, that was interrupted is then the last one.
        """
        await self._data.sync()
        if self._manifest is not None:
            await self._append_lines(self._manifest)
            await self._manifest.sync()

    async def end(self) -> None:
        """Write what ends the file. Only ``settle`` and ``finish`` may follow."""
        assert self._header is None, "the last record is complete"
        self._has_ended = True
        if not self._is_range:
            self._position += len(self.dialect.ending)
            await self._gather([self.dialect.ending])
        await self._flush()
        if self._manifest is not None:
            if self._is_framed:
                self._keep(self._encoder.ending(self._position))
            self._pass_lines()
            await self._append_lines(self._manifest)

    async def finish(self) -> None:
        """Write what ends the file, unless ``end`` did, and publish data and manifest together."""
        if not self._has_ended:
            await self.end()
        await publish(self._data, self._manifest, self.dialect.patch(self._records) if self._needs_patch else b"")

    def _follow(self, fragment: Fragment) -> None:
        """Take note of where the file stands behind ``fragment``."""
        if fragment.header is not None:
            assert self._header is None, "a record begins when the one before it is complete"
            assert fragment.header.idx > self._last_idx, "records ascend"
            self._header, self._missing = fragment.header, fragment.header.length
            self._position += RECORD_HEADER_SIZE
        assert self._header is not None, "a record begins with its header"
        size = sum(map(len, fragment.data))
        self._missing -= size
        self._position += size
        if fragment.is_last:
            assert not self._missing, "a record has as many bytes as its header says"
            self._records, self._last_idx, self._header = self._records + 1, self._header.idx, None
            self._whole_position = self._position

    def _digest(self, fragments: Sequence[Fragment]) -> None:
        """Take digests of ``fragments``, and make the lines of the records that end in them. Blocks."""
        if self._manifest is None or self._subject is None:
            return
        began_s = time.monotonic()
        for header, data, base, is_last, known, assumed in fragments:
            if known is None:
                if header is not None:
                    self._digested, self._digests = header, Digests(with_base=not self._subject.is_full)
                for buffer in data:
                    self._digests.data.update(buffer)
                self._digests.with_base &= base is not None
                for buffer in base or ():
                    self._digests.take_base(buffer)
            if is_last:
                record = known
                if record is None:
                    assert self._digested is not None
                    record = self._digests.of(self._digested)._replace(assumed=assumed)
                # A full backup has no base, whatever it was made of.
                self._keep(self._encoder.record(record._replace(base=None) if self._subject.is_full else record))
        self.digest_s += time.monotonic() - began_s

    def _keep(self, line: bytes) -> None:
        self._made.append(line)
        self._manifest_length += len(line)

    def _pass_lines(self) -> None:
        """Take note that all is appended that lines were made of."""
        made, self._made = self._made, []
        self._lines += made
        self._lines_size += sum(map(len, made))

    async def _gather(self, buffers: Iterable[bytes | memoryview]) -> None:
        for buffer in buffers:
            self._waiting += buffer
        if len(self._waiting) >= _GATHERED_SIZE:
            await self._flush()

    async def _flush(
        self, buffers: Sequence[bytes | memoryview] = (), before: Callable[[], None] | None = None
    ) -> None:
        """Append what waits and then ``buffers``; then the lines that speak of them, if there are enough of them."""
        waiting, self._waiting = self._waiting, bytearray()
        filled = [buffer for buffer in (waiting, *buffers) if buffer]
        if filled:
            began_s, digested_s = time.monotonic(), self.digest_s
            await self._data.append(filled, before=before)
            self.write_s += time.monotonic() - began_s - (self.digest_s - digested_s)
        self._pass_lines()
        if self._manifest is not None and self._lines_size >= _GATHERED_SIZE:
            await self._append_lines(self._manifest)

    async def _append_lines(self, manifest: Target) -> None:
        lines, self._lines, self._lines_size = self._lines, [], 0
        if lines:
            await manifest.append([b"".join(lines)])


def refuse_unpatchable(data: Target, dialect: Dialect) -> None:
    """Raise PatchNeeded if a backup in ``dialect`` cannot be written to ``data``."""
    if dialect.needs_patch and not data.can_patch:
        raise PatchNeeded(dialect.value)
