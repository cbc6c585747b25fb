"""Decisions, without I/O: which connection, which protocol version, whether to try again, what an answer means."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from asyncbackup.errors import ClusterFull, RequestFailed
from asyncbackup.wire.constants import SECTOR_SIZE, TRIMMING_VERSIONS, Result


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """How to talk to a cluster."""

    connections: int = 3
    """Connections to the gateway node: one alone leaves a core of it idle, and many need more of its cache."""
    depth: int = 2
    """Requests that a connection has with the server at a time: one being sent back, and one being read meanwhile.

    More of them only make the server's buffers fall out of its processor's cache.
    """
    connect_timeout_s: float = 5.0
    """Seconds until a sheep must have accepted a connection and answered a first request."""
    request_timeout_s: float = 30.0
    """Seconds until requests that are sent together must be answered completely."""
    attempts: int = 5
    """How often to send a request that the cluster asks to send again."""
    retry_delay_s: float = 0.1
    """Seconds before the second attempt; doubled for each one after it."""

    def __post_init__(self) -> None:
        if min(self.connections, self.depth, self.attempts) < 1:
            raise ValueError("connections, depth and attempts must be at least 1")
        if min(self.connect_timeout_s, self.request_timeout_s) <= 0:
            raise ValueError("timeouts must be positive")


TRANSIENT: Final = frozenset({Result.AGAIN, Result.OLD_NODE_VER, Result.NEW_NODE_VER, Result.NETWORK_ERROR})
"""Results that a cluster gives while its membership changes, and that go away."""

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

_LAST_VERSION_OF_OLD_DELETION: Final = 0x06
_FIRST_VERSION_OF_POLICIES: Final = 0x08
_FIRST_VERSION_OF_SIZES: Final = 0x0A


def failure(what: str, result: Result) -> RequestFailed:
    """Make the error for ``what``, which was answered with ``result``."""
    kind = ClusterFull if result is Result.NO_SPACE else RequestFailed
    return kind(what, result, result.meaning)


def retry_delay_s(options: ClientOptions, results: AbstractSet[Result], attempt: int) -> float | None:
    """Give the seconds to wait before sending requests again after their ``attempt``-th (from 1) answers, or None."""
    if results.isdisjoint(TRANSIENT) or attempt >= options.attempts:
        return None
    return options.retry_delay_s * float(2 ** (attempt - 1))


class _Loaded(Protocol):
    @property
    def in_flight(self) -> int: ...
    @property
    def is_open(self) -> bool: ...


_Connection = TypeVar("_Connection", bound=_Loaded)


def least_loaded(connections: Iterable[_Connection]) -> _Connection:
    """Choose the open connection with the fewest requests in flight; a closed one only if there is no other."""
    return min(connections, key=lambda connection: (not connection.is_open, connection.in_flight))


def may_trim(internal_version: int | None) -> bool:
    """Tell whether a server's READ_OBJ answers may lack zero sectors at their ends; an unknown server's may."""
    return internal_version is None or internal_version in TRIMMING_VERSIONS


def takes_object_sizes(internal_version: int | None) -> bool:
    """Tell whether a server's VDIs choose their object size (1.0): others want 0 in that place of a request."""
    return internal_version is None or internal_version >= _FIRST_VERSION_OF_SIZES


def takes_copy_policies(internal_version: int | None) -> bool:
    """Tell whether a server can code objects instead of copying them (0.8): others want 0 in that place."""
    return internal_version is None or internal_version >= _FIRST_VERSION_OF_POLICIES


def deletes_as_of_old(internal_version: int | None) -> bool:
    """Tell whether a server (to 0.5.0) deletes VDIs under the old opcode."""
    return internal_version is not None and internal_version <= _LAST_VERSION_OF_OLD_DELETION


def place_trimmed(into: memoryview, offset: int, length: int, *, trims: bool) -> memoryview:
    """Say which part of ``into`` the ``length`` bytes of a READ_OBJ answer are, and zero the parts they are not.

    ``offset`` is what the answer says of its place in ``into``; only a server that ``trims`` says it. Raises ValueError
    ("expected …, got …") for an answer that is neither whole nor trimmed by sectors.
    """
    asked = len(into)
    if not trims or offset % SECTOR_SIZE or offset + length > asked:
        at = f" at offset {offset}" if offset else ""
        raise ValueError(f"expected {asked} bytes, got {length} bytes{at}")
    into[:offset] = bytes(offset)
    into[offset + length :] = bytes(asked - offset - length)
    return into[offset : offset + length]
