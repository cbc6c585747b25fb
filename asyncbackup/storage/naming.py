"""Tells from the name of a file what it is beside other files. Pure: nobody knows what is in the file.

``publication`` says which names there are, and when.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final, NamedTuple

from asyncbackup.storage.image import MARKER, STATE
from asyncbackup.storage.publication import JOURNAL, MANIFEST


class Part(Enum):
    """What a file is, by its name."""

    DATA = auto()
    """Anything: a backup, an image, or another file."""
    MANIFEST = auto()
    """The manifest of a backup that has its name."""
    OF_IMAGE = auto()
    """What says of an image what it equals, or what is being applied to it."""
    UNFINISHED = auto()
    """What is being written, or was when something ended that."""
    UNFINISHED_MANIFEST = auto()
    """The manifest of a backup that another run can go on with."""
    DUE_MANIFEST = auto()
    """A complete manifest that waits for its backup to get its name."""
    LEFTOVER = auto()
    """A lock, a journal, or what else belongs to a run."""


class Named(NamedTuple):
    """What a file is, and the name that the file to which it belongs has, or would have."""

    part: Part
    owner: str


_HIDDEN: Final = (
    (f".partial{MANIFEST}", Part.UNFINISHED_MANIFEST),
    (f"{MANIFEST}.new", Part.DUE_MANIFEST),
    *((f"{ending}.partial", Part.LEFTOVER) for ending in (MANIFEST, JOURNAL, STATE, MARKER)),
    (f".partial{JOURNAL}", Part.LEFTOVER),
    (".partial", Part.UNFINISHED),
    *((ending, Part.LEFTOVER) for ending in (".new", ".old", ".lock")),
)
"""The endings of hidden names. The first that fits counts."""

_VISIBLE: Final = ((MANIFEST, Part.MANIFEST), (STATE, Part.OF_IMAGE), (MARKER, Part.OF_IMAGE))

_RESTORE: Final = ".restore-"
"""Stands in the name of the journal of a restore, which ends like that of a backup in the making."""


def identify_name(path: str) -> Named:
    """Tell what the file at ``path`` is. The owner stands in the same folder."""
    folder, slash, name = path.rpartition("/")
    if name.startswith("."):
        found = next(((ending, part) for ending, part in _HIDDEN if name.endswith(ending)), None)
        if found is not None:
            ending, part = found
            owner = name[1 : -len(ending)]
            is_journal = part is Part.UNFINISHED and _RESTORE in owner
            return Named(Part.LEFTOVER if is_journal else part, folder + slash + owner)
    for ending, part in _VISIBLE:
        if name.endswith(ending) and name != ending:
            return Named(part, path.removesuffix(ending))
    return Named(Part.DATA, path)
