"""What is written to."""

from __future__ import annotations

from asyncbackup.errors.root import AsyncBackupError


class TargetError(AsyncBackupError):
    """What is written to (``target``: a path, or the name of a pipe) is at fault."""

    def __init__(self, target: str, problem: str) -> None:
        super().__init__(f"{target}: {problem}")
        self.target = target
        self.problem = problem


class TargetExists(TargetError):
    """A file of this name exists, and nobody asked to replace it."""

    def __init__(self, target: str) -> None:
        super().__init__(target, "exists already")


class TargetBusy(TargetError):
    """``owner``, such as ``process 4711 on vm1``, is writing this file or a file that belongs to it.

    ``since``: the time in UTC at which it began, if it says it.
    """

    def __init__(self, target: str, owner: str, since: str | None = None) -> None:
        super().__init__(target, f"{owner} is writing it" + (f" since {since}" if since else ""))
        self.owner = owner
        self.since = since


class TargetUnfinished(TargetError):
    """An interrupted run left an unfinished backup of ``size`` bytes in ``partial``. Another run can go on with it."""

    def __init__(self, target: str, partial: str, size: int) -> None:
        super().__init__(target, f"an interrupted run left {size} bytes of it, unfinished, in {partial}")
        self.partial = partial
        self.size = size


class NotResumable(TargetError):
    """The caller wants to resume, but nothing of this target is ever kept; ``reason`` says why."""

    def __init__(self, target: str, reason: str) -> None:
        super().__init__(target, f"cannot be resumed: {reason}")
        self.reason = reason


class PartialDamaged(TargetError):
    """What an interrupted run left in ``partial`` does not say what was begun; ``damage`` says what is wrong."""

    def __init__(self, target: str, partial: str, damage: str) -> None:
        super().__init__(target, f"what an interrupted run left of it cannot be gone on with: {partial}: {damage}")
        self.partial = partial
        self.damage = damage


class OwnInput(TargetError):
    """Writing this file would replace ``source``, which is read."""

    def __init__(self, target: str, source: str) -> None:
        super().__init__(target, f"writing it would replace {source}, which is read for it")
        self.source = source


class ManifestUnplaced(TargetError):
    """The manifest of a file should go to another place than beside the file."""

    def __init__(self, target: str) -> None:
        super().__init__(target, "the manifest of a file stands beside the file: only that of a pipe can go elsewhere")


class TargetUnusable(TargetError):
    """The target cannot be opened for writing."""


class TargetFull(TargetError):
    """The target's file system, quota or size limit is exhausted.

    ``needed``: how many bytes are missing at least. ``enough``: how many bytes more are always enough. None: not known.
    """

    needed: int | None = None
    enough: int | None = None


class TargetWriteFailed(TargetError):
    """Writing failed for another reason than space."""


class HalfReplaced(TargetError):
    """Replacing a file and what belongs to it was interrupted: ``source`` should be at ``place``."""

    def __init__(self, target: str, source: str, place: str) -> None:
        super().__init__(
            target,
            f"is half replaced: replacing it together with {place} was interrupted; what belongs there is {source}",
        )
        self.source = source
        self.place = place


class HalfRolled(TargetError):
    """Applying backups to an image in place was begun and not finished; ``marker`` beside it says so.

    ``cause`` is the error that ended it; None if that was in another run.
    """

    def __init__(self, target: str, marker: str, cause: AsyncBackupError | None = None) -> None:
        why = "applying backups to it was interrupted" if cause is None else str(cause)
        super().__init__(target, f"is half rolled: {why}")
        self.marker = marker
        self.cause = cause


class OtherImage(TargetError):
    """This is not, or may not be, the image that backups were applied to; ``marker`` beside it names that one."""

    def __init__(self, target: str, marker: str, doubt: str) -> None:
        super().__init__(target, f"cannot be finished: {doubt}; {marker} says so")
        self.marker = marker
        self.doubt = doubt
