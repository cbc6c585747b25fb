"""Lets the client work with hostile servers: whatever they answer, there is a result or an error of ours, in time."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop
from hypothesis import strategies as st

from asyncbackup import ClientOptions, Cluster, WindowOptions, backup, compare, connect_any, restore, verify
from asyncbackup.errors import AsyncBackupError
from asyncbackup.sheep.release import Release
from tests.fuzz.commands import check_end, check_output
from tests.fuzz.forks import Call, Forks
from tests.fuzz.hostile import Hostile, Spoiling, spoilings
from tests.fuzz.world import file_names, new_store, put_files
from tests.waiting import until

DEADLINE_S: Final = 20.0
"""Far more than the few timeouts that an operation may run into, one after another."""
MEMORY: Final = 128 << 20
"""Bytes that client and server together may hold at a time: to look a VDI up that is not there takes half of it."""

WAITING_S: Final = 3.0

CLIENT_OPTIONS: Final = ClientOptions(
    connections=2, connect_timeout_s=0.5, request_timeout_s=0.25, give_up_after_s=0, retry_delay_s=0.001
)
OPTIONS: Final = WindowOptions(workers=2, memory=8 << 20)


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


COMMANDS: Final = {
    "vdi list": ["vdi", "list"],
    "vdi list, as JSON": ["vdi", "list", "--json"],
    "vdi tree": ["vdi", "tree"],
    "backup": ["backup", "hyper", "new", "--live", "--memory", "8M", "--connections", "1", "--timeout", "0.25"],
    "restore": ["restore", "full", "inc", "--to", "restored", "--connections", "1", "--timeout", "0.25"],
    "verify": ["verify", "full", "--against", "disk", "--sample", "50%", "--connections", "1", "--timeout", "0.25"],
}
"""What prints, or takes memory, is run as people run it, too."""


@dataclass(frozen=True)
class Case:
    """An operation or a command, and what the servers do to it."""

    operation: str
    spoilings: list[Spoiling]
    release: Release
    uvloop: bool
    nodes: int
    gateways: list[int]
    """The nodes that are named, by their places. At places where there is none nobody answers."""

    def addresses(self, ports: list[int]) -> list[tuple[str, int]]:
        """Give the addresses of the gateways."""
        return [("127.0.0.1", ports[place] if place < len(ports) else 1) for place in self.gateways]


cases: Final = st.builds(
    Case,
    st.sampled_from([*OPERATIONS, *COMMANDS]),
    spoilings,
    st.sampled_from(list(Release)),
    st.booleans(),
    st.integers(1, 3),
    st.lists(st.sampled_from([0, 0, 1, 2, 3]), min_size=1, max_size=3),
)


@contextmanager
def open_check() -> Iterator[Callable[[Case], None]]:
    """Give a function that runs a case, and sees that nothing is left of it but a result or an error."""
    with Forks() as forks:

        def check(case: Case) -> None:
            loop_factory = uvloop.new_event_loop if case.uvloop else asyncio.SelectorEventLoop
            with tempfile.TemporaryDirectory() as made, asyncio.Runner(loop_factory=loop_factory) as runner:
                folder = Path(made) / "folder"
                folder.mkdir()
                put_files(folder)
                if case.operation in OPERATIONS:
                    runner.run(_check(case, folder))
                else:
                    runner.run(_check_command(case, folder, forks))

        yield check


async def _check_command(case: Case, folder: Path, forks: Forks) -> None:
    hostile = Hostile(new_store(), case.spoilings, case.release, case.nodes)
    async with hostile as ports:
        named = [f"-a{host}:{port}" for host, port in case.addresses(ports)]
        arguments = [*COMMANDS[case.operation], *named]
        # What takes no --timeout may wait for half a minute, and has to heed a signal meanwhile.
        may_wait = "--timeout" not in arguments
        call = Call(arguments, str(folder), WAITING_S if may_wait else DEADLINE_S)
        outcome = await asyncio.to_thread(forks.run, call)
    assert may_wait or not outcome.terminated, "it took too long"
    err = check_end(outcome, "utf-8")
    check_output(outcome, "utf-8")
    if outcome.code:
        assert _left_in(folder) == sorted(file_names()), err
    elif case.operation == "vdi list, as JSON":
        json.loads(outcome.out)


async def _check(case: Case, folder: Path) -> None:
    loop_errors: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: loop_errors.append(context))
    hostile = Hostile(new_store(), case.spoilings, case.release, case.nodes)
    started = time.monotonic()
    async with hostile as ports:
        tracemalloc.start()
        try:
            async with asyncio.timeout(DEADLINE_S):
                with suppress(AsyncBackupError):
                    async with connect_any(case.addresses(ports), CLIENT_OPTIONS) as cluster:
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
