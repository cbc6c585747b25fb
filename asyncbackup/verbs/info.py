"""Reads the facts of a backup from its headers and its manifest."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from typing import Any

from asyncbackup.engine.reader import Record, open_backup
from asyncbackup.format import Dialect
from asyncbackup.format.manifest import Subject
from asyncbackup.storage import Access


@dataclass(frozen=True, slots=True)
class Info:
    """The facts of a backup file. Sizes in bytes."""

    file: str
    dialect: Dialect
    records: int
    data_bytes: int
    """Data in the records."""
    size: int
    """From the first byte to the end of the backup, as it is without layers."""
    trailing_bytes: int
    """Bytes that follow the end of the backup."""
    manifest: Subject | None
    """The first line of the manifest; None if there is no manifest."""
    layers: Sequence[str] = ()
    """What the file is compressed and encrypted with, the outermost first."""
    missing: Sequence[int] = ()
    """The idx of each object that was left out because it could not be read."""

    def as_dict(self) -> dict[str, Any]:
        """Give the fields as plain values, for JSON."""
        return asdict(replace(self, manifest=None)) | {
            "dialect": self.dialect.value,
            "manifest": self.manifest and self.manifest.as_dict(),
            "layers": list(self.layers),
            "missing": list(self.missing),
        }


async def info(
    file: str | os.PathLike[str],
    *,
    dialect: Dialect | None = None,
    object_size: int | None = None,
    manifest: str | os.PathLike[str] | None = None,
    access: Access | None = None,
    on_record: Callable[[Record], Awaitable[None]] | None = None,
) -> Info:
    """Go through the headers of ``file`` (``-``: standard input), and give each to ``on_record``.

    Its manifest is ``manifest`` or, if there is one, the file beside it.

    Raises SourceMissing, SourceUnreadable, and BackupDamaged where the file is no backup.
    """
    async with open_backup(
        file, dialect=dialect, object_size=object_size, manifest=manifest, takes_pieces=True, access=access
    ) as reader:
        records = data_bytes = 0
        async with aclosing(reader.records()) as found:
            async for record in found:
                records += 1
                data_bytes += record.header.length
                if on_record is not None:
                    await on_record(record)
                await reader.skip_data(record)
        assert reader.end is not None
        return Info(
            os.fspath(file),
            reader.dialect,
            records,
            data_bytes,
            reader.end,
            await reader.count_trailing(),
            reader.subject,
            reader.layers,
            reader.missing,
        )
