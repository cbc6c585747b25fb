"""Writes an object in parts, which the store joins when the last one is there: until then nobody sees it.

A store has no locks. So what is there is asked for when the target is entered, and again before it is completed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, cast

import anyio

from asyncbackup.cancellation import finished_within
from asyncbackup.errors import (
    SourceUnreadable,
    TargetError,
    TargetExists,
    TargetFull,
    TargetUnusable,
)
from asyncbackup.storage.object_store import StoredObject, may_keep_parts, reading, writing
from asyncbackup.storage.part_buffer import PartBuffer
from asyncbackup.storage.parts import MOST_PARTS, plan_parts
from asyncbackup.storage.target import Bytes, Step

if TYPE_CHECKING:
    from obstore import ObjectMeta, PutResult

_log = logging.getLogger(__package__)

_MEMORY: Final = 128 << 20
"""Bytes to have a share of if nobody says how many there are."""

_GRACE_S: Final = 20.0
"""Seconds for a store to take back what it has of an object, or to complete it. A cancellation waits for that."""


class _Abandoned(Exception):
    """Ends the stream of an upload. Then the client has the store drop all parts. A cancelled upload would stay."""


class _Stream:
    """Hands parts over to an upload, one at a time."""

    def __init__(self) -> None:
        self._part: memoryview | None = None
        self._is_ended = False
        self.end_is_taken = False
        """Whether the upload knows that no part follows: the store may complete the object at any time."""
        self._is_abandoned = False
        self._changed = anyio.Event()

    def wake(self) -> None:
        """Have whoever waits look again."""
        self._changed.set()
        self._changed = anyio.Event()

    async def put(self, part: memoryview, upload: asyncio.Future[PutResult]) -> None:
        """Hand over a part, and wait until ``upload`` takes it or ends."""
        assert self._part is None
        self._part = part
        self.wake()
        while not (self._is_taken() or upload.done()):
            await self._changed.wait()

    def _is_taken(self) -> bool:
        return self._part is None

    async def end(self, upload: asyncio.Future[PutResult]) -> None:
        """Let the object be complete with the parts so far, and wait until ``upload`` knows that, or ends.

        It asks only when few parts are left to send. A cancellation before that can still abandon it.
        """
        self._is_ended = True
        self.wake()
        while not (self.end_is_taken or upload.done()):
            await self._changed.wait()

    def abandon(self) -> None:
        """Let the upload fail."""
        self._is_abandoned = True
        self.wake()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> memoryview:
        while True:
            if self._is_abandoned:
                raise _Abandoned
            if self._part is not None:
                part, self._part = self._part, None
                self.wake()
                return part
            if self._is_ended:
                self.end_is_taken = True
                self.wake()
                raise StopAsyncIteration
            await self._changed.wait()


class ObjectTarget:
    """Writes the object at ``place``. With ``replace``, an object there stays until the new one takes its place.

    ``attached`` has the suffixes of objects that belong to this one: they are refused, or replaced, like the object
    itself. Entering raises TargetExists, and TargetUnusable if the store cannot be asked.
    """

    can_patch = False

    def __init__(self, place: StoredObject, *, replace: bool = False, attached: Sequence[str] = ()) -> None:
        self.name = place.name
        self._place = place
        self._replaces = replace
        self._suffixes = tuple(attached)
        self._beside: ObjectTarget | None = None
        self._there: dict[str, ObjectMeta | None] = {}
        """What the store had before this one is completed, by name."""
        self._parts = plan_parts(None, _MEMORY)
        self._buffer = PartBuffer(self._parts.size)
        self._stream = _Stream()
        self._upload: asyncio.Future[PutResult] | None = None
        self._is_over = False
        """Whether it was completed, or abandoned."""

    @classmethod
    def beside(cls, main: ObjectTarget, suffix: str) -> ObjectTarget:
        """Make the target of what belongs to ``main``. Unless it is abandoned, it is completed right after ``main``."""
        target = cls(main._place.beside(suffix), replace=main._replaces)
        target._there = main._there
        main._beside = target
        return target

    @property
    def stored_at(self) -> StoredObject:
        """Where the object will be."""
        return self._place

    def reserve(self, size: int | None, memory: int, *, may_be_less: bool = False) -> int:
        assert not self._buffer.total, "nothing was appended yet"
        self._parts = plan_parts(size, memory, may_be_less=may_be_less)
        self._buffer = PartBuffer(self._parts.size)
        return self._parts.memory if size is None else min(size, self._parts.memory)

    async def __aenter__(self) -> Self:
        await self.check()
        return self

    async def check(self) -> None:
        """Raise what entering would raise. This changes nothing, and what exists may change after it."""
        with writing(self.name, TargetUnusable):
            await self._refuse_existing()

    async def _refuse_existing(self) -> None:
        for place in (self._place, *map(self._place.beside, self._suffixes)):
            self._there[place.name] = found = await place.find()
            if found is not None and not self._replaces:
                raise TargetExists(place.name)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not await self._take_back() and error is not None:
            error.add_note(f"the store did not say that it dropped the parts of {self.name}: perhaps it keeps them")

    async def append(self, buffers: Sequence[Bytes], *, before: Step | None = None) -> None:
        await self._buffer.append(buffers, self._send, before)

    async def _send(self) -> None:
        """Hand the part over, as soon as the one before it is under way. Raises what the upload raised."""
        if self._buffer.total > self._parts.most:
            limit = f"{MOST_PARTS} parts, here of {self._parts.size} bytes"
            raise TargetFull(self.name, f"an object has at most {limit}: with more memory they are larger")
        if self._upload is None:
            self._upload = self._begin_upload()
        await self._stream.put(self._buffer.take(), self._upload)
        if self._upload.done():
            self._raise_error(self._upload)

    def _begin_upload(self) -> asyncio.Future[PutResult]:
        from obstore import put_async  # noqa: PLC0415 - few starts need it

        # A coroutine by its type, it is a future: obstore has begun already, in threads of its own. It ends with the
        # stream, so no cancellation reaches it.
        upload = cast(
            "asyncio.Future[PutResult]",
            put_async(
                self._place.store,
                self._place.key,
                self._stream,
                use_multipart=True,
                chunk_size=self._parts.size,
                max_concurrency=self._parts.under_way,
            ),
        )
        upload.add_done_callback(lambda _: self._stream.wake())
        return upload

    def _raise_error(self, upload: asyncio.Future[PutResult]) -> None:
        with writing(self.name):
            upload.result()

    async def sync(self) -> None:
        """Do nothing: a store has nothing until the object is complete."""

    async def complete(self, beginning: bytes = b"") -> None:
        assert not beginning, "what was sent is not patched"
        if self._is_over:
            return
        with writing(self.name):
            await self._refuse_existing()
        await self._hand_over()
        # From here on the store may complete the object whatever becomes of this run.
        is_published = False
        try:
            async with finished_within(_GRACE_S):
                await self._publish()
                is_published = True
        except anyio.get_cancelled_exc_class() as cancelled:
            if not is_published:
                self._leave(cancelled)
            raise
        beside = ", with what belongs to it" if self._beside is not None else ""
        _log.info("%s: is complete%s", self.name, beside)

    async def _publish(self) -> None:
        """Complete the object, then what belongs to it. If that fails, remove the object.

        If it replaced one, it stays, and what belonged to the old one goes, so that nobody takes that for its own.
        """
        await self._finish()
        try:
            if self._beside is not None and not self._beside._is_over:  # noqa: SLF001 - of the same class
                await self._beside._finish()  # noqa: SLF001 - as above
            elif self._replaces:
                for suffix in self._suffixes:
                    await self._place.beside(suffix).remove()
        except TargetError as error:
            await (self._remove_old(error) if self._replaces else self._remove(error))
            raise

    async def _remove(self, cause: TargetError) -> None:
        """Remove the object after ``cause``, or say that it stays."""
        try:
            await self._place.remove()
        except TargetError:
            cause.add_note(f"{self.name} stays, but what belongs to it is missing: remove it")

    async def _remove_old(self, cause: TargetError) -> None:
        """Remove what belonged to the object that this one replaced, or say that it stays."""
        left = "but what belongs to it is not"
        with suppress(TargetError):
            for suffix in self._suffixes:
                await self._place.beside(suffix).remove()
            left = "and lacks what belongs to it"
        cause.add_note(f"{self.name} is the new one, {left}: make it again")

    async def _finish(self) -> None:
        try:
            await (self._put() if self._upload is None else self._end(self._upload))
        except TargetError as error:
            if not await self._is_complete(error):
                raise
        self._is_over = True

    async def _hand_over(self) -> None:
        """Give the upload what is left, and the end. A cancellation before it took that can take the upload back."""
        if self._upload is None:
            return
        if self._buffer.filled:
            await self._send()
        await self._stream.end(self._upload)

    def _leave(self, cancelled: BaseException) -> None:
        """Say what is unknown after a cancellation, as the store did not end in time what cannot be taken back."""
        if self._is_over:
            unknown = f"{self.name} is complete, but the store did not say whether what belongs to it is: look there"
        else:
            lacks = self._beside is not None or (self._replaces and self._suffixes)
            advice = ", and if it is, make it again: what belongs to it was not written" if lacks else ""
            unknown = f"the store did not say in time whether {self.name} is complete: look there{advice}"
        cancelled.add_note(unknown)
        self._let_end()
        if self._beside is not None:
            self._beside._let_end()  # noqa: SLF001 - of the same class

    def _let_end(self) -> None:
        """Wait no longer for an upload that cannot be taken back. It ends by itself once the store answers."""
        if self._upload is None or self._stream.end_is_taken:
            self._is_over = True
        if self._upload is not None:
            self._upload.add_done_callback(asyncio.Future.exception)

    async def _end(self, upload: asyncio.Future[PutResult]) -> None:
        await self._hand_over()
        await asyncio.wait([upload])
        self._raise_error(upload)

    async def _is_complete(self, error: TargetError) -> bool:
        """Tell whether the store completed the object in spite of ``error``: perhaps only its answer was lost."""
        try:
            with reading(self.name):
                found = await self._place.find()
        except SourceUnreadable:
            error.add_note(f"the store did not say whether {self.name} is complete: look there")
            return False
        before = self._there.get(self.name)
        return found is not None and found["size"] == self._buffer.total and found != before

    async def _put(self) -> None:
        """Write an object that is one part in one request."""
        from obstore import put_async  # noqa: PLC0415 - few starts need it

        with writing(self.name):
            await put_async(self._place.store, self._place.key, self._buffer.take(), use_multipart=False)

    async def abandon(self) -> None:
        await self._take_back()

    async def _take_back(self) -> bool:
        """End the upload. Tell whether the store has dropped everything, as far as it said so."""
        if self._is_over:
            return True
        self._is_over = True
        self._buffer.take()
        upload = self._upload
        if upload is None:
            return True
        if upload.done():
            # The error was raised, or nobody waits for it. The client had the store drop the parts, if it could.
            return (error := upload.exception()) is not None and not may_keep_parts(error)
        self._stream.abandon()
        with anyio.CancelScope(shield=True):
            await asyncio.wait([upload], timeout=_GRACE_S)
        if not upload.done():
            # It ends by itself once the store answers. To cancel it would leave the parts for good.
            upload.add_done_callback(asyncio.Future.exception)
            return False
        return isinstance(upload.exception(), _Abandoned)
