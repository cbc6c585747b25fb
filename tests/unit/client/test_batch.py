"""Attempts at requests that are carried out together, played by hand: no node sends them."""

from __future__ import annotations

import asyncio

import pytest

from asyncbackup.client.batch import Batch
from asyncbackup.client.connection import Attempt
from asyncbackup.client.request import Request
from asyncbackup.errors import ConnectionLost, RequestTimeout
from asyncbackup.wire.constants import Opcode, Result
from asyncbackup.wire.messages import ResponseHeader, read_object

LOST = ConnectionLost("n1:7000", "reset")


def a_read() -> Request:
    return Request(read_object(1, 0, 4), memoryview(bytearray(4)))


def answer(attempt: Attempt, data: bytes = b"data", result: Result = Result.SUCCESS) -> None:
    """End an attempt like a connection that received an answer into its buffer."""
    attempt.header = ResponseHeader(2, Opcode.READ_OBJ, 0, 1, 1, len(data), result, bytes(28))
    if result is Result.SUCCESS:
        assert attempt.buffer is not None
        attempt.buffer[:] = data
        attempt.payload = attempt.buffer
    attempt.end()


async def test_it_ends_when_all_requests_have_ended() -> None:
    requests = [a_read(), a_read()]
    batch = Batch(requests)
    first, second = (batch.begin(request, request.buffer) for request in requests)

    answer(first)
    assert not await batch.wait(0.001)
    second.end(LOST)

    assert await batch.wait(10)
    assert (requests[0].result, bytes(requests[0].payload)) == (Result.SUCCESS, b"data")
    assert requests[1].error is LOST
    assert batch.last == {requests[0]: first, requests[1]: second}


async def test_the_first_of_two_answers_counts_and_comes_into_the_buffer_of_the_request() -> None:
    request = a_read()
    batch = Batch([request])
    first = batch.begin(request, request.buffer)
    second = batch.begin(request, memoryview(bytearray(4)))

    answer(second, b"wins")

    assert batch.has_ended
    assert request.buffer is not None
    assert (bytes(request.buffer), bytes(request.payload)) == (b"wins", b"wins")
    assert batch.last == {request: second}
    assert batch.under_way() == []
    assert first not in batch.under_way(request)


@pytest.mark.parametrize("is_answered", [True, False])
async def test_a_failure_of_one_attempt_leaves_the_other_to_go_on(*, is_answered: bool) -> None:
    request = a_read()
    batch = Batch([request])
    first = batch.begin(request, request.buffer)
    second = batch.begin(request, memoryview(bytearray(4)))

    if is_answered:
        answer(second, b"", Result.EIO)
    else:
        second.end(LOST)
    had_ended = batch.has_ended
    answer(first)

    assert (had_ended, batch.has_ended) == (False, True)
    assert bytes(request.payload) == b"data"


async def test_where_both_fail_the_last_error_is_that_of_the_request() -> None:
    request = a_read()
    batch = Batch([request])
    first, second = (batch.begin(request, None) for _ in range(2))

    first.end(ConnectionLost("n1:7000", "first"))
    second.end(LOST)

    assert request.error is LOST


async def test_what_expired_has_the_error_that_is_said() -> None:
    request = a_read()
    batch = Batch([request])
    attempt = batch.begin(request, request.buffer)
    error = RequestTimeout("n1:7000", "READ_OBJ", 1)

    batch.fail(attempt, error)
    batch.fail(attempt, LOST)

    assert request.error is error, "what has ended does not fail again"


async def test_nothing_ends_after_it_was_given_up() -> None:
    request = a_read()
    batch = Batch([request])
    attempt = batch.begin(request, request.buffer)

    batch.give_up()

    assert batch.under_way() == []
    assert request.answer is None
    assert not await asyncio.wait_for(batch.wait(0.001), 10)
    del attempt


async def test_a_request_that_has_ended_is_not_begun_again() -> None:
    request = a_read()
    batch = Batch([request])
    answer(batch.begin(request, request.buffer))

    with pytest.raises(AssertionError):
        batch.begin(request, request.buffer)
