"""What is read: files, and the bytes in them."""

from __future__ import annotations

from collections.abc import Sequence

from asyncbackup.errors.root import AsyncBackupError


class SourceError(AsyncBackupError):
    """What a backup is read from (``source``: a path, or the name of a pipe) is at fault."""

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(f"{source}: {problem}")
        self.source = source
        self.problem = problem


class SourceUnreadable(SourceError):
    """The file cannot be opened or read."""


class BackupDamaged(SourceError):
    """At ``offset`` the bytes of ``source`` are not those of a backup, or of a manifest."""

    def __init__(self, source: str, offset: int, problem: str) -> None:
        super().__init__(source, f"at offset {offset}: {problem}")
        self.offset = offset


class BackupCompressed(BackupDamaged):
    """``source`` is no backup: the program ``compression`` made it."""

    def __init__(self, source: str, compression: str) -> None:
        super().__init__(source, 0, f"this is compressed with {compression} and must be decompressed first")
        self.compression = compression


class NotDecrypted(SourceError):
    """``source`` is encrypted, and it stays so: ``problem`` says why. ``recipients`` says who can read it, in words.

    ``lacks_identity``: no private key was named at all.
    """

    def __init__(
        self, source: str, problem: str, recipients: Sequence[str] = (), *, lacks_identity: bool = False
    ) -> None:
        who = f"; it is for {', '.join(recipients)}" if recipients else ""
        super().__init__(source, f"{problem}{who}")
        self.recipients = tuple(recipients)
        self.lacks_identity = lacks_identity


class FormatUnclear(BackupDamaged):
    """``source`` begins like a backup of either format, and is complete in neither."""

    def __init__(self, source: str, offset: int) -> None:
        super().__init__(source, offset, "this may be of either format")


class StateDamaged(BackupDamaged):
    """``source`` stands beside an image to say what the image is, but its bytes are no such statement."""

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(source, 0, f"this is no state of an image: {problem}")


class DigestMismatch(SourceError):
    """The data of object ``idx`` is not the data that the backup was made with."""

    def __init__(self, source: str, idx: int, expected: str, got: str) -> None:
        super().__init__(source, f"the data of object {idx} was changed: expected digest {expected}, got {got}")
        self.idx = idx


class BaseMismatch(SourceError):
    """Object ``idx`` of the base is not what the backup ``source`` was made against."""

    def __init__(self, source: str, idx: int, base: str) -> None:
        super().__init__(source, f"{base} does not hold at object {idx} what this backup was made against")
        self.idx = idx
        self.base = base


class BaseNeeded(SourceError):
    """Only the base has ``length`` bytes at ``offset`` of object ``idx``, and they are needed."""

    def __init__(self, source: str, idx: int, offset: int, length: int) -> None:
        super().__init__(
            source, f"object {idx} lacks {length} bytes at {offset} that only the base of the first backup has"
        )
        self.idx = idx
        self.offset = offset
        self.length = length


class ManifestMissing(SourceError):
    """The backup has no manifest, which would say what was backed up, and prove it."""

    def __init__(self, source: str) -> None:
        super().__init__(source, "it has no manifest, so nothing proves what it is a backup of and what it follows")


class ResultsDamaged(SourceError):
    """``source`` does not hold results of a benchmark that can be read."""
