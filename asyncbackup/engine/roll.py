"""Rolls an image forward in place. Everything is judged and checked before anything is written."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from asyncbackup.engine.base import all_assumed
from asyncbackup.engine.chain import Chain, Group
from asyncbackup.engine.compose import NOTHING_HELD, Composer, Held
from asyncbackup.engine.index import Index
from asyncbackup.engine.opening import examine_image, judge_base_of, judge_size, wanted_base
from asyncbackup.engine.replay import Content, Meter, Replay, nothing
from asyncbackup.engine.source import ImageObjects
from asyncbackup.engine.window import WindowOptions
from asyncbackup.errors import (
    AlreadyApplied,
    AsyncBackupError,
    BaseMismatch,
    ContradictsManifest,
    Fact,
    HalfRolled,
    OtherImage,
    ResizeUnproved,
    single_error,
)
from asyncbackup.format.identity import Identity
from asyncbackup.format.image import ImageState, Marker, OldMarker
from asyncbackup.storage import FileSource, StandingImage
from asyncbackup.storage.image import read_state

_log = logging.getLogger(__package__)

_COMPARE_SIZE: Final = 1 << 20
"""Bytes to compare at a time where the base is not what a backup was made against."""


class _Image(Protocol):
    async def write_places(self, places: Sequence[tuple[int, memoryview]]) -> None: ...


async def write_wanted(image: _Image, contents: Sequence[Content], chain: Chain) -> int:
    """Write what the groups of ``contents`` want, and nothing behind the end of the VDI.

    Give the count of bytes. Raises OutsideVdi for an object that lies behind the end.
    """
    size, places = chain.size, []
    for group, (offset, length, _, _), data in contents:
        origin = chain.position(group.idx)
        for start, end in group.wanted(offset, offset + length):
            if origin + start < size:
                places.append((origin + start, data[start - offset : min(end, size - origin) - offset]))
    if places:
        await image.write_places(places)
    return sum(len(data) for _, data in places)


async def roll(
    index: Index, path: str | os.PathLike[str], options: WindowOptions, meter: Meter, *, assume_base: bool
) -> str | None:
    """Apply the chain of ``index`` to the image at ``path``, or finish doing so. Give what was assumed, in words.

    Before the first write this raises AlreadyApplied, BaseMismatch, or another error of judging the image and the
    backups, and HalfRolled or OtherImage if something else was begun before. Then nothing is changed. From the first
    write on, an interruption leaves the marker, and an error is a HalfRolled with its cause.
    """
    backups = tuple([await reader.identify() for reader in index.chain.readers])
    async with StandingImage(path) as image, FileSource(path) as source:
        job = _Roll(index, image, source, backups, options, meter)
        assumed = await job.prepare(assume_base=assume_base)
        try:
            with single_error():
                await job.write(assumed)
        except AsyncBackupError as cause:
            if not image.is_marked:
                raise
            raise HalfRolled(str(path), str(image.marker), cause) from cause
        return assumed


@dataclass(frozen=True, slots=True)
class _Roll:
    """An image and what is being applied to it."""

    index: Index
    image: StandingImage
    source: FileSource
    backups: tuple[str, ...]
    options: WindowOptions
    meter: Meter

    @property
    def chain(self) -> Chain:
        return self.index.chain

    @property
    def identity(self) -> Identity | None:
        """What the image will be."""
        newest = self.chain.readers[-1].subject
        return None if newest is None else newest.identity

    async def prepare(self, *, assume_base: bool) -> str | None:
        """Judge the image, check all that will be written, and mark the image. Give what is assumed of it."""
        newest = self.chain.readers[-1].subject
        if newest is not None and newest.size != self.chain.size:
            raise ContradictsManifest(self.chain.readers[-1].name, Fact.VDI_SIZE, newest.size, self.chain.size)
        found = await self.image.find_marker()
        if found is not None and found.backups != self.backups:
            raise HalfRolled(self.source.name, str(self.image.marker))
        state = await read_state(self.source.name)
        if isinstance(found, Marker):
            self._judge_marked(found, state)
            return found.assumed
        assumed = None
        if isinstance(found, OldMarker):
            await self._prove_marked()
        else:
            assumed = await self._judge(assume_base=assume_base)
            await self._check(Composer(self._base()))
        await self.image.mark(
            Marker(self.backups, self.image.inode, self.source.size, state.digest if state else None, assumed)
        )
        return assumed

    async def _judge(self, *, assume_base: bool) -> str | None:
        candidate = await examine_image(self.source)
        wanted = wanted_base(self.chain)
        if (
            candidate.identity is not None
            and self.identity is not None
            and candidate.identity.matches(self.identity)
            and not (wanted.identity and candidate.identity.matches(wanted.identity))
        ):
            raise AlreadyApplied(self.source.name, self.identity)
        assumed = all_assumed(self.chain.assumed, judge_base_of(self.chain, candidate, assume_base=assume_base))
        judge_size(self.chain, self.source)
        least = min(self._sizes(self.source.size))
        if least < self.source.size and assumed is not None:
            raise ResizeUnproved(
                self.source.name, self.source.size, least, f"it is only assumed to be the base ({assumed})"
            )
        return assumed

    def _judge_marked(self, marker: Marker, state: ImageState | None) -> None:
        """Raise OtherImage if it can be told that the marker is of another image than this one."""
        doubt = None
        is_finished = (
            state is not None
            and state.identity == self.identity
            and state.is_of(self.source.size, self.source.modified_ns)
        )
        if marker.inode != self.image.inode:
            doubt = f"it is another file than the one that was being rolled (inode {self.image.inode})"
        elif self.source.size not in self._sizes(marker.size):
            doubt = f"it has {self.source.size} bytes, which the one that was being rolled never had"
        elif not is_finished and marker.state != (state.digest if state else None):
            doubt = "it has another state beside it than the one that was being rolled"
        elif state is not None and self.source.modified_ns < state.modified_ns:
            # A roll writes to the image later than its state says.
            doubt = "it has an earlier time of modification than its state tells: another one was copied over it"
        if doubt is not None:
            raise OtherImage(self.source.name, str(self.image.marker), doubt)

    async def _prove_marked(self) -> None:
        """Prove by digests that the image is the one that a marker of version 1 is of. Raises OtherImage."""
        doubt = "nothing proves that it is the one that was being rolled"
        wanted = wanted_base(self.chain)
        if wanted.size is None or self.source.size not in self._sizes(wanted.size):
            raise OtherImage(self.source.name, str(self.image.marker), doubt)
        try:
            await self._check(_Resumable(self._base(), size=self.chain.size, object_size=self.chain.object_size))
        except BaseMismatch as error:
            raise OtherImage(self.source.name, str(self.image.marker), doubt) from error

    def _sizes(self, before: int) -> set[int]:
        """Give the sizes that an image of ``before`` bytes has while it is rolled."""
        spans, object_size = self.chain.spans(), self.chain.object_size
        cut = before if spans is None else min(before, spans * object_size)
        return {before, cut, self.chain.size}

    def _base(self) -> ImageObjects:
        return ImageObjects(self.source, self.chain.object_size, self.chain.spans())

    async def _check(self, composer: Composer) -> None:
        self.meter.counts.is_checking = True
        with single_error():
            await Replay(self.index, composer, self.options, nothing, self.meter.count).run()
        self.meter.counts.begin_again()

    async def write(self, assumed: str | None) -> None:
        spans, object_size = self.chain.spans(), self.chain.object_size

        async def write(contents: list[Content]) -> None:
            written = await write_wanted(self.image, contents, self.chain)
            self.meter.counts.bytes_written += written

        if spans is not None and spans * object_size < self.source.size:
            await self.image.resize(spans * object_size)
        await self.image.resize(self.chain.size)
        composer = Composer(self._base(), base_is_whole=False)
        await Replay(self.index, composer, self.options, write, self.meter.count).run()
        await self.image.finish(self.identity, assumed=assumed is not None)
        _log.info("%s: is rolled forward", self.source.name)


@dataclass(frozen=True, slots=True)
class _Resumable(Composer):
    """Also takes a base to which the backups have been applied already.

    A marker of version 1 does not say which image it is of. Only the content proves that.
    """

    size: int = 0
    object_size: int = 0

    async def compose_checked(self, group: Group, into: memoryview, held: Held = NOTHING_HELD) -> None:
        try:
            await Composer.compose_checked(self, group, into, held)
            _require_digests(group)
        except BaseMismatch:
            if not await self._is_applied(group):
                raise

    async def check(self, group: Group, through: memoryview) -> None:
        try:
            await Composer.check(self, group, through)
            _require_digests(group)
        except BaseMismatch:
            if not await self._is_applied(group):
                raise

    async def _is_applied(self, group: Group) -> bool:
        """Tell whether the base holds what applying the backups gives."""
        assert self.base is not None
        before, after = bytearray(_COMPARE_SIZE), bytearray(_COMPARE_SIZE)
        plain = Composer(self.base, base_is_whole=False)
        await plain.check(group, memoryview(after))
        end = min(group.end, self.size - group.idx * self.object_size)
        for start in range(group.start, end, _COMPARE_SIZE):
            length = min(_COMPARE_SIZE, end - start)
            await self.base.read(group.idx, start, memoryview(before)[:length])
            await plain.compose(group, start, memoryview(after)[:length])
            if before[:length] != after[:length]:
                return False
        return True


def _require_digests(group: Group) -> None:
    """Raise BaseMismatch if no digests say what a backup was made against."""
    for each in group.records:
        if each.record.digests is None or each.record.digests.base is None:
            raise BaseMismatch(each.reader.name, group.idx, "nothing that is known")
