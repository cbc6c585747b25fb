"""Tells what a backup is, from its headers alone."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import Any, Final

from asyncbackup.engine.reader import BackupReader, Record
from asyncbackup.format import Dialect
from asyncbackup.format.manifest import Subject

_SCRATCH_SIZE: Final = 1 << 20
"""Bytes read at a time from what can only be read through."""


@dataclass(frozen=True, slots=True)
class Info:
    """What a backup file is. Sizes in bytes."""

    file: str
    dialect: Dialect
    records: int
    data_bytes: int
    """Data in the records."""
    size: int
    """From the first byte to the end of the backup."""
    trailing_bytes: int
    """What follows that end."""
    manifest: Subject | None
    """What the manifest says, if there is one."""

    def as_dict(self) -> dict[str, Any]:
        """Give the fields as plain values, for JSON."""
        fields = asdict(self) | {"dialect": self.dialect.value}
        if fields["manifest"] is not None:
            fields["manifest"]["dialect"] = self.dialect.value
        return fields


async def info(
    file: str | os.PathLike[str],
    *,
    dialect: Dialect | None = None,
    object_size: int | None = None,
    on_record: Callable[[Record], Awaitable[None]] | None = None,
) -> Info:
    """Go through the headers of ``file`` (``-``: standard input), and give each to ``on_record``.

    Raises SourceMissing, SourceUnreadable, and BackupDamaged where the file is no backup.
    """
    async with BackupReader(file, dialect=dialect, object_size=object_size) as reader:
        records = data_bytes = 0
        async with aclosing(pass_through(reader)) as found:
            async for record in found:
                records += 1
                data_bytes += record.header.length
                if on_record is not None:
                    await on_record(record)
        assert reader.end is not None
        return Info(
            reader.name,
            reader.dialect,
            records,
            data_bytes,
            reader.end,
            await reader.count_trailing(),
            reader.subject,
        )


async def pass_through(reader: BackupReader) -> AsyncGenerator[Record, None]:
    """Give the records of ``reader`` to somebody who does not want their data."""
    scratch = memoryview(bytearray(_SCRATCH_SIZE if reader.size is None else 0))
    async with aclosing(reader.records()) as records:
        async for record in records:
            yield record
            if reader.size is None:
                length = record.header.length
                for start in range(0, length, len(scratch)):
                    await reader.read_data(record, start, scratch[: length - start])
