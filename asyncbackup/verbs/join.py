"""Joins pieces of a backup, which runs on several machines made, into the backup."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from typing import Final

from anyio import to_thread

from asyncbackup.engine.joining import NamedPiece, arrange_pieces, join_subjects
from asyncbackup.engine.manifest import ManifestReader
from asyncbackup.engine.progress import OnProgress, Progress
from asyncbackup.engine.record_writer import RecordWriter
from asyncbackup.engine.window import Slot, Window, WindowOptions
from asyncbackup.errors import (
    BackupDamaged,
    ChangedMeanwhile,
    FileNeeded,
    MemoryTooSmall,
    PieceNeeded,
    TargetFull,
    single_error,
)
from asyncbackup.format import Dialect
from asyncbackup.format.manifest import Line, Missing, Subject, Trailer
from asyncbackup.storage import (
    Access,
    BackupTarget,
    JoinableTarget,
    Layers,
    PlainSource,
    Source,
    Target,
    is_fifo,
    open_source,
    open_target,
)

_COPIED_SIZE: Final = 64 << 20
"""Bytes to have copied in one go from file to file: a cancellation waits for them."""

_READ_SIZE: Final = 4 << 20
_READS: Final = 4
"""Bytes to read at a time of what is no file, and how many of these reads are under way."""

_LINES: Final = 1024
"""Lines to read in one hop to a thread, which takes some 10 ms."""


@dataclass(frozen=True, slots=True)
class JoinSummary:
    """What was joined. Sizes in bytes, times in seconds."""

    pieces: int
    dialect: Dialect
    has_manifest: bool
    records: int
    missing: Sequence[int]
    """The idx of each object that the pieces lack, because it could not be read."""
    bytes_written: int
    elapsed_s: float

    def as_dict(self) -> dict[str, object]:
        """Give the fields as plain values, for JSON."""
        return asdict(self) | {"dialect": self.dialect.value, "missing": list(self.missing)}


async def join(
    pieces: Sequence[str | os.PathLike[str]],
    target: str | os.PathLike[str] | Target,
    *,
    replace: bool = False,
    manifest: Target | None = None,
    layers: Layers | None = None,
    access: Access | None = None,
    on_progress: OnProgress | None = None,
) -> JoinSummary:
    """Make the backup that ``pieces``, in any order, are the pieces of. Each has its manifest beside it.

    Data and manifest are the same, byte for byte, as one run makes them. ``target`` is the path of a file. It gets a
    manifest beside it, and must not exist unless ``replace`` is true. Or it is an entered target, without ``replace``;
    its manifest goes to the entered target ``manifest``, if that is given. With ``layers`` the new file is compressed
    or encrypted, in either dialect. The data of the pieces is not proved: verify them before, or the backup afterwards.

    Before anything is written it raises PieceNeeded for what is no piece, PieceMissing, PieceDoubled, PieceForeign for
    a piece of another backup or of one that was cut otherwise, and BackupDamaged for a manifest that was changed, or
    data that is longer or shorter than it says. It raises the errors of reading and writing. After an error or a
    cancellation there is no new file.
    """
    if not pieces:
        raise ValueError("expected at least one piece")
    started = time.monotonic()
    async with open_target(
        target, replace=replace, manifest=manifest, inputs=pieces, access=access, layers=layers
    ) as opened:
        with single_error():
            ordered = arrange_pieces([await _look(path, access) for path in pieces])
            subject = join_subjects(ordered)
            writer = RecordWriter(opened.data, subject.dialect, manifest=opened.manifest, subject=subject)
            size = sum(each.trailer.data_length for each in ordered)
            records = sum(each.trailer.records for each in ordered)
            _reserve(opened, size, records)
            joining = _Joining(opened.data, writer, size, on_progress)
            await writer.start(records)
            for each in ordered:
                await joining.append(each, access)
            await writer.finish()
            return JoinSummary(
                pieces=len(ordered),
                dialect=subject.dialect,
                has_manifest=opened.manifest is not None,
                records=writer.records,
                missing=joining.missing,
                bytes_written=writer.position,
                elapsed_s=time.monotonic() - started,
            )


def _reserve(opened: BackupTarget, size: int, records: int) -> None:
    """Have the target prepare. Nobody says how much memory there is, so it takes what it needs if that is more."""
    try:
        opened.reserve(size, records, WindowOptions().memory)
    except MemoryTooSmall as error:
        opened.reserve(size, records, error.needed)


async def _look(path: str | os.PathLike[str], access: Access | None) -> NamedPiece:
    """Read the whole manifest of a piece. Raises PieceNeeded, FileNeeded, BackupDamaged."""
    if await is_fifo(path):
        raise FileNeeded(str(path), "to be joined")
    async with open_source(path, access=access) as (data, manifest):
        if manifest is None:
            raise PieceNeeded(data.name, "it has no manifest")
        reader = ManifestReader(manifest)
        await to_thread.run_sync(reader.check)
        assert reader.subject is not None
        assert reader.trailer is not None, "a good manifest has both lines"
        if reader.subject.piece is None:
            raise PieceNeeded(data.name, "it is a whole one, as its manifest says")
        if data.size is not None:
            _check_size(data.name, data.size, reader.trailer)
        return NamedPiece(path, reader.subject, reader.trailer)


def _check_size(name: str, size: int, trailer: Trailer) -> None:
    expected = trailer.data_length
    if size != expected:
        problem = f"expected {expected} bytes, as its manifest says, got {size}"
        raise BackupDamaged(name, min(size, expected), problem)


@dataclass(slots=True)
class _Joining:
    """Copies the data of pieces to ``data``, and what their manifests say of it, one piece after the other."""

    data: Target
    writer: RecordWriter
    planned: int
    """Bytes of records in all pieces."""
    on_progress: OnProgress | None
    copied: int = 0
    missing: list[int] = field(default_factory=list)

    async def append(self, piece: NamedPiece, access: Access | None) -> None:
        length = piece.trailer.data_length
        try:
            async with open_source(piece.path, access=access) as (data, manifest):
                await self.writer.append_written(length, partial(self._copy, data, piece))
                if manifest is None:
                    raise ChangedMeanwhile(piece.name, "its manifest is gone")
                await self._append_lines(piece, ManifestReader(manifest))
        except TargetFull as full:
            full.needed = max(1, self.planned - self.copied)
            raise

    async def _copy(self, source: Source, piece: NamedPiece) -> None:
        length = piece.trailer.data_length
        if source.size is not None:
            _check_size(source.name, source.size, piece.trailer)
        if not isinstance(source, PlainSource) or not isinstance(self.data, JoinableTarget):
            await self._stream(source, piece.trailer)
            return
        for start in range(0, length, _COPIED_SIZE):
            size = min(_COPIED_SIZE, length - start)
            await self.data.append_file(source.path, size, start)
            self._count(size)

    async def _stream(self, source: Source, trailer: Trailer) -> None:
        """Read some ranges ahead, and append them in order."""
        length = trailer.data_length

        async def starts() -> AsyncGenerator[int, None]:
            for start in range(0, length, _READ_SIZE):
                yield start

        async def read(start: int, slot: Slot) -> memoryview:
            view = slot.buffers[0][: length - start]
            count = await source.read_into(start, view)
            if count < len(view):
                _check_size(source.name, start + count, trailer)
            return view

        async def append(views: list[memoryview]) -> None:
            await self.data.append(views)
            self._count(sum(map(len, views)))

        async with aclosing(starts()) as items:
            await Window(_READS, [_READ_SIZE], read, append).run(items)
        # What tells no size may go on behind what the manifest speaks of.
        _check_size(source.name, length + await source.read_into(length, memoryview(bytearray(1))), trailer)

    def _count(self, copied: int) -> None:
        self.copied += copied
        if self.on_progress is not None:
            self.on_progress(Progress(self.writer.records, None, self.copied, self.planned))

    async def _append_lines(self, piece: NamedPiece, manifest: ManifestReader) -> None:
        """Append what the manifest says, which must still be what it was."""
        lines = manifest.lines()
        seen: list[Line] = []
        while block := await to_thread.run_sync(list, islice(lines, _LINES)):
            seen += [line for line in block if isinstance(line, Subject | Trailer)]
            records = [line for line in block if not isinstance(line, Subject | Trailer)]
            self.missing += [line.idx for line in records if isinstance(line, Missing)]
            await self.writer.append_lines(records)
        if seen != [piece.subject, piece.trailer]:
            raise ChangedMeanwhile(piece.name, "its manifest says something else than before")
