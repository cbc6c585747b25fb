"""What the answer to a request means, or what prevented one, and what to do next. Pure: callers wait and send.

Repeating is safe for what is read, and for objects that nobody else writes: to create or to write them again with the
same bytes changes nothing, whether the first attempt arrived or not. So these are repeated whatever happened. So is the
creation of a VDI: the cluster refuses the second one, and whoever asks for it tells by the size which VDI is there
(``client/construction``). To take a snapshot, to delete a VDI, or to write an attribute of which another client may be
the first writer, is another thing when it is done twice. Such a request is repeated only where the cluster says that it
was not carried out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from asyncbackup.errors import AsyncBackupError, ClusterFull, ConnectionLost, RequestFailed, RequestTimeout, Unreachable
from asyncbackup.wire.constants import PUBLIC_VERSIONS, Flag, Opcode, Result
from asyncbackup.wire.messages import Message, VdiBody


class Outcome(Enum):
    """What an answer or an error means for its request."""

    DONE = "the cluster did what was wanted"
    FAILED = "the cluster did not do it, and will not if it is asked again"
    REPEAT_HERE = "send the request again, after a delay"
    REPEAT_ELSEWHERE = "send the request to another node; after a delay to the same one if there is no other"
    ASK_ELSEWHERE = "send the request to each other node once, since one of them may have what this one has not"
    WAIT = "the cluster serves nobody now, and may do so soon"
    NOT_READY = "the cluster serves nobody, and somebody has to change that"
    USE_OLDER_VERSION = "send the request again, in the older version of the public protocol"


_AFTER_RESULT: Final = {
    Result.SUCCESS: Outcome.DONE,
    # The membership changes.
    Result.AGAIN: Outcome.REPEAT_HERE,
    Result.OLD_NODE_VER: Outcome.REPEAT_HERE,
    Result.NEW_NODE_VER: Outcome.REPEAT_HERE,
    Result.NETWORK_ERROR: Outcome.REPEAT_ELSEWHERE,
    # This node leaves.
    Result.SHUTDOWN: Outcome.REPEAT_ELSEWHERE,
    Result.KILLED: Outcome.REPEAT_ELSEWHERE,
    Result.JOIN_FAILED: Outcome.REPEAT_ELSEWHERE,
    # Nodes are missing.
    Result.STARTUP: Outcome.WAIT,
    Result.WAIT_FOR_JOIN: Outcome.WAIT,
    Result.HALT: Outcome.WAIT,
    Result.WAIT_FOR_FORMAT: Outcome.NOT_READY,
}

_OF_ONE_NODE: Final = frozenset({Result.NO_OBJ, Result.EIO, Result.SYSTEM_ERROR, Result.NO_MEM})
"""Results of a read that another node may answer with the object."""

_OF_THE_WAY: Final = (ConnectionLost, RequestTimeout, Unreachable)
"""Errors of the way to a node. Another way may lead to the cluster."""

NOT_SERVING: Final = frozenset(
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
"""Results that speak of the state of the cluster, and not of the request."""

_UNREPEATABLE: Final = frozenset({Opcode.DEL_VDI, Opcode.DEL_VDI_OLD})
_LOOKUPS: Final = frozenset({Opcode.GET_VDI_INFO, Opcode.READ_VDIS, Opcode.READ_DEL_VDIS, Opcode.GET_VDI_COPIES})

_MIN_DELAY_S: Final = 0.001
"""Without any delay a request that fails at once would keep the event loop busy."""
MAX_DELAY_S: Final = 5.0
"""A cluster that comes back is noticed within this time."""


def is_repeatable(message: Message) -> bool:
    """Tell whether ``message`` may be sent again when nobody knows whether it was carried out."""
    if message.opcode is Opcode.GET_VDI_ATTR:
        return not message.flags & (Flag.ATTR_EXCLUSIVE | Flag.ATTR_DELETE)
    if message.opcode is Opcode.NEW_VDI:
        # The server takes the working VDI that the request names. After the first time that is the snapshot.
        return not VdiBody.unpack(message.body).snapid
    return message.opcode not in _UNREPEATABLE


def is_read(message: Message) -> bool:
    """Tell whether ``message`` reads an object."""
    return message.opcode is Opcode.READ_OBJ


def is_hedgeable(message: Message) -> bool:
    """Tell whether ``message`` may be under way to several nodes at a time: it changes nothing."""
    return is_read(message) or message.opcode in _LOOKUPS


def judge_result(result: Result, message: Message, proto_ver: int) -> Outcome:
    """Say what ``result`` means for ``message``, which was sent in version ``proto_ver``."""
    if result is Result.VER_MISMATCH and proto_ver in PUBLIC_VERSIONS[:-1]:
        return Outcome.USE_OLDER_VERSION
    if result in _OF_ONE_NODE and is_read(message):
        return Outcome.ASK_ELSEWHERE
    return _AFTER_RESULT.get(result, Outcome.FAILED)


def judge_error(error: AsyncBackupError, message: Message, *, is_sent: bool) -> Outcome:
    """Say what an error of the way to a node means for ``message``, which was perhaps sent to it.

    A server that breaks the protocol is not asked again.
    """
    if isinstance(error, _OF_THE_WAY) and (is_repeatable(message) or not is_sent):
        return Outcome.REPEAT_ELSEWHERE
    return Outcome.FAILED


def repeat_delay_s(repeats: int, first_s: float, jitter: float) -> float:
    """Give the seconds to wait before a request is sent again that was repeated ``repeats`` times before.

    They double, and half of them are left to chance, ``jitter`` from 0 to 1: otherwise all who met the same trouble
    come back at the same time.
    """
    delay_s = min(MAX_DELAY_S, first_s * float(2 ** min(repeats, 32)))
    return max(_MIN_DELAY_S, delay_s * (1 + jitter) / 2)


@dataclass(slots=True)
class RetryBudget:
    """Bounds the share of requests that are repeated: a cluster in trouble should not get more work for it.

    Requests that succeed earn repetitions. Without any left, each waits as long as the longest delay.
    """

    most: float = 100.0
    """Repetitions that may be saved up; there are as many at the start."""
    earned: float = 0.1
    """Repetitions that a success earns."""
    left: float = 100.0

    def note_success(self) -> None:
        """Earn something."""
        self.left = min(self.most, self.left + self.earned)

    def spend(self) -> bool:
        """Take one repetition out; False if there is none."""
        if self.left < 1:
            return False
        self.left -= 1
        return True


def failure(what: str, result: Result) -> RequestFailed:
    """Make the error for ``what``, which the cluster answered with ``result``."""
    kind = ClusterFull if result is Result.NO_SPACE else RequestFailed
    return kind(what, result, result.meaning)
