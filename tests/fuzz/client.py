"""Lets the client work with a hostile server: whatever that answers, there is a result or an error of ours, in time."""

from __future__ import annotations

import asyncio
import tempfile
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop
from hypothesis import strategies as st

from asyncbackup import BackupOptions, ClientOptions, Cluster, backup, compare, connect, restore, verify
from asyncbackup.errors import AsyncBackupError
from asyncbackup.sheep.release import Release
from tests.fuzz.hostile import Hostile, Spoiling, spoilings
from tests.fuzz.world import file_names, new_store, put_files
from tests.waiting import until

DEADLINE_S: Final = 20.0
"""Far more than the few timeouts that an operation may run into, one after another."""
MEMORY: Final = 128 << 20
"""Bytes that client and server together may hold at a time: to look a VDI up that is not there takes half of it."""

CLIENT_OPTIONS: Final = ClientOptions(
    connections=2, connect_timeout_s=0.5, request_timeout_s=0.25, attempts=2, retry_delay_s=0.001
)
OPTIONS: Final = BackupOptions(in_flight=2, memory=8 << 20)


async def _look_around(_cluster: Cluster, _folder: Path) -> None:
    """Connect only."""


async def _find(cluster: Cluster, _folder: Path) -> None:
    """Look up what is there, and what is not."""
    for snapshot in (None, "a", 2, "no such tag", 77):
        with suppress(AsyncBackupError):
            await cluster.find_vdi("disk", snapshot)
    await cluster.find_vdi("no such vdi")


async def _list(cluster: Cluster, _folder: Path) -> None:
    for inode in (await cluster.list_vdis()).sound:
        if inode.is_hyper:
            async for _ in cluster.read_btree(inode):
                pass


async def _full(cluster: Cluster, folder: Path) -> None:
    await _backed_up(cluster, folder, "disk", snapshot="b")


async def _increment(cluster: Cluster, folder: Path) -> None:
    await _backed_up(cluster, folder, "disk", snapshot="c", base="a")


async def _hyper(cluster: Cluster, folder: Path) -> None:
    await _backed_up(cluster, folder, "hyper", live=True)


async def _backed_up(cluster: Cluster, folder: Path, vdi: str, **what: object) -> None:
    file = folder / "new"
    await backup(cluster, vdi, file, options=OPTIONS, **what)  # type: ignore[arg-type]
    # The server may have said what is not true, but what was said is written down well.
    report = await verify([file])
    assert report.is_good, report
    _remove(folder, "new*")


def _remove(folder: Path, pattern: str) -> None:
    for path in folder.glob(pattern):
        path.unlink()


def _left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def _restore(cluster: Cluster, folder: Path) -> None:
    await restore(cluster, [folder / "full", folder / "inc"], "restored", options=OPTIONS)


async def _compare(cluster: Cluster, folder: Path) -> None:
    await compare(cluster, [folder / "full", folder / "inc"], "disk", "b", sample=0.5, seed=1, options=OPTIONS)


OPERATIONS: Final[dict[str, Callable[[Cluster, Path], Awaitable[None]]]] = {
    "connect": _look_around,
    "find": _find,
    "list": _list,
    "full": _full,
    "increment": _increment,
    "hyper": _hyper,
    "restore": _restore,
    "compare": _compare,
}


@dataclass(frozen=True)
class Case:
    """An operation, and what the server does to it."""

    operation: str
    spoilings: list[Spoiling]
    release: Release
    uvloop: bool


cases: Final = st.builds(
    Case,
    st.sampled_from(sorted(OPERATIONS)),
    spoilings,
    st.sampled_from(list(Release)),
    st.booleans(),
)


def check(case: Case) -> None:
    """Run one case, and see that nothing is left of it but a result or an error."""
    loop_factory = uvloop.new_event_loop if case.uvloop else asyncio.SelectorEventLoop
    with tempfile.TemporaryDirectory() as made, asyncio.Runner(loop_factory=loop_factory) as runner:
        put_files(Path(made))
        runner.run(_check(case, Path(made)))


async def _check(case: Case, folder: Path) -> None:
    loop_errors: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: loop_errors.append(context))
    hostile = Hostile(new_store(), case.spoilings, case.release)
    started = time.monotonic()
    async with hostile as port:
        tracemalloc.start()
        try:
            async with asyncio.timeout(DEADLINE_S):
                with suppress(AsyncBackupError):
                    async with connect("127.0.0.1", port, CLIENT_OPTIONS) as cluster:
                        await OPERATIONS[case.operation](cluster, folder)
            peak = tracemalloc.get_traced_memory()[1]
        except TimeoutError:
            raise AssertionError(f"{case.operation} took {time.monotonic() - started:.0f} s") from None
        finally:
            tracemalloc.stop()
        await until(lambda: not hostile.connections)
    assert peak < MEMORY, f"{peak >> 20} MiB"
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert _left_in(folder) == sorted(file_names())
    assert not loop_errors, loop_errors
