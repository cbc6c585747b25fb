"""Lays the records of a chain over a base, and checks both against the manifests meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest

import xxhash

from asyncbackup.engine.chain import Group, Part
from asyncbackup.engine.compact import ZEROS
from asyncbackup.engine.manifest import Digests
from asyncbackup.engine.source import ObjectSource, ZeroObjects
from asyncbackup.errors import BaseMismatch, BaseNeeded, DigestMismatch


@dataclass(frozen=True, slots=True)
class Composer:
    """Makes contents of what a chain's files have and, where they have nothing, of ``base``.

    Without a base, a range that no file covers is a BaseNeeded. What records are laid over is compared with
    what their manifests say it was, unless the base is being changed meanwhile: then it is not ``base_is_whole``.
    """

    base: ObjectSource | None
    base_is_whole: bool = True

    async def compose(self, group: Group, start: int, into: memoryview, digests: Sequence[Digests | None] = ()) -> None:
        """Fill ``into`` with object ``group.idx`` from byte ``start``; take what is read into ``digests``, one a part.

        Raises BaseNeeded, and what reading the base and the backups raises.
        """
        end = start + len(into)
        gap = group.first_gap(start, end)
        if self.base is not None and (gap or any(taken and taken.with_base for taken in digests)):
            await self.base.read(group.idx, start, into)
        elif gap:
            raise BaseNeeded(group.parts[0].reader.name, group.idx, gap[0], gap[1] - gap[0])
        for part, taken in zip_longest(group.parts, digests):
            first, last = max(start, part.start), min(end, part.end)
            if first < last:
                view = into[first - start : last - start]
                await part.reader.read_data(part.record, first - part.start, view, taken)

    async def compose_checked(self, group: Group, into: memoryview) -> None:
        """Fill ``into`` with all that the chain has of an object, and check it. Raises DigestMismatch, BaseMismatch."""
        digests = self.digests(group)
        await self.compose(group, group.start, into, digests)
        self.judge(group, digests)

    async def check(self, group: Group, through: memoryview) -> None:
        """Check an object that is larger than the buffer ``through``; what remains there is of no use."""
        digests = self.digests(group)
        if not any(digests):
            return
        for start in range(group.start, group.end, len(through)):
            await self.compose(group, start, through[: group.end - start], digests)
        self.judge(group, digests)

    def digests(self, group: Group) -> list[Digests | None]:
        """Make what takes the digests that the manifests let us check; the base's only if it has to be read for it."""
        alone_on_zeros = len(group.parts) == 1 and isinstance(self.base, ZeroObjects)
        return [
            None if part.record.digests is None else Digests(with_base=self._checks_base(part) and not alone_on_zeros)
            for part in group.parts
        ]

    def _checks_base(self, part: Part) -> bool:
        digests = part.record.digests
        return self.base_is_whole and self.base is not None and digests is not None and digests.base is not None

    def judge(self, group: Group, digests: Sequence[Digests | None]) -> None:
        """Raise DigestMismatch or BaseMismatch unless ``digests``, which took all of an object, are as they should."""
        for part, taken in zip(group.parts, digests, strict=True):
            expected = part.record.digests
            if taken is None or expected is None:
                continue
            if self._checks_base(part):
                base = taken.base.hexdigest() if taken.with_base else _digest_of_zeros(part.record.header.length)
                if base != expected.base:
                    raise BaseMismatch(part.reader.name, group.idx, self._under(group, part))
            if expected.data != taken.data.hexdigest():
                raise DigestMismatch(part.reader.name, group.idx, expected.data, taken.data.hexdigest())

    def _under(self, group: Group, part: Part) -> str:
        assert self.base is not None
        older = group.parts[: group.parts.index(part)]
        return " with ".join([self.base.name, *(below.reader.name for below in older)])


@lru_cache
def _digest_of_zeros(length: int) -> str:
    digest = xxhash.xxh3_128()
    for start in range(0, length, len(ZEROS)):
        digest.update(ZEROS[: length - start])
    return digest.hexdigest()
