from __future__ import annotations

import pytest

from asyncbackup.client.outcome import (
    MAX_DELAY_S,
    Outcome,
    RetryBudget,
    failure,
    is_repeatable,
    judge_error,
    judge_result,
    repeat_delay_s,
)
from asyncbackup.errors import (
    AsyncBackupError,
    ClusterFull,
    ConnectionLost,
    ProtocolViolation,
    RequestFailed,
    RequestTimeout,
    Unreachable,
)
from asyncbackup.wire import attributes
from asyncbackup.wire.constants import Result
from asyncbackup.wire.messages import (
    Message,
    create_object,
    delete_vdi,
    new_vdi,
    node_list,
    read_object,
    vdi_info,
    write_object,
)

READ = read_object(1, 0, 512)
WRITE = write_object(1, 0, b"data", copies=2)
LOOKUP = vdi_info("disk")


@pytest.mark.parametrize("message", [READ, WRITE, LOOKUP])
@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        (Result.SUCCESS, Outcome.DONE),
        (Result.AGAIN, Outcome.REPEAT_HERE),
        (Result.OLD_NODE_VER, Outcome.REPEAT_HERE),
        (Result.NEW_NODE_VER, Outcome.REPEAT_HERE),
        (Result.NETWORK_ERROR, Outcome.REPEAT_ELSEWHERE),
        (Result.SHUTDOWN, Outcome.REPEAT_ELSEWHERE),
        (Result.KILLED, Outcome.REPEAT_ELSEWHERE),
        (Result.JOIN_FAILED, Outcome.REPEAT_ELSEWHERE),
        (Result.STARTUP, Outcome.WAIT),
        (Result.WAIT_FOR_JOIN, Outcome.WAIT),
        (Result.HALT, Outcome.WAIT),
        (Result.WAIT_FOR_FORMAT, Outcome.NOT_READY),
        (Result.NO_SPACE, Outcome.FAILED),
        (Result(0x77), Outcome.FAILED),
    ],
)
def test_what_a_result_means_does_not_depend_on_the_request(message: Message, result: Result, outcome: Outcome) -> None:
    assert judge_result(result, message, 2) is outcome


@pytest.mark.parametrize("result", [Result.NO_OBJ, Result.EIO, Result.SYSTEM_ERROR, Result.NO_MEM])
def test_another_node_may_have_what_could_not_be_read(result: Result) -> None:
    outcomes = [judge_result(result, message, 2) for message in (READ, WRITE, LOOKUP)]

    assert outcomes == [Outcome.ASK_ELSEWHERE, Outcome.FAILED, Outcome.FAILED]


@pytest.mark.parametrize(
    ("proto_ver", "outcome"), [(2, Outcome.USE_OLDER_VERSION), (1, Outcome.FAILED), (0x0A, Outcome.FAILED)]
)
def test_only_the_newer_public_version_has_an_older_one(proto_ver: int, outcome: Outcome) -> None:
    assert judge_result(Result.VER_MISMATCH, LOOKUP, proto_ver) is outcome


ERRORS = [ConnectionLost("n1:7000", "reset"), RequestTimeout("n1:7000", "READ_OBJ", 30), Unreachable("n1:7000", "gone")]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(
    "message", [READ, WRITE, create_object(1, 0, b"data", copies=2), LOOKUP, node_list(80), new_vdi("a", 1)]
)
def test_another_way_is_tried_for_what_may_be_done_twice(error: AsyncBackupError, message: Message) -> None:
    assert judge_error(error, message, is_sent=True) is Outcome.REPEAT_ELSEWHERE


@pytest.mark.parametrize(
    "message",
    [new_vdi("disk", 512, base_vdi_id=1, snapshot=True), delete_vdi("disk"), delete_vdi("disk", old=True)],
)
def test_what_may_not_be_done_twice_is_tried_again_only_if_it_was_not_sent(message: Message) -> None:
    outcomes = [judge_error(error, message, is_sent=is_sent) for error in ERRORS for is_sent in (True, False)]

    assert outcomes == [Outcome.FAILED, Outcome.REPEAT_ELSEWHERE] * 3


def test_who_breaks_the_protocol_is_not_asked_again() -> None:
    assert judge_error(ProtocolViolation("n1:7000", "an answer", "nonsense"), READ, is_sent=True) is Outcome.FAILED


def test_an_attribute_is_written_twice_unless_it_must_be_the_first() -> None:
    assert is_repeatable(attributes.write_attribute("disk", "key", b"value"))
    assert not is_repeatable(attributes.write_attribute("disk", "key", b"value", exclusive=True))
    assert not is_repeatable(attributes.delete_attribute("disk", "key"))


def test_each_repetition_waits_longer_up_to_a_limit() -> None:
    assert [repeat_delay_s(repeats, 0.5, 1) for repeats in range(5)] == [0.5, 1.0, 2.0, 4.0, MAX_DELAY_S]


def test_half_of_a_delay_is_left_to_chance() -> None:
    assert (repeat_delay_s(1, 0.5, 0), repeat_delay_s(1, 0.5, 1)) == (0.5, 1.0)


def test_there_is_always_a_pause() -> None:
    assert repeat_delay_s(0, 0, 0) > 0


def test_repetitions_are_earned_by_what_succeeds() -> None:
    budget = RetryBudget(most=3, earned=0.5, left=3)

    assert [budget.spend() for _ in range(4)] == [True, True, True, False]
    budget.note_success()
    assert not budget.spend()
    budget.note_success()
    assert budget.spend()


def test_no_more_repetitions_are_saved_up_than_the_most() -> None:
    budget = RetryBudget(most=2, earned=1, left=0)
    for _ in range(10):
        budget.note_success()

    assert [budget.spend() for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize(("result", "kind"), [(Result.NO_SPACE, ClusterFull), (Result.EIO, RequestFailed)])
def test_a_failure_names_what_failed(result: Result, kind: type[RequestFailed]) -> None:
    error = failure("doing it", result)

    assert type(error) is kind
    assert str(error) == f"doing it failed: {result.meaning} (result 0x{result:02x})"
