"""Tells what a backup is, from its headers alone; of a chain, what its objects come to."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, NamedTuple

from asyncbackup.engine.chain import Chain
from asyncbackup.engine.progress import OnProgress, Progress
from asyncbackup.engine.reader import BackupReader, Record
from asyncbackup.format import Dialect
from asyncbackup.format.manifest import Subject


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
        return asdict(replace(self, manifest=None)) | {
            "dialect": self.dialect.value,
            "manifest": self.manifest and self.manifest.as_dict(),
        }


async def info(
    file: str | os.PathLike[str],
    *,
    dialect: Dialect | None = None,
    object_size: int | None = None,
    manifest: str | os.PathLike[str] | None = None,
    on_record: Callable[[Record], Awaitable[None]] | None = None,
) -> Info:
    """Go through the headers of ``file`` (``-``: standard input), and give each to ``on_record``.

    Its manifest is ``manifest`` or, if there is one, the file beside it.

    Raises SourceMissing, SourceUnreadable, and BackupDamaged where the file is no backup.
    """
    async with BackupReader(file, dialect=dialect, object_size=object_size, manifest=manifest) as reader:
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
            reader.name,
            reader.dialect,
            records,
            data_bytes,
            reader.end,
            await reader.count_trailing(),
            reader.subject,
        )


class Survey(NamedTuple):
    """What a chain has: how many objects, and the index of the last one, -1 if there is none."""

    objects: int
    last_idx: int


_TOLD: Final = 1024
"""Objects after which a survey tells of itself again: it takes some thousand a second."""


async def survey(
    chain: Chain,
    on_progress: OnProgress | None = None,
    on_object: Callable[[int], object] | None = None,
    whole: Iterable[int] = (),
) -> Survey:
    """Go through all headers of a chain of files, and count the objects ``whole``, ascending, as well.

    ``on_object`` gets each object's index. Raises BackupDamaged.
    """
    objects, last_idx = 0, -1
    async with aclosing(chain.groups(whole)) as groups:
        async for group in groups:
            if on_progress is not None and objects % _TOLD == 0:
                on_progress(Progress(objects, None, 0, is_checking=True))
            objects, last_idx = objects + 1, group.idx
            if on_object is not None:
                on_object(group.idx)
    return Survey(objects, last_idx)
