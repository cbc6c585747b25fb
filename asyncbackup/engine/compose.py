"""Lays the records of a chain over a base, and compares both with what the manifests say of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest
from types import MappingProxyType
from typing import Final

import xxhash

from asyncbackup.engine.chain import ChainRecord, Group
from asyncbackup.engine.compact import ZEROS
from asyncbackup.engine.manifest import Digests
from asyncbackup.engine.reader import BackupReader, Record
from asyncbackup.engine.source import ObjectSource, ZeroObjects
from asyncbackup.errors import BaseMismatch, BaseNeeded, DigestMismatch

Held = Mapping[tuple[BackupReader, int], memoryview]
"""The data of some records, by their backups and positions there."""

NOTHING_HELD: Final[Held] = MappingProxyType({})


async def read_together(groups: Sequence[Group], through: memoryview) -> Held:
    """Read the records of neighbouring groups into ``through``, those of a backup in one go.

    Those that do not fit are left out. Raises what reading the backups raises.
    """
    held: dict[tuple[BackupReader, int], memoryview] = {}
    records: dict[BackupReader, list[Record]] = {}
    for group in groups:
        for each in group.records:
            records.setdefault(each.reader, []).append(each.record)
    for reader, found in records.items():
        start, last = found[0].position, found[-1]
        size = last.position + last.header.length - start
        if size <= len(through):
            await reader.read_data(found[0], 0, through[:size])
            for record in found:
                offset = record.position - start
                held[reader, record.position] = through[offset : offset + record.header.length]
            through = through[size:]
    return held


def _lay(data: memoryview, view: memoryview, digests: Digests | None) -> None:
    """Copy ``data`` over what ``view`` has. ``digests`` take both."""
    if digests is None:
        view[:] = data
        return
    digests.take_base(view)
    view[:] = data
    digests.data.update(data)


@dataclass(frozen=True, slots=True)
class Composer:
    """Makes the content of objects: what the files of a chain have, and elsewhere what ``base`` has.

    Without a base, a range that no file covers raises BaseNeeded. The manifest of a record says what lay under it. That
    is compared with what lies under it now if ``base_is_whole``. It is not while the base is being changed. Nor is it
    of the objects ``unknown``, which a file lacks.
    """

    base: ObjectSource | None
    base_is_whole: bool = True
    unknown: frozenset[int] = frozenset()

    async def compose(
        self,
        group: Group,
        start: int,
        into: memoryview,
        digests: Sequence[Digests | None] = (),
        held: Held = NOTHING_HELD,
    ) -> None:
        """Fill ``into`` with object ``group.idx`` from byte ``start``.

        ``digests``, one for each record, take what is read. What is ``held`` is not read again.

        Raises BaseNeeded, and what reading the base and the backups raises.
        """
        end = start + len(into)
        gap = group.first_gap(start, end)
        if self.base is not None and (gap or any(taken and taken.with_base for taken in digests)):
            await self.base.read(group.idx, start, into)
        elif gap:
            raise BaseNeeded(group.records[0].reader.name, group.idx, gap[0], gap[1] - gap[0])
        for each, taken in zip_longest(group.records, digests):
            first, last = max(start, each.start), min(end, each.end)
            if first < last:
                view = into[first - start : last - start]
                data = held.get((each.reader, each.record.position))
                if data is None:
                    await each.reader.read_data(each.record, first - each.start, view, taken)
                else:
                    _lay(data[first - each.start : last - each.start], view, taken)

    async def compose_checked(self, group: Group, into: memoryview, held: Held = NOTHING_HELD) -> None:
        """Fill ``into`` with ``group.start`` to ``group.end``, and check it. Raises DigestMismatch, BaseMismatch."""
        digests = self.digests(group)
        await self.compose(group, group.start, into, digests, held)
        self.judge(group, digests)

    async def check(self, group: Group, through: memoryview) -> None:
        """Check an object that is larger than the buffer ``through``, which it is read through."""
        digests = self.digests(group)
        if not any(digests):
            return
        for start in range(group.start, group.end, len(through)):
            await self.compose(group, start, through[: group.end - start], digests)
        self.judge(group, digests)

    def digests(self, group: Group) -> list[Digests | None]:
        """Make what takes the digests of each record of a group; None for a record without digests to compare with.

        It takes those of the base only if they can be compared, and the base has to be read for that.
        """
        alone_on_zeros = len(group.records) == 1 and isinstance(self.base, ZeroObjects)
        return [
            None if each.record.digests is None else Digests(with_base=self._checks_base(each) and not alone_on_zeros)
            for each in group.records
        ]

    def _checks_base(self, each: ChainRecord) -> bool:
        digests = each.record.digests
        if digests is None or digests.base is None or each.record.header.idx in self.unknown:
            return False
        return self.base_is_whole and self.base is not None

    def judge(self, group: Group, digests: Sequence[Digests | None]) -> None:
        """Compare ``digests``, which took all of an object, with the manifests. Raises DigestMismatch, BaseMismatch."""
        for each, taken in zip(group.records, digests, strict=True):
            expected = each.record.digests
            if taken is None or expected is None:
                continue
            if self._checks_base(each):
                base = taken.base.hexdigest() if taken.with_base else _digest_of_zeros(each.record.header.length)
                if base != expected.base:
                    raise BaseMismatch(each.reader.name, group.idx, self._under(group, each))
            if expected.data != taken.data.hexdigest():
                raise DigestMismatch(each.reader.name, group.idx, expected.data, taken.data.hexdigest())

    def _under(self, group: Group, each: ChainRecord) -> str:
        assert self.base is not None
        older = group.records[: group.records.index(each)]
        return " with ".join([self.base.name, *(below.reader.name for below in older)])


@lru_cache
def _digest_of_zeros(length: int) -> str:
    digest = xxhash.xxh3_128()
    for start in range(0, length, len(ZEROS)):
        digest.update(ZEROS[: length - start])
    return digest.hexdigest()
