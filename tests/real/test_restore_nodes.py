"""Restores into three real nodes, of which one dies or hangs at any moment; each object has two copies."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from asyncbackup import ClientOptions, compare, connect_any, discard, restore
from asyncbackup.client.construction import UNFINISHED_TAG
from asyncbackup.errors import LeftUnfinished
from tests.clusters import MISSING
from tests.real.test_nodes import Scene, made

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(MISSING), reason=MISSING),
]

PATIENT = ClientOptions(give_up_after_s=120)
IMPATIENT = ClientOptions(request_timeout_s=1, give_up_after_s=1)


def restore_to(
    scene: Scene,
    vdi: str,
    gateways: Sequence[int] = (0, 1, 2),
    options: ClientOptions = PATIENT,
    begin: Callable[[], None] = lambda: None,
) -> float:
    """Restore the backups, from ``begin`` on; give the seconds that it took."""

    async def work() -> float:
        async with connect_any([scene.gateway(node) for node in gateways], options) as cluster:
            begin()
            started = time.monotonic()
            await restore(cluster, [scene.full, scene.increment], vdi)
            return time.monotonic() - started

    return anyio.run(work)


def is_right(scene: Scene, gateways: Sequence[int] = (0, 1, 2)) -> bool:
    """Tell whether VDI copy is complete, and equal to what was backed up."""

    async def work() -> bool:
        async with connect_any([scene.gateway(node) for node in gateways]) as cluster:
            assert (await cluster.find_vdi("copy")).tag == ""
            return (await compare(cluster, [scene.full, scene.increment], "copy")).is_good

    return anyio.run(work)


@contextmanager
def timers(*timers: threading.Timer) -> Iterator[Callable[[], None]]:
    """Give what starts ``timers``; wait for their end."""

    def start() -> None:
        for timer in timers:
            timer.start()

    yield start
    for timer in timers:
        timer.join()


@pytest.mark.parametrize("seed", range(10))
def test_a_restore_survives_a_node_that_dies_at_any_moment(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    node = chance.randrange(3)
    with made(tmp_path) as scene:
        after_s = chance.uniform(0, restore_to(scene, "first"))
        with timers(threading.Timer(after_s, scene.cluster.kill, [node])) as begin:
            restore_to(scene, "copy", begin=begin)

        assert is_right(scene, [other for other in range(3) if other != node])


@pytest.mark.parametrize("end", ["go on", "kill"])
@pytest.mark.parametrize("seed", range(3))
def test_a_restore_waits_for_a_node_that_hangs_until_it_goes_on_or_dies(tmp_path: Path, seed: int, end: str) -> None:
    chance = random.Random(seed)
    node = chance.randrange(3)
    with made(tmp_path) as scene:
        after_s = chance.uniform(0, restore_to(scene, "first"))
        finish = scene.cluster.go_on if end == "go on" else scene.cluster.kill
        hang = threading.Timer(after_s, scene.cluster.stop, [node])
        with timers(hang, threading.Timer(after_s + 5, finish, [node])) as begin:
            restore_to(scene, "copy", begin=begin, options=ClientOptions(request_timeout_s=2, give_up_after_s=120))

        assert is_right(scene, [other for other in range(3) if end == "go on" or other != node])


def test_a_restore_under_a_node_that_hangs_for_longer_leaves_what_can_be_discarded(tmp_path: Path) -> None:
    with made(tmp_path) as scene:

        async def fail() -> None:
            async with connect_any([scene.gateway(0)], IMPATIENT) as cluster:
                stop = scene.harm_at(1, "stop", 1)
                with pytest.raises(LeftUnfinished, match=f"VDI 'copy', tagged '{UNFINISHED_TAG}', may be left behind"):
                    await restore(cluster, [scene.full, scene.increment], "copy", on_progress=stop)

        async def discard_it() -> None:
            async with connect_any([scene.gateway(0)]) as cluster:
                assert (await cluster.find_vdi("copy")).tag == UNFINISHED_TAG
                await discard(cluster, "copy")
                assert not await cluster.has_vdi("copy")

        anyio.run(fail)
        scene.cluster.go_on(1)
        anyio.run(discard_it)
        restore_to(scene, "copy")

        assert is_right(scene)
