from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from asyncbackup.client import ClientOptions, policy
from asyncbackup.wire.constants import Result


@dataclass
class Stub:
    in_flight: int
    is_open: bool = True


def test_the_connection_with_the_fewest_requests_is_chosen() -> None:
    connections = [Stub(3), Stub(1), Stub(2)]

    assert policy.least_loaded(connections) is connections[1]


def test_among_equals_the_first_is_chosen() -> None:
    connections = [Stub(1), Stub(1)]

    assert policy.least_loaded(connections) is connections[0]


def test_an_open_connection_goes_before_an_idle_closed_one() -> None:
    connections = [Stub(0, is_open=False), Stub(9)]

    assert policy.least_loaded(connections) is connections[1]


def test_a_closed_connection_is_chosen_if_there_is_no_other() -> None:
    connections = [Stub(0, is_open=False)]

    assert policy.least_loaded(connections) is connections[0]


@pytest.mark.parametrize("result", [Result.AGAIN, Result.OLD_NODE_VER, Result.NEW_NODE_VER, Result.NETWORK_ERROR])
def test_a_transient_result_is_tried_again_ever_later(result: Result) -> None:
    options = ClientOptions(attempts=4, retry_delay_s=0.5)

    assert [policy.retry_delay_s(options, {result, Result.SUCCESS}, attempt) for attempt in (1, 2, 3, 4)] == [
        0.5,
        1.0,
        2.0,
        None,
    ]


@pytest.mark.parametrize("result", [Result.SUCCESS, Result.EIO, Result.NO_OBJ, Result(0x77)])
def test_any_other_result_is_final(result: Result) -> None:
    assert policy.retry_delay_s(ClientOptions(), {result}, 1) is None


def test_no_result_is_both_transient_and_not_ready() -> None:
    assert not policy.TRANSIENT & policy.NOT_READY


@pytest.mark.parametrize(
    ("version", "trims"),
    [(0x0A, False), (0x09, False), (0x08, True), (0x07, True), (0x06, False), (0x05, False), (None, True)],
)
def test_which_releases_may_trim(version: int | None, *, trims: bool) -> None:
    assert policy.may_trim(version) is trims


@pytest.mark.parametrize(
    "fields",
    [
        {"connections": 0},
        {"depth": 0},
        {"attempts": 0},
        {"connect_timeout_s": 0},
        {"request_timeout_s": -1},
    ],
)
def test_options_that_make_no_sense_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        ClientOptions(**fields)


def place(asked: int, offset: int, length: int, *, trims: bool = True) -> tuple[bytearray, memoryview]:
    into = bytearray(b"\xee" * asked)
    return into, policy.place_trimmed(memoryview(into), offset, length, trims=trims)


@pytest.mark.parametrize(("offset", "length"), [(0, 512), (512, 512), (1536, 512), (0, 0), (2048, 0), (512, 1024)])
def test_a_trimmed_answer_lies_among_zeros(offset: int, length: int) -> None:
    into, view = place(2048, offset, length)

    view[:] = b"x" * length

    assert into == bytes(offset) + b"x" * length + bytes(2048 - offset - length)


@pytest.mark.parametrize(
    ("offset", "length", "got"),
    [
        (100, 512, "got 512 bytes at offset 100"),
        (2048, 512, "got 512 bytes at offset 2048"),
        (1024, 1536, "got 1536 bytes at offset 1024"),
    ],
)
def test_a_trimmed_answer_that_does_not_fit_is_refused(offset: int, length: int, got: str) -> None:
    with pytest.raises(ValueError, match=f"expected 2048 bytes, {got}"):
        place(2048, offset, length)


def test_a_short_answer_of_a_server_that_does_not_trim_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^expected 2048 bytes, got 512 bytes$"):
        place(2048, 0, 512, trims=False)
