from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from asyncbackup import WindowOptions
from asyncbackup.engine.window import Slot, Window
from asyncbackup.errors import single_error
from tests.waiting import turn, until

MIB = 1 << 20


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


class Scene:
    """Items are numbers; work on one waits until it is let through, or does not."""

    def __init__(self, workers: int = 3, *, work_waits: bool = False, deliver_waits: bool = False) -> None:
        self.delivered: list[int] = []
        self.batches: list[list[int]] = []
        self.started: list[int] = []
        self.running = 0
        self.most_running = 0
        self.slots: set[int] = set()
        self.gates = {number: anyio.Event() for number in range(100)}
        self.deliver_gate = anyio.Event()
        if not work_waits:
            self.open(*self.gates)
        if not deliver_waits:
            self.deliver_gate.set()
        self.window: Window[int, int] = Window(workers, [512], self.work, self.deliver)

    def open(self, *items: int) -> None:
        for item in items:
            self.gates[item].set()

    async def work(self, item: int, slot: Slot) -> int:
        self.started.append(item)
        self.slots.add(id(slot))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await self.gates[item].wait()
        finally:
            self.running -= 1
        return item

    async def deliver(self, results: list[int]) -> None:
        await self.deliver_gate.wait()
        self.batches.append(results)
        self.delivered.extend(results)


async def test_results_leave_in_the_order_of_their_items() -> None:
    scene = Scene(workers=8, work_waits=True)
    async with anyio.create_task_group() as group:
        group.start_soon(scene.window.run, numbers(8))
        await until(lambda: len(scene.started) == 8)
        for item in random.Random(1).sample(range(8), 8):
            scene.open(item)
            await turn()

    assert scene.delivered == list(range(8))


async def test_no_items_are_no_work() -> None:
    scene = Scene()

    await scene.window.run(numbers(0))

    assert scene.batches == []


async def test_as_many_items_are_worked_on_as_there_are_workers() -> None:
    scene = Scene(workers=3, work_waits=True)
    async with anyio.create_task_group() as group:
        group.start_soon(scene.window.run, numbers(10))
        await until(lambda: scene.running == 3)
        await turn()
        assert scene.started == [0, 1, 2]
        scene.open(*range(10))

    assert scene.most_running == 3


async def test_slots_are_used_again() -> None:
    scene = Scene(workers=3)

    await scene.window.run(numbers(50))

    assert len(scene.slots) <= 3


async def test_slots_are_made_only_when_needed() -> None:
    scene = Scene(workers=1000)

    await scene.window.run(numbers(2))

    assert len(scene.slots) <= 2


async def test_a_slot_has_the_buffers_that_it_is_asked_for() -> None:
    slot = Slot([512, 1024, 512])

    assert [len(buffer) for buffer in slot.buffers] == [512, 1024, 512]
    assert not any(buffer.readonly for buffer in slot.buffers)


async def test_one_slow_item_holds_back_the_delivery_of_the_others() -> None:
    scene = Scene(workers=4, work_waits=True)
    async with anyio.create_task_group() as group:
        group.start_soon(scene.window.run, numbers(4))
        scene.open(1, 2, 3)
        await until(lambda: scene.running == 1)
        await turn()
        assert scene.batches == []
        scene.open(0)

    assert scene.batches == [[0, 1, 2, 3]]


async def test_a_receiver_that_is_stuck_stops_the_workers() -> None:
    scene = Scene(workers=3, deliver_waits=True)
    async with anyio.create_task_group() as group:
        group.start_soon(scene.window.run, numbers(10))
        await until(lambda: scene.started == [0, 1, 2] and not scene.running)
        await turn()
        assert scene.started == [0, 1, 2]
        scene.deliver_gate.set()

    assert scene.delivered == list(range(10))


async def test_an_error_in_a_worker_ends_everything() -> None:
    scene = Scene(workers=3, work_waits=True)

    async def work(item: int, slot: Slot) -> int:
        if item == 1:
            raise RuntimeError("item")
        return await scene.work(item, slot)

    window: Window[int, int] = Window(3, [512], work, scene.deliver)
    with pytest.raises(RuntimeError, match="item"), single_error():
        await window.run(numbers(10))

    assert (scene.running, scene.delivered) == (0, [])


async def test_an_error_in_the_delivery_ends_everything() -> None:
    scene = Scene(workers=3, work_waits=True)
    scene.open(0)

    async def deliver(_results: list[int]) -> None:
        raise RuntimeError("delivery")

    window: Window[int, int] = Window(3, [512], scene.work, deliver)
    with pytest.raises(RuntimeError, match="delivery"), single_error():
        await window.run(numbers(10))

    assert scene.running == 0


async def test_an_error_in_the_source_of_items_ends_everything() -> None:
    scene = Scene(workers=3, work_waits=True)

    async def items() -> AsyncIterator[int]:
        yield 0
        yield 1
        await until(lambda: scene.running == 2)
        raise RuntimeError("source")

    with pytest.raises(RuntimeError, match="source"), single_error():
        await scene.window.run(items())

    assert scene.running == 0


@pytest.mark.parametrize("deliver_waits", [False, True], ids=["in work", "in delivery"])
async def test_a_cancellation_ends_everything(*, deliver_waits: bool) -> None:
    scene = Scene(workers=3, work_waits=not deliver_waits, deliver_waits=deliver_waits)
    task = asyncio.create_task(scene.window.run(numbers(10)))
    await until(lambda: scene.started == [0, 1, 2] and scene.running == (0 if deliver_waits else 3))

    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()
    assert scene.running == 0


@pytest.mark.parametrize("fields", [{"workers": 0}, {"memory": MIB - 1}])
def test_options_that_make_no_sense_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected at least"):
        WindowOptions(**fields)


@pytest.mark.parametrize(
    ("memory", "object_size", "portion_size"),
    [
        (128 * MIB, 4 * MIB, 4 * MIB),
        (128 * MIB, 1 * MIB, 1 * MIB),
        (128 * MIB, 64 * MIB, 4 * MIB),
        (16 * MIB, 4 * MIB, 4 * MIB),
        (15 * MIB, 4 * MIB, 2 * MIB),
        (1 * MIB, 4 * MIB, MIB // 4),
    ],
)
def test_objects_are_worked_on_in_portions_of_which_memory_holds_two_pairs(
    memory: int, object_size: int, portion_size: int
) -> None:
    assert WindowOptions(memory=memory).portion_size(object_size) == portion_size


@pytest.mark.parametrize(
    ("options", "slots"),
    [
        (WindowOptions(workers=16, memory=128 * MIB), 16),
        (WindowOptions(workers=16, memory=64 * MIB), 8),
        (WindowOptions(workers=1), 1),
    ],
)
def test_the_window_is_bounded_by_count_and_by_memory(options: WindowOptions, slots: int) -> None:
    assert options.slots(4 * MIB) == slots


@pytest.mark.parametrize("memory", [MIB, 3 * MIB, 15 * MIB, 100 * MIB])
@pytest.mark.parametrize("object_size", [MIB, 4 * MIB, 2048 * MIB])
def test_the_window_never_takes_more_than_its_memory(memory: int, object_size: int) -> None:
    options = WindowOptions(workers=1000, memory=memory)
    portion_size = options.portion_size(object_size)

    assert options.slots(portion_size) * 2 * portion_size <= memory
