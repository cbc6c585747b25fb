"""What the answer to a request means, and what to do next. Pure: callers wait and send."""

from __future__ import annotations

from enum import Enum
from typing import Final

from asyncbackup.client.options import ClientOptions
from asyncbackup.errors import ClusterFull, RequestFailed
from asyncbackup.wire.constants import PUBLIC_VERSIONS, Result


class Outcome(Enum):
    """What an answer means for its request."""

    DONE = "the cluster did what was wanted"
    FAILED = "the cluster did not do it, and will not if it is asked again"
    REPEAT = "send the request again, after a delay"
    USE_OLDER_VERSION = "send the request again, in the older version of the public protocol"
    NOT_READY = "the cluster serves nobody now"


_TRANSIENT: Final = frozenset({Result.AGAIN, Result.OLD_NODE_VER, Result.NEW_NODE_VER, Result.NETWORK_ERROR})
"""Results that a cluster gives while its membership changes. They go away."""

NOT_READY: Final = frozenset(
    {
        Result.WAIT_FOR_FORMAT,
        Result.WAIT_FOR_JOIN,
        Result.STARTUP,
        Result.SHUTDOWN,
        Result.JOIN_FAILED,
        Result.HALT,
        Result.KILLED,
    }
)
"""Results that mean that the cluster serves nobody now."""


def judge(result: Result, proto_ver: int, repeats: int, options: ClientOptions) -> Outcome:
    """Say what ``result`` means for a request that was sent in version ``proto_ver`` and repeated ``repeats`` times.

    A transient result is final once the request was sent ``options.attempts`` times.
    """
    if result is Result.SUCCESS:
        return Outcome.DONE
    if result in _TRANSIENT:
        return Outcome.REPEAT if repeats + 1 < options.attempts else Outcome.FAILED
    if result in NOT_READY:
        return Outcome.NOT_READY
    if result is Result.VER_MISMATCH and proto_ver in PUBLIC_VERSIONS[:-1]:
        return Outcome.USE_OLDER_VERSION
    return Outcome.FAILED


def repeat_delay_s(repeats: int, options: ClientOptions) -> float:
    """Give the seconds to wait before a request is sent again that was repeated ``repeats`` times before."""
    return options.retry_delay_s * float(2**repeats)


def failure(what: str, result: Result) -> RequestFailed:
    """Make the error for ``what``, which the cluster answered with ``result``."""
    kind = ClusterFull if result is Result.NO_SPACE else RequestFailed
    return kind(what, result, result.meaning)
