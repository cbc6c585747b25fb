"""Goes through a chain object by object, in a bounded window. Each object is composed, checked and then written."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, NamedTuple

import anyio

from asyncbackup.engine.chain import Chain, Group
from asyncbackup.engine.compact import MAX_LENGTH
from asyncbackup.engine.compose import Composer, read_together
from asyncbackup.engine.index import Index
from asyncbackup.engine.manifest import Digests
from asyncbackup.engine.portion import Portion, cut
from asyncbackup.engine.progress import OnProgress, ReplayCounts
from asyncbackup.engine.source import NO_INDICES, Indices, SnapshotObjects, staying
from asyncbackup.engine.window import Slot, Window, WindowOptions

_SHORT: Final = 8 << 10
"""Bytes of an object at most that shares a slot with others: to take it alone would cost more than all its bytes."""

_SHARED: Final = 48 << 10
"""Bytes of a slot that short objects share: so many, with their headers, are read without a thread."""

_MOST_SHORT: Final = 96
"""Objects that share a slot at most: a few milliseconds of work, for which the event loop waits."""

_SHORT_FAR: Final = 256 << 10
_SHARED_FAR: Final = 1 << 20
"""The same where a file is far away: so many bytes take as long to come as a journey there and back."""

_MOST_FAR: Final = 32
"""Workers at most that read what is far away, as far as memory goes: each waits most of the time."""

_ARRIVING: Final = 1 << 20
"""Bytes of memory for each of them, beside its slot, for what has arrived and is not copied yet."""


class _Turn:
    """Lets the portions of one object go on one after another, in their order."""

    def __init__(self, start: int, digests: list[Digests | None]) -> None:
        self.digests = digests
        """They take the data of the object as it comes."""
        self._reached = start
        self._moved = anyio.Condition()

    async def wait(self, offset: int) -> None:
        """Wait until all before ``offset`` is done."""
        async with self._moved:
            while self._reached < offset:
                await self._moved.wait()

    async def pass_to(self, offset: int) -> None:
        """Let the portion at ``offset`` go on."""
        async with self._moved:
            self._reached = offset
            self._moved.notify_all()


class _Item(NamedTuple):
    """A portion of an object to be made."""

    group: Group
    portion: Portion
    opened: anyio.Event
    """Set when the first portion is written."""
    turn: _Turn | None
    """Only where data comes from a pipe. It comes once and in order, so it is checked as it comes."""


class _Short(NamedTuple):
    """Short objects, which are made together."""

    groups: list[Group]


class Content(NamedTuple):
    """A portion of an object, and its bytes, which lie in a slot."""

    group: Group
    portion: Portion
    data: memoryview


@dataclass(frozen=True, slots=True)
class Meter:
    """Counts what was delivered, and calls ``on_progress``."""

    counts: ReplayCounts
    on_progress: OnProgress | None

    async def count(self, contents: list[Content]) -> None:
        """Count ``contents``, which are done."""
        self.counts.objects_done += sum(content.portion.is_last for content in contents)
        if self.counts.is_checking:
            self.counts.bytes_checked += sum(len(content.data) for content in contents)
        if self.on_progress is not None:
            self.on_progress(self.counts.progress())

    def add(self, counts: ReplayCounts) -> None:
        """Take over what another process delivered of what is planned here."""
        self.counts.objects_done += counts.objects_done
        self.counts.bytes_written += counts.bytes_written
        if self.on_progress is not None:
            self.on_progress(self.counts.progress())


@dataclass(frozen=True, slots=True)
class Replay:
    """Makes the objects of a chain with ``composer``, and gives them to ``write`` and then to ``deliver``.

    Both get several short objects at a time. Several calls of ``write`` run at a time. The first portion of an object
    is written before all others of it, and after the whole object was checked. From a pipe, an object is checked before
    its last portion is written.
    ``deliver`` gets the portions in ascending order, after they were written.
    """

    chain: Chain | Index
    """The chain, or its index if it has one: then the headers are not read again."""
    composer: Composer
    options: WindowOptions
    write: Callable[[list[Content]], Awaitable[None]]
    deliver: Callable[[list[Content]], Awaitable[None]]
    whole: Indices = field(default_factory=lambda: NO_INDICES)
    """Objects that are given as a whole, also where the chain has no record of them."""
    behind: int = -1
    """Index of the last object that is left out, as all before it are."""
    limit: Callable[[], int] | None = None
    """Gives the bytes that may be under way to a cluster, if contents are written into one."""

    async def run(self) -> None:
        """Do it all. At the end it checks that the base is unchanged, and raises what that check raises."""
        size = self.options.portion_size(self.chain.known_object_size or MAX_LENGTH)
        workers = self.options.slots(size)
        active = self.options.active(self.limit, size)
        if self.chain.is_far and self.options.workers is None:
            fitting = self.options.memory // (2 * size + _ARRIVING)
            workers, active = max(1, min(workers, fitting, _MOST_FAR)), lambda: _MOST_FAR
        window = Window(workers, [size] * 2, self._do, self._deliver, active)
        # A base that is not whole is being changed by the caller, so it is not checked.
        read = self.composer.base if self.composer.base_is_whole else None
        async with staying(read), aclosing(self._items(size)) as items:
            await window.run(items)

    async def _deliver(self, done: list[list[Content]]) -> None:
        await self.deliver(list(chain.from_iterable(done)))

    async def _items(self, size: int) -> AsyncGenerator[_Item | _Short, None]:
        async with aclosing(self._groups(size)) as together:
            async for groups in together:
                if len(groups) > 1:
                    yield _Short(groups)
                    continue
                (group,) = groups
                opened = anyio.Event()
                turn = _Turn(group.start, self.composer.digests(group)) if _is_streamed(group) else None
                for portion in cut(group.start, group.end, size):
                    yield _Item(group, portion, opened, turn)

    async def _groups(self, size: int) -> AsyncGenerator[list[Group], None]:
        """Give short objects that follow one another together, and others one at a time."""
        short: list[Group] = []
        most = left = min(_SHARED_FAR if self.chain.is_far else _SHARED, size)
        async with aclosing(self.chain.groups(self.whole)) as groups:
            async for group in groups:
                if group.idx <= self.behind:
                    continue
                length, is_short = group.end - group.start, self._is_short(group)
                if short and (not is_short or length > left or len(short) == _MOST_SHORT):
                    yield short
                    short, left = [], most
                if is_short:
                    short.append(group)
                    left -= length
                else:
                    yield [group]
        if short:
            yield short

    def _is_short(self, group: Group) -> bool:
        # Answers of a cluster are waited for side by side. In a pipe the next header comes after this data.
        waits = isinstance(self.composer.base, SnapshotObjects) or _is_streamed(group)
        return group.end - group.start <= (_SHORT_FAR if self.chain.is_far else _SHORT) and not waits

    async def _do(self, item: _Item | _Short, slot: Slot) -> list[Content]:
        if isinstance(item, _Short):
            return await self._do_short(item.groups, slot)
        return [await self._do_portion(item, slot)]

    async def _do_short(self, groups: list[Group], slot: Slot) -> list[Content]:
        into, through = slot.buffers
        held = await read_together(groups, through)
        contents, place = [], 0
        for group in groups:
            start, length = group.start, group.end - group.start
            content = Content(group, Portion(start, length, True, True), into[place : place + length])
            await self.composer.compose_checked(group, content.data, held)
            contents.append(content)
            place += length
        await self.write(contents)
        return contents

    async def _do_portion(self, item: _Item, slot: Slot) -> Content:
        group, portion, opened, turn = item
        into, through = slot.buffers
        content = Content(group, portion, into[: portion.length])
        if portion.is_first and portion.is_last:
            await self.composer.compose_checked(group, content.data)
            await self.write([content])
        elif portion.is_first:
            if turn is None:
                await self.composer.check(group, through)
            await self._compose(content, turn)
            await self.write([content])
            opened.set()
        else:
            # This waits for the first portion. That one has a slot already, so it goes on.
            await opened.wait()
            await self._compose(content, turn)
            await self.write([content])
        return content

    async def _compose(self, content: Content, turn: _Turn | None) -> None:
        group, portion, data = content
        if turn is None:
            await self.composer.compose(group, portion.offset, data)
            return
        await turn.wait(portion.offset)
        await self.composer.compose(group, portion.offset, data, turn.digests)
        if portion.is_last:
            self.composer.judge(group, turn.digests)
        await turn.pass_to(portion.end)


def _is_streamed(group: Group) -> bool:
    """Tell whether data of ``group`` comes from a pipe: once, and before the next header."""
    return any(each.reader.size is None for each in group.records)


async def nothing(_contents: list[Content]) -> None:
    """Write nothing: for callers that only check, or that write in order."""
