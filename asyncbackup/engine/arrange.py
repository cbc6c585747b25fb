"""Finds the backups among files that were named in any order, for example with ``vm1.*``, and the order of a chain."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from asyncbackup.client.fan_out import for_each
from asyncbackup.engine.manifest import read_subject
from asyncbackup.errors import AsyncBackupError, BackupMissing, ChainBroken, SourceMissing
from asyncbackup.format.manifest import Subject
from asyncbackup.storage import Access
from asyncbackup.storage.backup_source import open_manifest, open_stored
from asyncbackup.storage.naming import Part, identify_name

_BEGINNINGS: Final = (b'{"manifest":', b'{"state":', b'{"rolling":')
_BEGINNING_SIZE: Final = max(map(len, _BEGINNINGS))


class Found(NamedTuple):
    """The files to read as backups, and the files that only belong to one of them."""

    backups: tuple[str, ...]
    left_out: tuple[str, ...]


async def find_backups(files: Sequence[str], access: Access | None = None) -> Found:
    """Leave out manifests and other files that belong to backups and images. It reads only a few bytes.

    Raises BackupMissing for a manifest whose backup is not among ``files``.
    """
    kept: list[str] = []
    left_out: list[str] = []
    named = frozenset(files)
    for file in files:
        (left_out if await _belongs_to_another(file, named, access) else kept).append(file)
    return Found(tuple(kept), tuple(left_out))


async def _belongs_to_another(file: str, files: frozenset[str], access: Access | None) -> bool:
    part, owner = identify_name(file)
    if part not in (Part.MANIFEST, Part.OF_IMAGE):
        return part is not Part.DATA
    if owner in files:
        return True
    if not await _begins_as_ours(file, access):
        return False
    if part is Part.MANIFEST:
        raise BackupMissing(file, owner, is_there=await is_there(owner, access))
    return True


async def _begins_as_ours(file: str, access: Access | None) -> bool:
    try:
        async with open_stored(file, access, only_glances=True) as content:
            return (await content.peek(_BEGINNING_SIZE)).startswith(_BEGINNINGS)
    except AsyncBackupError:
        return False


async def is_there(file: str, access: Access | None) -> bool:
    """Tell whether there is a file or an object of this name, perhaps one that cannot be read."""
    try:
        async with open_stored(file, access, only_glances=True):
            return True
    except SourceMissing:
        return False
    except AsyncBackupError:
        return True


async def find_order(backups: Sequence[str], manifests: Sequence[str] = (), access: Access | None = None) -> list[int]:
    """Find the order in which ``backups`` follow one another: give their places, the oldest first.

    ``manifests`` are theirs, in the same order; by default they are the files beside them. The order stays the same if
    it is right, or if a backup has no good manifest or is only a piece. It reads a few KiB of each manifest. Raises
    ChainBroken if no order is right.
    """
    given = list(range(len(backups)))
    access = (access or Access()).sharing_stores()
    if len(backups) < 2:
        return given
    found: dict[int, Subject] = {}

    async def look_at(place: int) -> None:
        subject = await _find_subject(backups[place], manifests[place] if manifests else None, access)
        if subject is not None:
            found[place] = subject

    await for_each(given, look_at)
    if len(found) < len(backups):
        return given
    subjects = [found[place] for place in given]
    # A piece stands in no chain. Whoever needs a whole backup refuses it by name.
    if any(subject.piece for subject in subjects):
        return given
    if all(_follows(newer, older) for older, newer in pairwise(subjects)):
        return given
    return _Files(tuple(backups), tuple(subjects)).order()


async def _find_subject(backup: str, manifest: str | None, access: Access | None) -> Subject | None:
    try:
        async with open_manifest(backup, manifest=manifest, access=access, only_glances=True) as opened:
            return None if opened is None else await read_subject(opened)
    except (AsyncBackupError, ValueError):
        # To read the backup itself will raise the error.
        return None


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
