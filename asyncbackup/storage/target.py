"""The protocol that all targets follow, and how the operating system's errors are told."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Protocol, Self

from asyncbackup.errors import TargetError, TargetFull, TargetWriteFailed

Bytes = bytes | bytearray | memoryview

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Target(Protocol):
    """Takes bytes in order, once, between entering and leaving its context.

    Entering opens the target, or raises TargetExists, TargetBusy, TargetUnusable or TargetFull with nothing changed.
    Leaving without a ``complete`` takes everything back that can be taken back.
    """

    @property
    def can_patch(self) -> bool:
        """Whether ``complete`` can replace the beginning."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def append(self, buffers: Sequence[Bytes]) -> None:
        """Write ``buffers`` one after the other; they are free for other use when this returns.

        Raises TargetFull or TargetWriteFailed. Cancelled: how much was written is open.
        """

    async def complete(self, beginning: bytes, companion: Target | None = None) -> None:
        """Overwrite the start with ``beginning``, and make all of it durable and visible.

        ``companion``, another target, is completed together with this one, and becomes visible right after it. Raises
        TargetExists, TargetFull, TargetWriteFailed. Cancelled: it is all there, or nothing is.
        """


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
