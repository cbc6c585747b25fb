from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import pytest

from asyncbackup.client import ClientOptions
from asyncbackup.client.hedge import Hedging
from asyncbackup.client.outcome import RetryBudget
from asyncbackup.client.request import Request
from asyncbackup.client.router import Counts, Router
from asyncbackup.errors import ClusterNotReady, ConnectionLost, ProtocolViolation, RequestTimeout, Unreachable
from asyncbackup.sheep import Fault, MemoryStore, Sheep
from asyncbackup.sheep.release import Release
from asyncbackup.wire.constants import Opcode, Result
from asyncbackup.wire.messages import (
    ObjectBody,
    RequestHeader,
    delete_vdi,
    read_object,
    read_replica,
    vdi_info,
    write_object,
)
from tests.faults.proxy import answer, proxy, receive, serve
from tests.holding import PATIENT, QUICK, Holding, all_nodes, held, reads, routed, two, unanswered
from tests.waiting import turn, until

LOOKUP = vdi_info("disk")


@asynccontextmanager
async def served(*faults: str, options: ClientOptions = QUICK, **served_as: Any) -> AsyncIterator[Router]:
    script = [Fault.parse(fault) for fault in faults]
    async with Sheep(MemoryStore(), faults=script, **served_as) as sheep, routed(sheep.port, options=options) as router:
        yield router


async def look_up(router: Router, counts: Counts | None = None) -> Request:
    request = Request(LOOKUP)
    await router.call([request], counts or Counts())
    return request


async def test_the_server_has_no_more_requests_than_the_depth_and_the_first_come_goes_first() -> None:
    async with held(QUICK) as (server, router), asyncio.TaskGroup() as group:
        group.create_task(router.call(reads(1, 2, 3), Counts()))
        group.create_task(router.call(reads(4), Counts()))
        await until(lambda: len(server.held) == 2)
        await turn()
        assert server.objects == [1, 2]
        assert unanswered(*all_nodes(router)) == 4

        for done, came in [(2, [1, 2, 3]), (1, [1, 2, 3, 4]), (3, [1, 2, 3, 4]), (4, [1, 2, 3, 4])]:
            server.answer(done)
            await until(lambda came=came: server.objects == came)  # type: ignore[misc] # mypy infers no default

    assert unanswered(*all_nodes(router)) == 0


async def test_a_request_goes_to_the_connection_with_the_fewest_under_way() -> None:
    async with held(replace(QUICK, connections=3)) as (server, router), asyncio.TaskGroup() as group:
        group.create_task(router.call(reads(1, 2, 3, 4), Counts()))
        await until(lambda: len(server.held) == 4)

        of_object = {oid: number for number, oid in server.came}
        assert len({of_object[1], of_object[2], of_object[3]}) == 3
        assert of_object[4] == of_object[1], "among equals the first"
        server.answer(2)
        await until(lambda: unanswered(*all_nodes(router)) == 3)
        group.create_task(router.call(reads(5), Counts()))
        await until(lambda: len(server.held) == 4)
        assert server.came[-1] == (of_object[2], 5)
        for oid in (1, 3, 4, 5):
            server.answer(oid)


async def test_what_is_given_up_before_its_turn_is_never_sent() -> None:
    async with held(QUICK) as (server, router):
        given_up = asyncio.create_task(router.call(reads(1, 2, 3), Counts()))
        await until(lambda: len(server.held) == 2)
        given_up.cancel()
        await asyncio.wait([given_up])
        assert unanswered(*all_nodes(router)) == 2, "tombstones take their places until they are answered"
        async with asyncio.TaskGroup() as group:
            group.create_task(router.call(reads(4), Counts()))
            await until(lambda: unanswered(*all_nodes(router)) == 3)
            server.answer(1)
            await until(lambda: len(server.held) == 2)
            server.answer(2)
            server.answer(4)

    assert server.objects == [1, 2, 4]


async def test_a_request_waits_while_the_socket_takes_nothing() -> None:
    may_read = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(await receive(reader), bytes(80)))
        await may_read.wait()
        writer.write(answer(await receive(reader)))
        writer.write(answer(await receive(reader), b"data"))
        await reader.read()

    async with serve(handle) as port, routed(port) as router, anyio.create_task_group() as group:
        group.start_soon(router.call, [Request(write_object(7, 0, bytes(8 << 20), copies=1))], Counts())
        (request,) = reads(7)
        group.start_soon(router.call, [request], Counts())
        await until(lambda: unanswered(*all_nodes(router)) == 2)
        await turn()
        (connection,) = router.nodes.gateway.connections
        assert connection.unanswered == 1
        may_read.set()

    assert bytes(request.payload) == b"data"


async def test_old_servers_are_asked_in_version_1_for_good() -> None:
    seen: list[RequestHeader] = []
    async with served(release=Release.V0_4, on_request=seen.append) as router:
        for _ in range(3):
            assert (await look_up(router)).result is Result.NO_VDI

    assert [header.proto_ver for header in seen if header.opcode < 0x80] == [2, 1, 1, 1]


async def test_requests_under_way_together_all_fall_back() -> None:
    async with served(release=Release.V0_4) as router:
        requests = await asyncio.gather(*(look_up(router) for _ in range(2)))

    assert [request.result for request in requests] == [Result.NO_VDI] * 2
    assert [request.repeats for request in requests] == [0, 0], "the cluster did not do what it did not understand"


async def test_a_release_that_takes_no_version_at_all_is_told() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(answer(await receive(reader), result=Result.VER_MISMATCH))

    async with serve(handle) as port, routed(port) as router:
        assert (await look_up(router)).result is Result.VER_MISMATCH


async def test_requests_and_repeats_are_counted() -> None:
    counts = Counts()
    async with served("get_vdi_info@1:error=AGAIN", "get_vdi_info@1:error=AGAIN", options=PATIENT) as router:
        request = await look_up(router, counts)

    assert (counts.requests, counts.retries, request.repeats) == (2, 1, 1)
    assert counts.causes == {"try again": 1}


async def test_only_what_failed_is_repeated() -> None:
    counts = Counts()
    async with served("read_obj@2:error=AGAIN", options=PATIENT) as router:
        requests = reads(1, 2, 3)
        await router.call(requests, counts)

    assert [request.repeats for request in requests] == [0, 1, 0]
    assert (counts.requests, counts.retries) == (4, 1)


async def test_patience_with_a_cluster_ends() -> None:
    counts = Counts()
    options = replace(QUICK, give_up_after_s=0.05)
    async with served("get_vdi_info@1+:error=NETWORK_ERROR", options=options) as router:
        request = await look_up(router, counts)

    assert request.result is Result.NETWORK_ERROR
    assert counts.requests == counts.retries > 1


@pytest.mark.parametrize("state", ["HALT", "STARTUP", "WAIT_FOR_JOIN"])
async def test_a_cluster_that_waits_for_nodes_is_waited_for(state: str) -> None:
    async with served(f"get_vdi_info@1:error={state}", options=PATIENT) as router:
        assert (await look_up(router)).result is Result.NO_VDI


async def test_a_cluster_that_does_not_serve_for_too_long_is_an_error_of_its_own() -> None:
    async with served("get_vdi_info@1:error=HALT") as router:
        with pytest.raises(ClusterNotReady, match="halted, too few nodes") as caught:
            await look_up(router)

    assert caught.value.result is Result.HALT


async def test_a_cluster_that_somebody_has_to_format_is_not_waited_for() -> None:
    async with served("get_vdi_info@1:error=WAIT_FOR_FORMAT", options=PATIENT) as router:
        with pytest.raises(ClusterNotReady, match="waiting for format"):
            await look_up(router)


async def test_a_connection_that_is_lost_is_opened_again_and_the_request_repeated() -> None:
    counts = Counts()
    async with served("get_vdi_info@1:reset", options=PATIENT) as router:
        assert (await look_up(router, counts)).result is Result.NO_VDI

    assert counts.causes == {"connection lost": 1}


async def test_without_patience_a_lost_connection_is_an_error() -> None:
    async with served("get_vdi_info@1:reset") as router:
        with pytest.raises(ConnectionLost):
            await look_up(router)

        await until(lambda: router.nodes.gateway.is_open)
        assert (await look_up(router)).result is Result.NO_VDI


async def test_what_may_not_be_done_twice_is_not_repeated() -> None:
    async with served("del_vdi@1:reset", options=PATIENT) as router:
        with pytest.raises(ConnectionLost):
            await router.call([Request(delete_vdi("disk"))], Counts())


async def test_a_server_that_is_gone_is_unreachable() -> None:
    async with AsyncExitStack() as stack:
        async with Sheep(MemoryStore()) as sheep:
            router = await stack.enter_async_context(routed(sheep.port))
        await until(lambda: router.nodes.gateway.trouble is not None)

        with pytest.raises(Unreachable) as caught:
            await look_up(router)

    assert caught.value.__cause__ is not None


async def test_a_server_that_comes_back_is_used_again() -> None:
    async with (
        Sheep(MemoryStore()) as sheep,
        proxy(sheep.port) as between,
        routed(between.port, options=PATIENT) as router,
    ):
        upstream, between.upstream = between.upstream, 1
        between.drop()
        await until(lambda: router.nodes.gateway.trouble is not None)
        call = asyncio.create_task(look_up(router))
        await turn()
        between.upstream = upstream

        assert (await call).result is Result.NO_VDI


async def test_the_end_of_the_last_connection_reaches_those_under_way_and_those_who_wait() -> None:
    async with held(replace(QUICK, connections=2)) as (server, router):
        calls = [asyncio.create_task(router.call(reads(oid), Counts())) for oid in range(1, 8)]
        await until(lambda: len(server.held) == 4)
        router.nodes.gateway.set_aside(Unreachable("here", "it hangs"))

        errors = await asyncio.gather(*calls, return_exceptions=True)

        assert {type(error) for error in errors} == {Unreachable}
        assert len({id(error) for error in errors}) == 7


async def test_those_who_wait_go_on_over_the_connections_that_are_left() -> None:
    async with held(replace(QUICK, connections=2)) as (server, router):
        calls = [asyncio.create_task(router.call(reads(oid), Counts())) for oid in range(1, 6)]
        await until(lambda: len(server.held) == 4)
        of_object = {oid: number for number, oid in server.came}
        lost, left = ([oid for oid in of_object if of_object[oid] == number] for number in (0, 1))
        router.nodes.gateway.connections[0].abort()
        for oid in left:
            server.answer(oid)
        await until(lambda: 5 in server.objects)
        server.answer(5)

        errors = await asyncio.gather(*calls, return_exceptions=True)

        kinds = [ConnectionLost if oid in lost else type(None) for oid in range(1, 6)]
        assert [type(error) for error in errors] == kinds


# Several nodes


async def test_without_a_ring_reads_go_to_the_node_with_the_fewest_bytes_under_way() -> None:
    async with two() as (first, second, router), asyncio.TaskGroup() as group:
        for oid in range(1, 5):
            group.create_task(router.call(reads(oid), Counts()))
        await until(lambda: len(first.held) + len(second.held) == 4)

        assert len(first.held) == len(second.held) == 2
        for server in (first, second):
            for oid in list(server.objects):
                server.answer(oid)


async def test_what_was_under_way_to_a_lost_node_goes_to_another_at_once() -> None:
    counts = Counts()
    async with two() as (first, second, router):
        (request,) = reads(7)
        call = asyncio.create_task(router.call([request], counts))
        await until(lambda: len(first.held) + len(second.held) == 1)
        lost, left = (first, second) if first.held else (second, first)
        address = next(address for address, node in router.nodes._nodes.items() if node.load)
        router.nodes._nodes[address].set_aside(Unreachable("here", "it is gone"))
        await until(lambda: len(left.held) == 1)
        left.answer(7)
        await call

    assert lost is not left
    assert counts.causes == {"unreachable": 1}
    assert request.result is Result.SUCCESS


async def test_an_object_that_a_node_cannot_read_is_asked_of_each_other_one_once() -> None:
    counts = Counts()
    async with two() as (first, second, router):
        (request,) = reads(7)
        call = asyncio.create_task(router.call([request], counts))
        for _ in range(2):
            await until(lambda: bool(first.held or second.held))
            (first if first.held else second).answer(7, Result.EIO)
        await call

    assert sorted([len(first.came), len(second.came)]) == [1, 1]
    assert request.result is Result.EIO


async def test_a_late_read_is_sent_to_a_second_node_and_the_first_answer_counts() -> None:
    counts = Counts()
    async with two() as (first, second, router):
        for _ in range(40):
            router.nodes.latencies.note(0.001)
        buffer = bytearray(4)
        request = Request(read_object(7, 0, 4), memoryview(buffer))
        call = asyncio.create_task(router.call([request], counts))
        await until(lambda: bool(first.held or second.held))
        slow, quick = (first, second) if first.held else (second, first)
        await until(lambda: bool(quick.held))
        quick.answer(7)
        await call
        answered = bytes(buffer)
        buffer[:] = b"mine"
        slow.answer(7)
        await until(lambda: unanswered(*all_nodes(router)) == 0)

    assert answered == (7).to_bytes(4, "big")
    assert buffer == b"mine", "the slower answer is dropped"
    assert (counts.hedges, counts.requests, counts.retries) == (1, 2, 0)


async def test_a_node_that_answers_no_read_is_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncbackup.client.hedge._LEAST_HANG_S", 0.05)
    async with two() as (first, second, router):
        router._hedging = Hedging(router.nodes.latencies, hedged=1 << 30)
        call = asyncio.create_task(router.call(reads(7), Counts()))
        await until(lambda: bool(first.held or second.held))
        (silent,) = [node for node in all_nodes(router) if node.load]
        silent._last_answer_s -= 1000
        quick = second if first.held else first
        await until(lambda: bool(quick.held))
        quick.answer(7)
        await call

        assert isinstance(silent.trouble, Unreachable)
        assert "answered nothing" in silent.trouble.reason


async def test_a_read_that_ends_as_its_node_is_set_aside_is_sent_again_and_not_hedged() -> None:
    async with two(replace(PATIENT, request_timeout_s=1)) as (first, second, router):
        for _ in range(40):
            router.nodes.latencies.note(0.001)
        requests, counts = reads(1, 2, 3), Counts()
        call = asyncio.create_task(router.call(requests, counts))
        await until(lambda: len(first.held) + len(second.held) == 3)
        quick = second if len(first.held) == 2 else first
        (silent,) = [node for node in all_nodes(router) if unanswered(node) == 2]
        silent._last_answer_s -= 1000

        def answer_all() -> bool:
            for _, header, _ in list(quick.held):
                if header.opcode == Opcode.READ_OBJ:
                    quick.answer(ObjectBody.unpack(header.body).oid)
            return call.done()

        try:
            await until(answer_all)
        except TimeoutError:
            call.cancel()
            raise
        await call

    assert [bytes(request.payload) for request in requests] == [n.to_bytes(4, "big") for n in (1, 2, 3)]
    assert (counts.hedges, counts.causes) == (1, {"unreachable": 1})


async def test_a_late_look_up_is_sent_to_other_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncbackup.client.router.LOOKUP_DELAY_S", 0.01)
    async with two() as (first, second, router):
        router.nodes.gateway.pace.note_waiting()
        request = Request(LOOKUP)
        call = asyncio.create_task(router.call([request], Counts()))
        await until(lambda: bool(first.held and second.held))
        server = first if router.nodes.gateway is not router.nodes._nodes[router.nodes.gateways[0]] else second
        _, header, writer = server.held.pop()
        writer.write(answer(header))
        await call

    assert request.result is Result.SUCCESS


async def test_an_answer_after_the_end_of_its_batch_goes_nowhere() -> None:
    async with held(replace(QUICK, connections=2)) as (server, router):
        buffer = bytearray(4)
        batch = [*reads(1), Request(read_object(2, 0, 4), memoryview(buffer))]
        call = asyncio.create_task(router.call(batch, Counts()))
        await until(lambda: len(server.held) == 2)
        call.cancel()
        await asyncio.wait([call])
        buffer[:] = b"mine"
        server.answer(2)
        await until(lambda: unanswered(*all_nodes(router)) == 1)

        assert buffer == b"mine"
        assert batch[1].answer is None


# A node that is named


def replica_read(router: Router, oid: int, place: int) -> Request:
    return Request(read_replica(oid, 0, 4), at=list(router.nodes._nodes)[place])


@pytest.mark.parametrize("place", [0, 1])
async def test_a_request_that_names_its_node_goes_there_and_nowhere_else(place: int) -> None:
    async with two() as (*servers, router):
        request = replica_read(router, 7, place)
        call = asyncio.create_task(router.call([request], Counts()))
        await until(lambda: bool(servers[place].held))
        servers[place].answer(7, Result.NO_OBJ)
        await call

        assert request.result is Result.NO_OBJ
        assert not servers[1 - place].came


async def test_what_fails_on_the_way_to_a_named_node_is_tried_there_again() -> None:
    counts = Counts()
    async with two() as (first, second, router):
        request = replica_read(router, 7, 1)
        call = asyncio.create_task(router.call([request], counts))
        await until(lambda: bool(second.held))
        second.answer(7, Result.NETWORK_ERROR)
        await until(lambda: bool(second.held))
        second.answer(7)
        await call

    assert (request.result, counts.retries, first.came) == (Result.SUCCESS, 1, [])


async def test_a_named_node_that_is_none_of_the_cluster_is_unreachable() -> None:
    async with two() as (_, _, router):
        with pytest.raises(Unreachable, match="no node of the cluster any more"):
            await router.call([Request(read_replica(7, 0, 4), at=("127.0.0.1", 1))], Counts())


async def test_a_replica_is_asked_for_in_the_newest_epoch_that_an_answer_named() -> None:
    epochs: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            header = await receive(reader)
            if header.opcode == Opcode.GET_NODE_LIST:
                writer.write(answer(header, bytes(80)))
                continue
            epochs.append(header.epoch)
            is_old = header.epoch < 5
            told = answer(header, b"" if is_old else b"abcd", result=Result.OLD_NODE_VER if is_old else Result.SUCCESS)
            writer.write(told[:4] + (5).to_bytes(4, "little") + told[8:])

    async with serve(handle) as port, routed(port, options=PATIENT) as router:
        request = replica_read(router, 7, 0)
        await router.call([request], Counts())

    assert epochs == [1, 5]
    assert bytes(request.payload) == b"abcd"


async def test_no_more_is_read_than_the_rate_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def pause(delay_s: float) -> None:
        slept.append(delay_s)

    async with served(options=replace(QUICK, rate=1000)) as router:
        monkeypatch.setattr(router, "_pause", pause)
        for _ in range(3):
            await router.call([Request(read_object(1, 0, 200))], Counts())

    first, second = slept
    assert 0 < first < second < 0.4


# Repetition


async def test_writes_are_repeated_on_another_node_after_a_cut() -> None:
    counts = Counts()
    async with two() as (first, second, router):
        request = Request(write_object(7, 0, b"data", copies=1))
        call = asyncio.create_task(router.call([request], counts))
        await until(lambda: bool(first.held or second.held))
        lost, left = (first, second) if first.held else (second, first)
        lost.cut()
        await until(lambda: bool(left.held))
        left.answer(7)
        await call

    assert request.result is Result.SUCCESS
    assert counts.causes == {"connection lost": 1}


@pytest.mark.parametrize("has_budget", [True, False])
async def test_without_a_budget_for_repetitions_none_is_made_at_once(*, has_budget: bool) -> None:
    async with two(replace(PATIENT, retry_delay_s=60)) as (first, second, router):
        if not has_budget:
            router._budget = RetryBudget(left=0)
        call = asyncio.create_task(router.call(reads(7), Counts()))
        await until(lambda: bool(first.held or second.held))
        lost, left = (first, second) if first.held else (second, first)
        lost.answer(7, Result.EIO)
        if has_budget:
            await until(lambda: bool(left.held))
        else:
            await until(lambda: not lost.held)
            await turn(100)
            assert not left.held
        await cancelled(call)


async def test_a_hundred_failures_without_a_success_use_the_budget_up() -> None:
    options = replace(PATIENT, retry_delay_s=0.0001)
    async with served("read_obj@1+:error=AGAIN", options=options) as router:
        call = asyncio.create_task(router.call(reads(*range(50)), Counts()))
        await until(lambda: router._budget.left < 1)
        delays = [router._delay_s(0, is_elsewhere=True) for _ in range(20)]
        await cancelled(call)

    assert min(delays) > 2.5 * 0.9


# Cancellation


async def cancelled(call: asyncio.Task[None]) -> None:
    call.cancel()
    await asyncio.wait([call])
    assert call.cancelled()


def read_into(oid: int) -> tuple[Request, bytearray]:
    buffer = bytearray(4)
    return Request(read_object(oid, 0, 4), memoryview(buffer)), buffer


async def see_that_it_works(first: Holding, second: Holding, router: Router) -> None:
    """Have everything answered that servers still hold, and carry out another request."""
    call = asyncio.create_task(router.call(reads(99), Counts()))

    def answer_all() -> bool:
        for server in (first, second):
            for oid in {ObjectBody.unpack(header.body).oid for _, header, _ in server.held}:
                server.answer(oid)
        return call.done() and not unanswered(*all_nodes(router))

    await until(answer_all)
    await call
    assert all(node.load == 0 and node.trouble is None for node in all_nodes(router))


async def test_a_call_is_cancelled_while_its_requests_wait_for_the_pace() -> None:
    async with two() as (first, second, router):
        busy = asyncio.create_task(router.call(reads(1, 2, 3, 4), Counts()))
        await until(lambda: len(first.held) + len(second.held) == 4)
        request, buffer = read_into(7)
        call = asyncio.create_task(router.call([request], Counts()))
        await until(lambda: unanswered(*all_nodes(router)) == 5)
        await cancelled(call)
        buffer[:] = b"mine"
        await see_that_it_works(first, second, router)
        await busy

    assert buffer == b"mine"
    assert 7 not in first.objects + second.objects


async def test_a_call_is_cancelled_while_its_request_is_under_way() -> None:
    async with two() as (first, second, router):
        request, buffer = read_into(7)
        call = asyncio.create_task(router.call([request], Counts()))
        await until(lambda: bool(first.held or second.held))
        await cancelled(call)
        buffer[:] = b"mine"
        await see_that_it_works(first, second, router)

    assert buffer == b"mine"


async def test_a_call_is_cancelled_while_its_answer_is_being_received() -> None:
    async with two() as (first, second, router):
        request, buffer = read_into(7)
        call = asyncio.create_task(router.call([request], Counts()))
        await until(lambda: bool(first.held or second.held))
        (server,) = [server for server in (first, second) if server.held]
        _, header, writer = server.held.pop()
        whole = answer(header, b"data")
        writer.write(whole[:-2])
        await until(lambda: buffer.startswith(b"da"))
        await cancelled(call)
        buffer[:] = b"mine"
        writer.write(whole[-2:])
        await see_that_it_works(first, second, router)

    assert buffer == b"mine"


async def test_a_call_is_cancelled_while_its_request_is_hedged() -> None:
    async with two() as (first, second, router):
        for _ in range(40):
            router.nodes.latencies.note(0.001)
        request, buffer = read_into(7)
        call = asyncio.create_task(router.call([request], Counts()))
        await until(lambda: bool(first.held and second.held))
        await cancelled(call)
        buffer[:] = b"mine"
        await see_that_it_works(first, second, router)

    assert buffer == b"mine"


async def test_a_call_is_cancelled_between_two_repetitions() -> None:
    async with two(replace(PATIENT, retry_delay_s=5)) as (first, second, router):
        request, buffer = read_into(7)
        call = asyncio.create_task(router.call([request], Counts()))
        await until(lambda: bool(first.held or second.held))
        (first if first.held else second).answer(7, Result.AGAIN)
        await until(lambda: request.repeats == 1)
        await cancelled(call)
        buffer[:] = b"mine"
        await see_that_it_works(first, second, router)

    assert buffer == b"mine"
    assert (first.objects + second.objects).count(7) == 1


async def test_a_call_is_cancelled_while_it_waits_for_the_rate() -> None:
    async with two(replace(PATIENT, rate=1000)) as (first, second, router):
        request = Request(read_object(7, 0, 100_000))
        call = asyncio.create_task(router.call([request], Counts()))
        await turn()
        await cancelled(call)
        router._bucket = None
        await see_that_it_works(first, second, router)

    assert 7 not in first.objects + second.objects


# Hedging


async def test_at_most_a_twentieth_of_all_reads_are_sent_twice() -> None:
    counts = Counts()
    async with two() as (_, _, router):
        for _ in range(40):
            router.nodes.latencies.note(0.001)
        call = asyncio.create_task(router.call(reads(*range(200)), counts))
        await until(lambda: counts.hedges > 0)
        await turn(1000)
        await cancelled(call)

    assert counts.hedges == 4 + 200 // 20


# Hostile servers


async def dribble(writer: asyncio.StreamWriter, header: RequestHeader, result: Result = Result.SUCCESS) -> None:
    """Announce as much as was asked for, and send it byte by byte."""
    writer.write(answer(header, data_length=header.data_length, result=result))
    while True:
        writer.write(b"x")
        await asyncio.sleep(0)


@pytest.mark.parametrize("result", [Result.SUCCESS, Result.EIO])
async def test_bytes_that_trickle_in_do_not_put_off_the_deadline(result: Result) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(await receive(reader), bytes(80)))
        await dribble(writer, await receive(reader), result)

    async with serve(handle) as port, routed(port, options=replace(QUICK, request_timeout_s=0.05)) as router:
        with pytest.raises(RequestTimeout):
            await router.call([Request(read_object(7, 0, 4 << 20))], Counts())

        await until(lambda: router.nodes.gateway.trouble is None)


async def test_a_greeting_that_trickles_in_does_not_put_off_the_deadline() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await dribble(writer, await receive(reader))

    async with serve(handle) as port:
        with pytest.raises(Unreachable, match=r"gave no answer within 0\.05 s"):
            async with routed(port, options=replace(QUICK, connect_timeout_s=0.05)):
                pass


@pytest.mark.parametrize("result", [Result.SUCCESS, Result.EIO])
async def test_a_payload_without_end_is_not_waited_for(result: Result) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(await receive(reader), bytes(80)))
        writer.write(answer(await receive(reader), data_length=0xFFFFFFFF, result=result))
        await asyncio.Event().wait()

    async with serve(handle) as port, routed(port, options=PATIENT) as router:
        with pytest.raises(ProtocolViolation, match="expected at most 4 bytes for READ_OBJ, got 4294967295 bytes"):
            await router.call(reads(7), Counts())
