"""The protocol that all targets follow, and how errors of the operating system are raised."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self, runtime_checkable

from anyio import to_thread

from asyncbackup.errors import TargetError, TargetFull, TargetWriteFailed

if TYPE_CHECKING:
    from asyncbackup.storage.object_store import StoredObject

Bytes = bytes | bytearray | memoryview

Step = Callable[[], object]
"""What is done in one hop to a thread with a read or a write, such as a digest. It blocks."""

IOV_MAX: Final = 1024
"""Buffers that the kernel takes in one gather write."""

BRIEF: Final = 64 << 10
"""Bytes up to which it takes less time to copy or digest them than to go to a thread and back."""

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Target(Protocol):
    """Takes bytes in order, once, between entering and leaving its context.

    Entering opens the target, or raises TargetExists, TargetBusy, TargetUnusable or TargetFull with nothing changed.
    Leaving without a ``complete`` abandons it.
    """

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def can_patch(self) -> bool:
        """Whether ``complete`` can replace the beginning."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def append(self, buffers: Sequence[Bytes], *, before: Step | None = None) -> None:
        """Call ``before``, then write ``buffers`` one after the other; they are free for other use when this returns.

        ``before`` blocks, so it runs in the thread that writes, in the same hop. Where no thread writes, it runs in a
        worker thread, or on the event loop if the buffers are brief.

        Raises TargetFull or TargetWriteFailed. Cancelled: how much was written is open.
        """

    async def sync(self) -> None:
        """Make durable what was appended, as far as the target can. Raises TargetFull, TargetWriteFailed."""

    async def complete(self, beginning: bytes = b"") -> None:
        """Overwrite the start with ``beginning``, and make all of it durable and visible.

        Raises TargetExists, TargetFull, TargetWriteFailed. Cancelled: all of it is visible, or nothing is.
        """

    async def abandon(self) -> None:
        """Take back what can be taken back. Nothing can be appended after that. Does nothing the second time."""


@runtime_checkable
class JoinableTarget(Target, Protocol):
    """A target that can take over files, at little cost those that stand beside it."""

    @property
    def pieces(self) -> Path:
        """Where a folder can be made for such files. None is there when the target was entered."""

    async def append_file(self, source: str | os.PathLike[str], length: int, start: int = 0) -> None:
        """Append ``length`` bytes of a file, from ``start`` on. Raises TargetFull, TargetWriteFailed."""


@runtime_checkable
class StoredTarget(Target, Protocol):
    """A target that is an object in a store."""

    @property
    def stored_at(self) -> StoredObject:
        """Where it will be."""


@runtime_checkable
class Layer(Target, Protocol):
    """A target that writes to ``inner`` what it makes of the content, such as compressed content."""

    @property
    def inner(self) -> Target:
        """What it writes to."""

    @property
    def encrypts(self) -> bool:
        """Whether others cannot read what it makes of the content."""

    async def end(self) -> None:
        """Append to ``inner`` what is left of the content, and what ends it. ``complete`` does so if nobody did."""


@runtime_checkable
class ResumableLayer(Layer, Protocol):
    """A layer whose ``inner`` may hold what an interrupted run made, in frames of one size of content."""

    def go_on(self, lengths: Iterable[int], content: bytes) -> None:
        """Go on as if all of this had been appended: whole frames of so many bytes, and ``content`` behind theirs.

        The frames are in ``inner``, which appends behind them. Nothing was appended here.
        """


async def end_content(target: Target) -> None:
    """Have all content of ``target``, and of what it stands on, where it can be completed from."""
    if isinstance(target, Layer):
        await target.end()


@runtime_checkable
class HoldingTarget(Target, Protocol):
    """A target that holds much of what was appended, until where it goes has taken it."""

    def reserve(self, size: int | None, memory: int, *, may_be_less: bool = False) -> int:
        """Prepare for ``size`` bytes, or ``may_be_less``, before any is appended; None: nobody knows how many come.

        Give the bytes that it takes of ``memory``: at most half, or what was asked for. Raises MemoryTooSmall if that
        is not enough.
        """


def holding(target: Target) -> Iterator[HoldingTarget]:
    """Give the targets that hold much: of the layers of ``target``, and what stands under them."""
    if isinstance(target, HoldingTarget):
        yield target
    if isinstance(target, Layer):
        yield from holding(target.inner)


async def publish(data: Target, manifest: Target | None = None, beginning: bytes = b"") -> None:
    """Complete ``data``, with ``beginning`` at its start, and ``manifest``: both become visible, or neither.

    A manifest that stands beside a file or an object (``beside``) gets its name together with that. Any other manifest
    is completed after the data. Raises what ``complete`` raises.
    """
    # A manifest may be visible when the data is, so all of its content is there before.
    if manifest is not None:
        await end_content(manifest)
    await data.complete(beginning)
    if manifest is not None:
        await manifest.complete()


async def run_before(before: Step | None, buffers: Sequence[Bytes]) -> None:
    """Call ``before`` for a target that has no thread of its own: on the event loop if ``buffers`` are brief."""
    if before is None:
        return
    if sum(map(len, buffers)) <= BRIEF:
        before()
    else:
        await to_thread.run_sync(before)


@contextmanager
def wrap_os_errors(target: str, otherwise: type[TargetError] = TargetWriteFailed) -> Iterator[None]:
    """Raise TargetFull or ``otherwise`` in place of an OSError."""
    try:
        yield
    except OSError as error:
        kind = TargetFull if error.errno in _FULL else otherwise
        raise kind(target, error.strerror or str(error)) from error


def unwritten(buffers: Sequence[Bytes], count: int) -> list[memoryview]:
    """Give what is left of ``buffers`` after their first ``count`` bytes; no copy."""
    rest = []
    for buffer in buffers:
        if count >= len(buffer):
            count -= len(buffer)
        else:
            rest.append(memoryview(buffer)[count:])
            count = 0
    return rest
