"""What lies between a backup and the place where it is stored: compression, encryption, or both."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from asyncbackup.errors import SourceUnreadable
from asyncbackup.format.age import ARMOR, MAGIC
from asyncbackup.storage import zstd
from asyncbackup.storage.access import Access
from asyncbackup.storage.age_keys import parse_recipients
from asyncbackup.storage.age_source import open_age
from asyncbackup.storage.age_target import AgeTarget
from asyncbackup.storage.filtered import FilteredSource
from asyncbackup.storage.source import Source, SourceLayer
from asyncbackup.storage.target import JoinableTarget, Target
from asyncbackup.storage.zstd_source import ZstdSource, open_zstd
from asyncbackup.storage.zstd_target import ZstdFileTarget, ZstdTarget

_ZSTD: Final = (zstd.MAGIC, *(bytes([kind, 0x2A, 0x4D, 0x18]) for kind in range(0x50, 0x60)))
"""How frames begin: those with content, and those that are passed over, of which there are 16 kinds."""

_LOOKED_AT: Final = max(map(len, (MAGIC, ARMOR)))

_MOST: Final = 4
"""Layers that are read through. We write at most two."""

_MOST_THREADS: Final = ((6, 8), (12, 3), (zstd.LEVELS[-1], 2))
"""Up to a level, the threads that compress if nobody says how many. A thread needs 6, 14 and 20 MiB there, so they need
40 to 50 MiB together. Eight at level 3 outrun a disk."""


def usual_threads(level: int) -> int:
    """Give how many threads compress if nobody says: one for each core that this process may use, up to a limit."""
    most = next(threads for last, threads in _MOST_THREADS if level <= last)
    return min(most, len(os.sched_getaffinity(0)))


@dataclass(frozen=True, slots=True)
class Layers:
    """What to make of a backup before it is stored. It is compressed first: what is encrypted can't be compressed."""

    zstd_level: int | None = None
    """Compress with zstd at this level, 1 to 22; None: do not compress."""
    recipients: tuple[str, ...] = ()
    """Encrypt for these public keys, of age or ssh, as text; for nobody: do not encrypt."""
    threads: int = 0
    """Threads that compress; 0: as many as ``usual_threads`` says."""

    def __bool__(self) -> bool:
        return self.zstd_level is not None or bool(self.recipients)

    def check(self) -> None:
        """Raise KeyUnusable or ExtraMissing if no target could be wrapped."""
        if self.recipients:
            parse_recipients(self.recipients)

    async def wrap_target(self, stack: AsyncExitStack, target: Target) -> Target:
        """Put the layers before ``target``, which was entered, and enter them. Raises KeyUnusable, ExtraMissing."""
        target = await self.wrap_manifest(stack, target)
        if self.zstd_level is not None:
            threads = self.threads or usual_threads(self.zstd_level)
            free = not self.threads
            if isinstance(target, JoinableTarget):
                compressing: ZstdTarget = ZstdFileTarget(target, self.zstd_level, threads, may_be_fewer=free)
            else:
                compressing = ZstdTarget(target, self.zstd_level, threads, may_be_fewer=free)
            return await stack.enter_async_context(compressing)
        return target

    async def wrap_manifest(self, stack: AsyncExitStack, target: Target) -> Target:
        """Do so for the manifest. It is encrypted as well, since names and digests tell something, but it is short."""
        if self.recipients:
            target = await stack.enter_async_context(AgeTarget(target, self.recipients))
        return target


async def unwrap_source(stack: AsyncExitStack, source: Source, access: Access | None) -> Source:
    """Give what the layers of ``source``, which was entered, hold, in whatever order they are. Enter those sources.

    Raises NotDecrypted, KeyUnusable, ExtraMissing, BackupDamaged, SourceMissing and SourceUnreadable.
    """
    for _ in range(_MOST + 1):
        beginning = await source.peek(_LOOKED_AT)
        if beginning.startswith((MAGIC, ARMOR)):
            layer: FilteredSource | ZstdSource = await open_age(source, access.identities if access else ())
        elif beginning.startswith(_ZSTD):
            layer = await open_zstd(source)
        else:
            return source
        source = await stack.enter_async_context(layer)
    raise SourceUnreadable(source.name, f"this is compressed or encrypted more than {_MOST} times")


def layers_of(source: Source) -> Iterator[str]:
    """Name the layers of ``source``, from the outermost to the innermost."""
    if isinstance(source, SourceLayer):
        yield from layers_of(source.inner)
        yield source.layer


def find_onward(source: Source) -> str | None:
    """Name the layer because of which ``source``, whose size is not known, is read only in order; None: a pipe."""
    while isinstance(source, SourceLayer):
        if source.inner.size is not None:
            return source.layer
        source = source.inner
    return None
