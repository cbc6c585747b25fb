"""What cannot be done as it was asked for, except for what is about pieces, chains, or applying backups."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from asyncbackup.errors.root import AsyncBackupError
from asyncbackup.errors.wording import list_indices, list_names


class Incompatible(AsyncBackupError):
    """What was asked for cannot be done with what was named. It is raised only as one of its kinds."""


class Fact(StrEnum):
    """What a manifest says of a backup, in words that follow "says"."""

    FORMAT = "which format the backup has"
    OBJECT_SIZE = "how large the objects are"
    VDI_SIZE = "how large the VDI is"
    VDI_NAME = "which VDI was backed up"
    BASE = "what the backup is the difference to"


class FactMissing(Incompatible):
    """``fact`` is needed, and neither a manifest nor the caller says it."""

    def __init__(self, fact: Fact) -> None:
        super().__init__(f"no manifest says {fact.value}")
        self.fact = fact


class SnapshotAmbiguous(Incompatible):
    """Several snapshots that ``folder`` has backups of are called ``snapshot``. ``choices`` are names of one each."""

    def __init__(self, folder: str, snapshot: str, choices: Sequence[str]) -> None:
        listed = list_names("they are", choices, "nothing tells them apart", complete=True)
        super().__init__(f"several snapshots in {folder} may be meant by '{snapshot}'; {listed}")
        self.folder = folder
        self.snapshot = snapshot
        self.choices = tuple(choices)


class BackupIncomplete(Incompatible):
    """``source`` lacks the objects ``missing``, by idx, which could not be read when it was made."""

    def __init__(self, source: str, missing: Sequence[int]) -> None:
        what = "1 object" if len(missing) == 1 else f"{len(missing)} objects"
        super().__init__(f"{source} is incomplete: {what} could not be read for it: {list_indices(missing)}")
        self.source = source
        self.missing = tuple(missing)


class ObjectSizesDiffer(Incompatible):
    """``name`` has objects of ``expected`` bytes, and ``other``, which is used with it, of ``got`` bytes."""

    def __init__(self, name: str, expected: int, other: str, got: int) -> None:
        super().__init__(f"{name} has objects of {expected} bytes, and {other} of {got} bytes")
        self.name = name
        self.expected = expected
        self.other = other
        self.got = got


class ContradictsManifest(Incompatible):
    """The caller says another ``fact`` of ``source`` than its manifest, which says ``expected``."""

    def __init__(self, source: str, fact: Fact, expected: object, got: object) -> None:
        super().__init__(f"{source}: its manifest says {fact.value}: expected {expected}, got {got}")
        self.source = source
        self.fact = fact
        self.expected = expected
        self.got = got


class FileNeeded(Incompatible):
    """``source`` is read only once, in order, but that is not enough. ``purpose`` says for what, such as "to apply it".

    ``layer``: what makes it so, ``age`` or ``zstd``; None: it is a pipe.
    """

    def __init__(self, source: str, purpose: str, layer: str | None = None) -> None:
        super().__init__(f"{source} is {_READ_ONCE[layer]}, and {purpose} it has to be read twice")
        self.source = source
        self.purpose = purpose
        self.layer = layer


_READ_ONCE: Final = {
    None: "a pipe",
    "age": "encrypted, so that it is only read in order",
    "zstd": "compressed without a seek table, so that it is only read in order",
}


class FolderNeeded(Incompatible):
    """``source`` is a file, and a folder with backups is expected."""

    def __init__(self, source: str) -> None:
        super().__init__(f"expected a folder, got the file {source}")
        self.source = source


class HyperVolume(Incompatible):
    """``name`` is a hyper volume, or would be one. ``limit`` says what this means, such as "cannot be restored"."""

    def __init__(self, name: str, limit: str) -> None:
        super().__init__(f"{name} is a hyper volume, which {limit}")
        self.name = name
        self.limit = limit


class PlacementUnknown(Incompatible):
    """It is not known which nodes hold the replicas of objects; ``doubt`` says why."""

    def __init__(self, doubt: str) -> None:
        super().__init__(f"it is not known which nodes hold the replicas: {doubt}")
        self.doubt = doubt


class VdiUnmakeable(Incompatible):
    """No VDI can be made as it was asked for: ``got`` in place of ``expected``, both in words."""

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f"no such VDI can be made: expected {expected}, got {got}")
        self.expected = expected
        self.got = got


class BegunOtherwise(Incompatible):
    """The unfinished backup ``target`` was begun with another ``field`` than is asked for now.

    ``begun`` and ``asked`` are the values, as a manifest has them.
    """

    def __init__(self, target: str, field: str, begun: object, asked: object) -> None:
        super().__init__(f"{target}: what is unfinished was begun with another {field}: expected {asked}, got {begun}")
        self.target = target
        self.field = field
        self.begun = begun
        self.asked = asked


class SharedOtherwise(BegunOtherwise):
    """VDI ``vdi`` is being restored in shards, with another ``field`` than is asked for here."""

    def __init__(self, vdi: str, field: str, begun: object, asked: object) -> None:
        super().__init__(f"VDI '{vdi}'", field, begun, asked)
        self.vdi = vdi


class MemoryTooSmall(Incompatible):
    """There is not memory for one step of the work. ``needed`` and ``given`` in bytes."""

    def __init__(self, needed: int, given: int) -> None:
        super().__init__(f"expected at least {needed} bytes of memory for this work, got {given}")
        self.needed = needed
        self.given = given


class ObjectsTooLarge(Incompatible):
    """Several machines restore no objects of ``size`` bytes, which are more than ``most``, those of one request."""

    def __init__(self, size: int, most: int) -> None:
        super().__init__(f"several machines restore objects of {most} bytes at most, these have {size} bytes")
        self.size = size
        self.most = most


class PatchNeeded(Incompatible):
    """A backup of format ``dialect`` cannot be written where its beginning is not written again, such as a pipe."""

    def __init__(self, dialect: str) -> None:
        super().__init__(f"a {dialect} backup is completed at its beginning, so it needs a plain file")
        self.dialect = dialect


class KeyUnusable(Incompatible):
    """``name`` is no key that can be used; ``problem`` says why, and shows nothing of a private key."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name} {problem}")
        self.name = name
        self.problem = problem


class StoreMisconfigured(Incompatible):
    """The options, the environment and the profiles make no object store that can be used. No message shows a value."""


class RedundancyUnkeepable(Incompatible):
    """The cluster of ``nodes`` nodes cannot keep ``copies`` copies of each object, or knows no ``copy_policy``.

    ``nodes`` is None where only the policy is at fault; ``copy_policy`` is 0 without erasure coding.
    """

    def __init__(self, copies: int, copy_policy: int = 0, nodes: int | None = None) -> None:
        if nodes is None:
            problem = f"the VDI is to have erasure coding (0x{copy_policy:02x}), which this cluster does not know"
        else:
            has = "only one node" if nodes == 1 else f"{nodes} nodes"
            problem = f"the VDI is to keep {copies} copies of each object, but the cluster has {has} for them"
        super().__init__(problem)
        self.copies = copies
        self.copy_policy = copy_policy
        self.nodes = nodes
