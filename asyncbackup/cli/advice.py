"""What to type next after an error: the only place that knows which option of the command line mends what."""

from __future__ import annotations

import shlex
from typing import Final

from asyncbackup.errors import (
    AsyncBackupError,
    BackupCompressed,
    BaseNeeded,
    BaseUnnamed,
    BaseUnproved,
    CopiesUnkeepable,
    ErasureCodingUnknown,
    Fact,
    FactMissing,
    FormatUnclear,
    HalfReplaced,
    HalfRolled,
    LeftUnfinished,
    ManifestMissing,
    OtherImage,
    OutsideVdi,
    PatchNeeded,
    PerhapsCreated,
    SampleNeedsBase,
    StateDamaged,
    TargetExists,
    UnfinishedExists,
    WrongSnapshot,
)

_OF_FACT: Final = {
    Fact.OBJECT_SIZE: "give --object-size",
    Fact.VDI_SIZE: "give --size",
    Fact.VDI_NAME: "name it with --base-vdi",
}


_BY_ERROR: Final[dict[type[AsyncBackupError], str]] = {
    TargetExists: "use another name, or --force to replace it",
    OutsideVdi: "say with --size how large the VDI is",
    FormatUnclear: "say which with --input-format",
    PatchNeeded: "use --format dog",
    CopiesUnkeepable: "say with --copies how many to keep instead",
    ErasureCodingUnknown: "say with --copies how many copies to keep instead",
    BaseUnnamed: (
        "name the backups before it as well, from the full one on, or that snapshot with --base or an image of it "
        "with --base-image"
    ),
    BaseNeeded: "name that base with --base, or an image of it with --base-image",
    BaseUnproved: "if you know that it is, say so with --assume-base",
    HalfRolled: (
        "to finish, run the interrupted command again; to make it anew, use `export --force`, without --base-image, "
        "on a full backup and its increments"
    ),
    OtherImage: "use `export --force`, without --base-image, on a full backup and its increments",
    StateDamaged: "if you know what the image is, remove that file, not the image, and say so with --assume-base",
    SampleNeedsBase: "leave --sample out",
    ManifestMissing: "name the manifests with --manifest, once for each FILE, or vouch for FILEs with --assume-base",
}


def advice(error: AsyncBackupError) -> str | None:
    """Tell what to type after ``error``; None where the message says all there is."""
    if isinstance(error, FactMissing):
        return _OF_FACT[error.fact]
    if isinstance(error, BackupCompressed):
        return _decompression(error)
    if isinstance(error, HalfReplaced):
        return f"{shlex.join(['mv', '--', error.source, error.place])} finishes it, as does the next run that writes it"
    return _of_vdi(error) or next((text for kind, text in _BY_ERROR.items() if isinstance(error, kind)), None)


def _decompression(error: BackupCompressed) -> str:
    decompress = f"{error.compression} -dc"
    if error.source == "-":
        return f"put `{decompress} |` before this command"
    return f"`{decompress} {shlex.quote(error.source)} | asyncbackup … -` reads it"


def _of_vdi(error: AsyncBackupError) -> str | None:
    if isinstance(error, PerhapsCreated):
        delete = shlex.join(["dog", "vdi", "delete", error.vdi])
        return f"look with `asyncbackup vdi list`: if it is there, and nobody else made it, `{delete}` removes it"
    if isinstance(error, LeftUnfinished | UnfinishedExists):
        return f"`{shlex.join(['asyncbackup', 'restore', '--discard', error.vdi])}` removes it"
    if isinstance(error, WrongSnapshot):
        return (
            "if that VDI was made of it, say so with --assume-base"
            if error.can_be_assumed
            else "name the right one with -s, or leave -s out"
        )
    return None


def with_advice(error: AsyncBackupError) -> str:
    """Give what ``error`` says, and what to type next."""
    what_next = advice(error)
    return f"{error}; {what_next}" if what_next else str(error)
