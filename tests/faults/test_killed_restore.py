"""Restores that kill -9 ends at random moments, again and again, and that go on each time."""

from __future__ import annotations

import random
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from asyncbackup import ClientOptions, backup, connect
from asyncbackup.cli.exits import ExitCode
from asyncbackup.sheep import MemoryStore, Sheep
from tests.cli.command import start
from tests.disks import content_of, delete_as_dog, make_disk
from tests.faults.test_killed import Killer
from tests.folders import left_in

pytestmark = pytest.mark.slow

KILLS = 8


class Victim:
    """A restore of backups of the disk that ``sheep`` serves, to VDI ``new``."""

    def __init__(self, portal: BlockingPortal, sheep: Sheep, line: list[str]) -> None:
        self._portal = portal
        self._sheep = sheep
        self._line = line

    def run(self, arm: Callable[[subprocess.Popen[bytes]], object]) -> int:
        """Go on with the restore, and give its exit code. If it was not killed, the VDI is checked and removed."""
        with start(*self._line, stderr=subprocess.PIPE) as process:
            arm(process)
            _, err = process.communicate(timeout=60)
        # One that was killed while the VDI was created finds one without a mark, which could be another's.
        assert process.returncode in (ExitCode.OK, ExitCode.EXISTS, -signal.SIGKILL), err
        if process.returncode != -signal.SIGKILL:
            self._portal.call(self._finish, process.returncode == ExitCode.OK)
        return process.returncode

    async def _finish(self, is_complete: bool) -> None:  # noqa: FBT001 - called through a portal
        async with connect(self._sheep.host, self._sheep.port, ClientOptions(connections=1)) as cluster:
            if is_complete:
                made = [await content_of(cluster, *what) for what in (("disk", "b"), ("new", None))]
                first, second = ({idx: data for idx, data in each.items() if any(data)} for each in made)
                assert first == second
            await delete_as_dog(cluster, "new")


@pytest.mark.parametrize("is_clone", [False, True], ids=["whole", "clone"])
def test_what_is_killed_again_and_again_comes_to_the_same_end(tmp_path: Path, *, is_clone: bool) -> None:
    killer = Killer(random.Random(5 + is_clone))
    sheep = Sheep(MemoryStore(), on_request=killer.note)
    full, increment = tmp_path / "full", tmp_path / "increment"

    async def fill() -> None:
        async with connect(sheep.host, sheep.port, ClientOptions(connections=1)) as cluster:
            await make_disk(cluster)
            await backup(cluster, "disk", full, snapshot="a")
            await backup(cluster, "disk", increment, snapshot="b", base="a")

    with start_blocking_portal() as portal, portal.wrap_async_context_manager(sheep):
        portal.call(fill)
        line = ["restore", "-q", "--to", "new", "--resume", "--checkpoint", "1M", "--in-flight", "1"]
        line += [str(increment), "--base", "a"] if is_clone else [str(full), str(increment)]
        victim = Victim(portal, sheep, [*line, "-p", str(sheep.port)])
        killer.requests = 0
        assert victim.run(lambda _: None) == ExitCode.OK
        killer.most = killer.requests

        killed = 0
        while killed < KILLS:
            killed += victim.run(killer.arm) == -signal.SIGKILL
        killer.process = None
        while victim.run(lambda _: None) != ExitCode.OK:
            pass

    assert left_in(tmp_path) == ["full", "full.manifest", "increment", "increment.manifest"]
