"""Finds the backups among files that were named in any order, for example with ``vm1.*``, and the order of a chain."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from asyncbackup.errors import BackupMissing, ChainBroken, HalfReplaced
from asyncbackup.format.decoder import Damage
from asyncbackup.format.manifest import MAX_LINE, ManifestDecoder, Subject
from asyncbackup.storage.backup_source import find_manifest
from asyncbackup.storage.image import MARKER, STATE
from asyncbackup.storage.publication import MANIFEST

_SUFFIXES: Final = (MANIFEST, STATE, MARKER)
"""The endings of files that belong to a backup or an image."""

_PARTIAL: Final = (".partial", f".partial{MANIFEST}", ".new", ".old", ".lock")
"""The endings of hidden files that belong to an unfinished one."""

_BEGINNINGS: Final = (b'{"manifest":', b'{"state":', b'{"rolling":')
_BEGINNING_SIZE: Final = max(map(len, _BEGINNINGS))


class Found(NamedTuple):
    """The files to read as backups, and the files that only belong to one of them."""

    backups: tuple[str, ...]
    left_out: tuple[str, ...]


def find_backups(files: Sequence[str]) -> Found:
    """Leave out manifests and other files that belong to backups and images. Blocks, but reads only a few bytes.

    Raises BackupMissing for a manifest whose backup is not among ``files``.
    """
    kept: list[str] = []
    left_out: list[str] = []
    for file in files:
        (left_out if _belongs_to_another(file, files) else kept).append(file)
    return Found(tuple(kept), tuple(left_out))


def _belongs_to_another(file: str, files: Sequence[str]) -> bool:
    name = Path(file).name
    if name.startswith(".") and name.endswith(_PARTIAL):
        return True
    suffix = next((suffix for suffix in _SUFFIXES if name.endswith(suffix)), None)
    if suffix is None:
        return False
    owner = file.removesuffix(suffix)
    if owner in files:
        return True
    if not _begins_as_ours(file):
        return False
    if suffix == MANIFEST:
        raise BackupMissing(file, owner, is_there=os.path.lexists(owner))
    return True


def _begins_as_ours(file: str) -> bool:
    try:
        path = Path(file)
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as content:
            return content.read(_BEGINNING_SIZE).startswith(_BEGINNINGS)
    except (OSError, ValueError):
        return False


def find_order(backups: Sequence[str], manifests: Sequence[str] = ()) -> list[int]:
    """Find the order in which ``backups`` follow one another: give their places, the oldest first.

    ``manifests`` are theirs, in the same order; by default they are the files beside them. The order stays the same if
    it is right, or if a backup has no good manifest. Blocks, and reads a few KiB for each. Raises ChainBroken if no
    order is right.
    """
    given = list(range(len(backups)))
    found = map(_read_subject, manifests) if manifests else map(_read_subject_beside, backups)
    subjects = [subject for subject in found if subject is not None]
    if len(subjects) < max(2, len(backups)):
        return given
    if all(_follows(newer, older) for older, newer in pairwise(subjects)):
        return given
    return _Files(tuple(backups), tuple(subjects)).order()


def _read_subject_beside(backup: str) -> Subject | None:
    try:
        path = None if backup in ("", "-") else find_manifest(backup)
    except (OSError, ValueError, HalfReplaced):
        # To read the backup itself will raise the error.
        return None
    return None if path is None else _read_subject(path)


def _read_subject(manifest: str | Path) -> Subject | None:
    """Read the first line of a manifest; None if it is none."""
    try:
        path = Path(manifest)
        if not stat.S_ISREG(path.stat().st_mode):
            return None
        with path.open("rb") as lines:
            decoded = ManifestDecoder().feed(lines.readline(MAX_LINE))
    except (OSError, ValueError, Damage):
        return None
    return decoded if isinstance(decoded, Subject) else None


def _follows(newer: Subject, older: Subject) -> bool:
    return newer.base_identity is not None and newer.base_identity.matches(older.identity)


class _Files(NamedTuple):
    """Backups, and the first lines of their manifests."""

    names: tuple[str, ...]
    subjects: tuple[Subject, ...]

    def order(self) -> list[int]:
        self._refuse_strangers()
        self._refuse_twins()
        places = range(len(self.names))
        next_of = {
            older: newer for older in places for newer in places if _follows(self.subjects[newer], self.subjects[older])
        }
        first = self._find_first([place for place in places if place not in next_of.values()])
        order = [first]
        while (following := next_of.get(order[-1])) is not None:
            order.append(following)
        if len(order) < len(self.names):
            raise self._broken("they do not follow one another")
        return order

    def _refuse_strangers(self) -> None:
        for name, subject in zip(self.names, self.subjects, strict=True):
            if subject.vdi != self.subjects[0].vdi:
                raise ChainBroken(f"{self.names[0]} is of VDI '{self.subjects[0].vdi}', but {name} of '{subject.vdi}'")

    def _refuse_twins(self) -> None:
        """Refuse two backups that would have the same place in the chain."""
        for place, subject in enumerate(self.subjects):
            for other in range(place):
                pair = f"{self.names[other]} and {self.names[place]} are both"
                if subject.identity.matches(self.subjects[other].identity):
                    raise ChainBroken(f"{pair} of {subject.identity}")
                bases = subject.base_identity, self.subjects[other].base_identity
                if bases == (None, None):
                    raise self._broken(f"{pair} full backups, which begin a chain each")
                if bases[0] is not None and bases[1] is not None and bases[0].matches(bases[1]):
                    raise ChainBroken(f"{pair} the difference to {bases[0]}")

    def _find_first(self, candidates: list[int]) -> int:
        if len(candidates) == 1:
            return candidates[0]
        missing = [place for place in candidates if self.subjects[place].base_identity is not None]
        if len(candidates) == len(missing):
            # If all are increments, the base of the oldest need not be a file. Only the others lack one.
            missing = sorted(missing, key=self._time)[1:]
        if not missing:
            raise self._broken("they do not follow one another")
        lacking = missing[0]
        raise self._broken(
            f"{self.names[lacking]} is the difference to {self.subjects[lacking].base_identity}, "
            "and none of the files is of that"
        )

    def _broken(self, problem: str) -> ChainBroken:
        names = [self.names[place] for place in sorted(range(len(self.names)), key=self._time)]
        return ChainBroken(f"{problem}; by the time of their snapshots they are {', '.join(names)}")

    def _time(self, place: int) -> tuple[bool, str]:
        created = self.subjects[place].identity.created
        return created is None, created or ""
