"""Backups that cannot be applied to an image, or to a VDI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asyncbackup.errors.incompatible import Incompatible
from asyncbackup.errors.root import AsyncBackupError


class ResizeUnproved(Incompatible):
    """``image`` of ``size`` bytes would get ``new_size``, and ``doubt`` says why that may be wrong."""

    def __init__(self, image: str, size: int, new_size: int, doubt: str) -> None:
        super().__init__(f"{image} has {size} bytes and would become {new_size}, but {doubt}")
        self.image = image
        self.size = size
        self.new_size = new_size
        self.doubt = doubt


class AlreadyApplied(Incompatible):
    """``image`` already is ``identity`` (an ``asyncbackup.format.identity.Identity``): nothing is left to apply."""

    def __init__(self, image: str, identity: Any) -> None:
        super().__init__(
            f"{image} is an image of {identity} already: nothing is left to apply, and nothing was written"
        )
        self.image = image
        self.identity = identity


class HeldAlready(AlreadyApplied):
    """``vdi`` holds ``identity`` already, and nothing is left to apply; ``certainty`` says how sure that is."""

    def __init__(self, vdi: str, identity: Any, certainty: str) -> None:
        AsyncBackupError.__init__(self, f"VDI '{vdi}' holds {identity} already, {certainty}: nothing is left to apply")
        self.image = vdi
        self.identity = identity


class BackupsMissing(Incompatible):
    """``vdi`` holds ``got``, and ``source`` is the difference to ``expected``: two identities that do not match.

    Both are an ``asyncbackup.format.identity.Identity``.
    """

    def __init__(self, vdi: str, source: str, expected: Any, got: Any) -> None:
        is_behind = got.vdi == expected.vdi and (got.created or "") < (expected.created or "")
        why = "a backup between the two was not applied" if is_behind else "it is another one"
        super().__init__(f"VDI '{vdi}' holds {got}, and {source} is the difference to {expected}: {why}")
        self.vdi = vdi
        self.source = source
        self.expected = expected
        self.got = got
        self.is_behind = is_behind


class NoReplica(Incompatible):
    """Nothing can be applied to ``vdi``, because it is no replica; ``reason`` says why."""

    def __init__(self, vdi: str, reason: str) -> None:
        super().__init__(f"nothing can be applied to VDI '{vdi}': {reason}")
        self.vdi = vdi
        self.reason = reason


class ReplicaWritten(Incompatible):
    """Somebody wrote to ``vdi``, or resized it, since ``snapshot`` (in words); ``objects`` of its objects differ."""

    def __init__(self, vdi: str, snapshot: str, objects: int) -> None:
        how = f"written to ({objects} objects differ)" if objects else "resized"
        super().__init__(f"VDI '{vdi}' was {how} since {snapshot}, so it does not equal that")
        self.vdi = vdi
        self.snapshot = snapshot
        self.objects = objects


class PartlyApplied(Incompatible):
    """``base`` already holds what the backups ``applied``, oldest first, lead to.

    That is ``identity`` (an ``asyncbackup.format.identity.Identity``).
    """

    def __init__(self, base: str, identity: Any, applied: Sequence[str]) -> None:
        super().__init__(f"{base} holds {identity}, to which {applied[-1]} leads")
        self.base = base
        self.identity = identity
        self.applied = tuple(applied)


class OutsideVdi(Incompatible):
    """Object ``idx`` of a backup does not lie within the VDI's ``size`` in bytes."""

    def __init__(self, idx: int, size: int) -> None:
        super().__init__(f"the backup has an object {idx}, which does not lie within {size} bytes")
        self.idx = idx
        self.size = size
