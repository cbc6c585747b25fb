"""Backups that do not follow one another, or do not stand on the base that was named."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from asyncbackup.errors.incompatible import Incompatible
from asyncbackup.errors.root import AsyncBackupError
from asyncbackup.errors.wording import list_names, name_unread


class ChainBroken(AsyncBackupError):
    """Two files do not follow one another."""


class ChainGap(ChainBroken):
    """No chain of backups in ``folder`` leads to ``snapshot`` (in words).

    ``first`` is the oldest backup on the way, and ``needed`` (in words) what it is the difference to. ``first`` None:
    nothing leads there from the base ``needed``, which was named. ``spoilt`` is of that, and why it is of no use.
    ``circle``: each of these is the difference to what the next one is of, and the last to what the first one is of.
    ``unread`` is how many backups could not be decrypted, one of which may be what is missing.
    """

    def __init__(
        self,
        folder: str,
        snapshot: str,
        *,
        needed: str,
        first: str | None = None,
        spoilt: str | None = None,
        circle: Sequence[str] = (),
        unread: int = 0,
    ) -> None:
        what = f"no backups in {folder} lead from {needed} to {snapshot}"
        if circle:
            told = list_names("these go on one another in a circle:", circle, "", complete=True)
            what = f"no backups in {folder} lead to {snapshot}: {told}"
        elif first is not None:
            gap = f"{first} is the difference to {needed}, and no backup there is of that"
            what = f"no backups in {folder} lead to {snapshot}: {gap}{f', except for {spoilt}' if spoilt else ''}"
        super().__init__(what + name_unread(unread))
        self.folder = folder
        self.first = first
        self.needed = needed
        self.circle = tuple(circle)
        self.unread = unread


class BaseUnnamed(Incompatible):
    """``source`` is the difference to ``base`` (in words), and no base was named."""

    def __init__(self, source: str, base: str) -> None:
        super().__init__(f"{source} is the difference to {base}, and no base was named")
        self.source = source
        self.base = base


class BaseUnwanted(Incompatible):
    """``source`` is a full backup, and a base was named."""

    def __init__(self, source: str) -> None:
        super().__init__(f"{source} is a full backup, which stands on no base")
        self.source = source


class IncrementNeeded(Incompatible):
    """``source`` is a full backup, and was to be applied to VDI ``vdi``."""

    def __init__(self, source: str, vdi: str) -> None:
        super().__init__(f"{source} is a full backup, and only increments can be applied to VDI '{vdi}'")
        self.source = source
        self.vdi = vdi


class BaseUnproved(Incompatible):
    """Nothing proves that ``base`` is what ``source`` is the difference to; ``doubt`` tells what is missing."""

    def __init__(self, source: str, base: str, doubt: str) -> None:
        super().__init__(f"nothing proves that {base} is what {source} is the difference to: {doubt}")
        self.source = source
        self.base = base
        self.doubt = doubt


class Relation(StrEnum):
    """What a snapshot is to a backup, in words that follow the name of the backup."""

    BASE = "is the difference to"
    CONTENT = "is a backup of"


class WrongSnapshot(Incompatible):
    """``name`` is not the snapshot that has this ``relation`` to the backup ``source``: ``got`` is not ``expected``.

    Both are an ``asyncbackup.format.identity.Identity``, or both are sizes in bytes. ``can_be_assumed``: ``name`` may
    hold the same bytes nevertheless, as a restored VDI does.
    """

    def __init__(
        self, source: str, relation: Relation, name: str, expected: Any, got: Any, *, can_be_assumed: bool = False
    ) -> None:
        unit = " bytes" if isinstance(expected, int) else ""
        super().__init__(f"{name} is not what {source} {relation.value}: expected {expected}{unit}, got {got}")
        self.source = source
        self.relation = relation
        self.name = name
        self.expected = expected
        self.got = got
        self.can_be_assumed = can_be_assumed


class NotMergeable(Incompatible):
    """Between the first and the last of ``backups`` the VDI was smaller: one backup cannot say what was cut off."""

    def __init__(self, backups: Sequence[str]) -> None:
        super().__init__(
            f"the VDI was smaller between {backups[0]} and {backups[-1]}, which cut off objects of the base: "
            "no single backup can say that"
        )
        self.backups = tuple(backups)


class SampleNeedsBase(Incompatible):
    """A sample of ``source`` needs the snapshot that it is the difference to, and the cluster does not have it.

    ``base`` is that snapshot's ``asyncbackup.format.identity.Identity``.
    """

    def __init__(self, source: str, base: Any) -> None:
        super().__init__(f"a sample of {source} needs {base}, and this cluster has no such snapshot any more")
        self.source = source
        self.base = base
