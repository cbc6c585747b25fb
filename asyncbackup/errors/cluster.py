"""The cluster, the way to it, and its answers to requests."""

from __future__ import annotations

from collections.abc import Sequence

from asyncbackup.errors.root import AsyncBackupError
from asyncbackup.errors.wording import list_indices


class ClusterError(AsyncBackupError):
    """The cluster, or the way to it, is at fault."""


class Unreachable(ClusterError):
    """Nothing usable answers at ``address`` (``host:port``)."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"cannot reach a sheep at {address}: {reason}")
        self.address = address
        self.reason = reason


class ConnectionLost(ClusterError):
    """The connection to ``address`` ended while answers were outstanding."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"lost the connection to {address}: {reason}")
        self.address = address
        self.reason = reason


class RequestTimeout(ClusterError):
    """A request got no complete answer within its deadline of ``timeout_s`` seconds."""

    def __init__(self, address: str, request: str, timeout_s: float) -> None:
        super().__init__(f"{address} did not answer {request} within {timeout_s:g} s")
        self.address = address
        self.request = request
        self.timeout_s = timeout_s


class ProtocolViolation(ClusterError):
    """``address`` sent something that the sheep protocol does not allow."""

    def __init__(self, address: str, expected: str, got: str) -> None:
        super().__init__(f"{address} does not speak the sheep protocol: expected {expected}, got {got}")
        self.address = address
        self.expected = expected
        self.got = got


class ClusterNotReady(ClusterError):
    """The cluster answered that it serves no requests in its present state.

    ``result`` is the numeric result code, ``state`` the cluster's word for it.
    """

    def __init__(self, address: str, result: int, state: str) -> None:
        super().__init__(f"the cluster at {address} is not serving: {state}")
        self.address = address
        self.result = result
        self.state = state


class LeftUnfinished(ClusterError):
    """The restore of ``vdi`` failed because of ``cause``; removing the VDI failed because of ``reason``."""

    def __init__(self, vdi: str, left: str, cause: str, reason: str) -> None:
        super().__init__(f"{cause}; VDI '{vdi}', {left}, because {reason}")
        self.vdi = vdi
        self.cause = cause
        self.reason = reason


class PerhapsCreated(LeftUnfinished):
    """The creation of ``vdi`` failed because of ``cause``, but it may be there, empty and without a mark.

    Either the cluster did not say whether it is there, or a node may still make it, or it could not be removed.
    """

    def __init__(self, vdi: str, cause: str, reason: str) -> None:
        super().__init__(vdi, "empty and without a mark, may be there", cause, reason)


class RequestFailed(AsyncBackupError):
    """The cluster answered ``request`` with an error ``result`` (numeric; ``meaning`` in words)."""

    def __init__(self, request: str, result: int, meaning: str) -> None:
        super().__init__(f"{request} failed: {meaning} (result 0x{result:02x})")
        self.request = request
        self.result = result
        self.meaning = meaning


class ObjectReadFailed(RequestFailed):
    """A data object of a snapshot could not be read, so there is no backup."""

    def __init__(self, idx: int, oid: int, result: int, meaning: str) -> None:
        super().__init__(f"reading object {idx} (oid {oid:016x})", result, meaning)
        self.idx = idx
        self.oid = oid


class ObjectsUnreadable(ObjectReadFailed):
    """Several data objects could not be read: ``failures`` has an ObjectReadFailed for each, ``idx`` is the first."""

    def __init__(self, failures: Sequence[ObjectReadFailed]) -> None:
        first = failures[0]
        listed = list_indices([failure.idx for failure in failures])
        AsyncBackupError.__init__(self, f"{len(failures)} objects cannot be read: {listed}; the first of them: {first}")
        self.request = first.request
        self.result = first.result
        self.meaning = first.meaning
        self.idx = first.idx
        self.oid = first.oid
        self.failures = tuple(failures)


class ClusterFull(RequestFailed):
    """The cluster has no space left for what ``request`` would store."""


class InodeCorrupt(AsyncBackupError):
    """An inode or B-tree node contradicts itself; ``vdi_id`` names it."""

    def __init__(self, vdi_id: int, problem: str) -> None:
        super().__init__(f"the metadata of VDI {vdi_id:x} is damaged: {problem}")
        self.vdi_id = vdi_id
        self.problem = problem


class TooManyVdis(AsyncBackupError):
    """The cluster says that it has ``count`` VDIs and snapshots, more than can be listed."""

    def __init__(self, address: str, count: int, limit: int) -> None:
        super().__init__(
            f"the cluster at {address} says that it has {count} VDIs and snapshots: expected at most {limit} to list"
        )
        self.count = count
