"""Rolls an image forward in place: everything is checked before anything is written."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Final, Protocol

from asyncbackup.engine.chain import Chain, Group
from asyncbackup.engine.compose import Composer, ImageBase
from asyncbackup.engine.options import BackupOptions
from asyncbackup.engine.replay import Content, Meter, Replay, nothing
from asyncbackup.errors import BaseMismatch, BaseUnproved, Incompatible
from asyncbackup.sinks import FileSource, StandingImage

_COMPARE_SIZE: Final = 1 << 20
"""Bytes of an object to compare at a time, where the base is not what a backup was made against."""


class _Image(Protocol):
    async def write_at(self, offset: int, data: memoryview) -> None: ...


async def write_covered(image: _Image, content: Content, object_size: int, size: int) -> int:
    """Write what backups have of ``content``, and nothing of what only the base has, up to byte ``size``.

    Gives the count of bytes.
    """
    group, offset = content.portion.group, content.portion.offset
    origin, written = group.idx * object_size, 0
    for start, end in group.covered(offset, offset + content.portion.length):
        data = content.data[start - offset : min(end, size - origin) - offset] if origin + start < size else b""
        if data:
            await image.write_at(origin + start, memoryview(data))
            written += len(data)
    return written


async def roll(
    chain: Chain, path: str | os.PathLike[str], options: BackupOptions, meter: Meter, *, check_base: bool
) -> None:
    """Apply ``chain`` to the image at ``path``.

    Raises BaseMismatch, or whatever is wrong with the backups, with nothing changed; HalfRolled if others were being
    applied before. From the first write on, whatever interrupts it leaves the marker.
    """
    _judge(chain, check_base=check_base)
    names = json.dumps({"rolling": 1, "backups": [await reader.identify() for reader in chain.readers]}) + "\n"
    size, object_size, spans = chain.size, chain.object_size, chain.spans()
    async with StandingImage(path) as image, FileSource(path) as source:
        base = ImageBase(source, object_size, spans)

        async def write(content: Content) -> None:
            written = await write_covered(image, content, object_size, size)
            meter.counts.bytes_written += written

        if not await image.begin(names):
            meter.counts.is_checking = True
            applicable = _Applicable(base, check_base, size=size, object_size=object_size)
            await Replay(chain, applicable, options, nothing, meter.count).run()
            await image.mark(names)
            meter.counts.begin_again()
        if spans is not None and spans * object_size < source.size:
            await image.resize(spans * object_size)
        await image.resize(size)
        await Replay(chain, Composer(base, check_base=False), options, write, meter.count).run()
        await image.finish()


def _judge(chain: Chain, *, check_base: bool) -> None:
    for reader in chain.readers:
        if reader.size is None:
            raise Incompatible("an image is rolled in two passes, so a pipe cannot be applied to it: use a file")
        if check_base and reader.subject is None:
            raise BaseUnproved(reader.name)


@dataclass(frozen=True, slots=True)
class _Applicable(Composer):
    """Takes for a good base, besides what the backups were made against, what they have been applied to already."""

    size: int = 0
    object_size: int = 0

    async def compose_checked(self, group: Group, into: memoryview) -> None:
        try:
            await Composer.compose_checked(self, group, into)
        except BaseMismatch:
            if not await self._is_applied(group):
                raise

    async def check(self, group: Group, through: memoryview) -> None:
        try:
            await Composer.check(self, group, through)
        except BaseMismatch:
            if not await self._is_applied(group):
                raise

    async def _is_applied(self, group: Group) -> bool:
        """Tell whether the base holds what applying the backups gives."""
        assert self.base is not None
        before, after = bytearray(_COMPARE_SIZE), bytearray(_COMPARE_SIZE)
        plain = Composer(self.base, check_base=False)
        await plain.check(group, memoryview(after))
        end = min(group.end, self.size - group.idx * self.object_size)
        for start in range(group.start, end, _COMPARE_SIZE):
            length = min(_COMPARE_SIZE, end - start)
            await self.base.read(group.idx, start, memoryview(before)[:length])
            await plain.compose(group, start, memoryview(after)[:length])
            if before[:length] != after[:length]:
                return False
        return True
