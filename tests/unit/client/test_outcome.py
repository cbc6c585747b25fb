from __future__ import annotations

import pytest

from asyncbackup.client import ClientOptions
from asyncbackup.client.outcome import Outcome, failure, judge, repeat_delay_s
from asyncbackup.errors import ClusterFull, RequestFailed
from asyncbackup.wire.constants import Result

OPTIONS = ClientOptions(attempts=4, retry_delay_s=0.5)
TRANSIENT = [Result.AGAIN, Result.OLD_NODE_VER, Result.NEW_NODE_VER, Result.NETWORK_ERROR]


def test_a_success_is_the_end() -> None:
    assert judge(Result.SUCCESS, 2, 0, OPTIONS) is Outcome.DONE


@pytest.mark.parametrize("result", TRANSIENT)
def test_a_transient_result_is_repeated_until_patience_ends(result: Result) -> None:
    repeat = Outcome.REPEAT

    assert [judge(result, 2, repeats, OPTIONS) for repeats in range(4)] == [repeat, repeat, repeat, Outcome.FAILED]


def test_each_repetition_waits_longer() -> None:
    assert [repeat_delay_s(repeats, OPTIONS) for repeats in range(3)] == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("result", [Result.EIO, Result.NO_OBJ, Result(0x77)])
def test_any_other_result_is_final(result: Result) -> None:
    assert judge(result, 2, 0, OPTIONS) is Outcome.FAILED


@pytest.mark.parametrize(
    ("proto_ver", "outcome"), [(2, Outcome.USE_OLDER_VERSION), (1, Outcome.FAILED), (0x0A, Outcome.FAILED)]
)
def test_only_the_newer_public_version_has_an_older_one(proto_ver: int, outcome: Outcome) -> None:
    assert judge(Result.VER_MISMATCH, proto_ver, 0, OPTIONS) is outcome


@pytest.mark.parametrize("result", [Result.WAIT_FOR_FORMAT, Result.WAIT_FOR_JOIN, Result.STARTUP, Result.HALT])
def test_a_cluster_may_serve_nobody(result: Result) -> None:
    assert judge(result, 2, 0, OPTIONS) is Outcome.NOT_READY


@pytest.mark.parametrize(("result", "kind"), [(Result.NO_SPACE, ClusterFull), (Result.EIO, RequestFailed)])
def test_a_failure_names_what_failed(result: Result, kind: type[RequestFailed]) -> None:
    error = failure("doing it", result)

    assert type(error) is kind
    assert str(error) == f"doing it failed: {result.meaning} (result 0x{result:02x})"
