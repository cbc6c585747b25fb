"""Small requests, a few at a time, for each of many items."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Final, TypeVar

import anyio

from asyncbackup.errors import single_error

_Item = TypeVar("_Item")

_AT_A_TIME: Final = 16
"""Requests under way: enough that nothing waits for the latency of one."""


async def for_each(items: Iterable[_Item], do: Callable[[_Item], Awaitable[None]]) -> None:
    """Await ``do`` for all ``items``, a few at a time. Raises the first error, which cancels the others."""
    left: Iterator[_Item] = iter(items)

    async def do_some() -> None:
        for item in left:
            await do(item)

    with single_error():
        async with anyio.create_task_group() as group:
            for _ in range(_AT_A_TIME):
                group.start_soon(do_some)
