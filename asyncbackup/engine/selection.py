"""Finds out which backup goes on which, and chooses the chain that leads to a snapshot at the least cost. Pure.

Backups of one folder make a forest. A full backup begins a tree, and each increment stands on a backup of its base:
where there are several of that, on the one whose own chain costs least. What a chain costs is the sum over its backups,
so the search is Dijkstra's, from all beginnings at once. The cost of a step does not depend on where it comes from, so
the first backup that an increment can stand on is the best, and each is looked at once: links that lead in a circle end
by themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from heapq import heappop, heappush
from typing import NamedTuple

from asyncbackup.engine.catalog import Backup, Catalog, State, find_named, means
from asyncbackup.errors import ChainGap, NotStored, SnapshotAmbiguous
from asyncbackup.format.identity import Identity
from asyncbackup.format.manifest import Subject


class Beginning(Enum):
    """Why a chain begins with its first backup."""

    FULL = auto()
    """It is a full backup."""
    BASE = auto()
    """It is the difference to the base that was named."""
    GAP = auto()
    """Its base is in none of the backups."""
    CIRCLE = auto()
    """Its base is a backup that stands on it."""


class Cost(NamedTuple):
    """What a chain costs: less is better, the first difference decides."""

    incomplete: int = 0
    """Backups that may lack objects."""
    damaged: int = 0
    """Backups whose size is known to be wrong. One of them may be all that there is: then it is the one to tell of."""
    size: int = 0
    """Bytes to read."""
    backups: int = 0

    def plus(self, backup: Backup) -> Cost:
        return Cost(
            self.incomplete + backup.subject.may_lack,
            self.damaged + backup.is_damaged,
            self.size + backup.size,
            self.backups + 1,
        )


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Placed:
    """A backup, and the one that it stands on; None if a chain begins with it."""

    backup: Backup
    before: Placed | None
    beginning: Beginning
    """Why the chain begins where it does."""
    cost: Cost
    """Of the chain up to this backup."""

    def chain(self) -> list[Backup]:
        """Give the backups from the beginning to this one."""
        chain, place = [self.backup], self.before
        while place is not None:
            chain.append(place.backup)
            place = place.before
        return chain[::-1]


def place_all(backups: Sequence[Backup]) -> list[Placed]:
    """Place each of the backups: those that stand on full backups first, then those behind gaps, then circles."""
    search = _Search(backups)
    placed = list(search.place_from(search.full(), Beginning.FULL))
    placed += search.place_from(search.behind_gaps(), Beginning.GAP)
    for first in sorted(backups, key=lambda backup: (backup.identity.created or "", backup.name)):
        placed += search.place_from([first], Beginning.CIRCLE)
    return placed


def choose_chain(catalog: Catalog, snapshot: str, base: Identity | str | None = None) -> list[Backup]:
    """Choose the backups that lead to ``snapshot`` at the least cost, the oldest first: from a full one on, or a base.

    ``snapshot`` is a tag, an id (all digits) or a time, perhaps behind ``VDI:``. So is ``base``, if it is no identity.
    Raises NotStored, SnapshotAmbiguous, and ChainGap.
    """
    wanted = _find_wanted(catalog, snapshot)
    if isinstance(base, Identity) and base.matches(wanted):
        # Nothing has to lead there: whoever applies this finds that it is there already.
        of_it = [each for each in catalog.backups if each.identity.matches(wanted)]
        return [min(of_it, key=lambda backup: (backup.is_damaged, backup.subject.is_full, backup.size))]
    search = _Search(catalog.backups)
    if base is None:
        placed = search.place_from(search.full(), Beginning.FULL)
    else:
        placed = search.place_from(search.on_base(base), Beginning.BASE)
    # They come in the order of their costs.
    for each in placed:
        if each.backup.identity.matches(wanted):
            return each.chain()
    raise (
        _find_gap(catalog, wanted)
        if base is None
        else ChainGap(catalog.folder, str(wanted), needed=str(base), unread=catalog.count(State.ENCRYPTED))
    )


def find_contested(catalog: Catalog, chain: Sequence[Backup]) -> list[Backup]:
    """Give those of a chosen ``chain`` in whose place others could stand.

    That needs another backup of a snapshot in the chain. It may stand on others than the one in whose place it is.
    """
    counts = Counter(map(_snapshot_of, catalog.backups))
    last = max((place for place, each in enumerate(chain, 1) if counts[_snapshot_of(each)] > 1), default=0)
    return list(chain[:last])


def _snapshot_of(backup: Backup) -> tuple[str, str, str | None]:
    identity = backup.identity
    return identity.vdi, identity.vdi_id, identity.created


def _find_wanted(catalog: Catalog, snapshot: str) -> Identity:
    found = find_named(catalog.backups, snapshot)
    if not found:
        names = {(each.identity.created or "", name_of(each.identity)) for each in catalog.backups}
        existing = [name for _, name in sorted(names, reverse=True)]
        raise NotStored(catalog.folder, f"a snapshot '{snapshot}'", existing, catalog.count(State.ENCRYPTED))
    if len(found) > 1:
        raise SnapshotAmbiguous(catalog.folder, snapshot, _distinguish(found))
    return found[0]


def name_of(identity: Identity) -> str:
    """Name a snapshot so that ``choose_chain`` finds it, if no other one has the same name."""
    return f"{identity.vdi}:{identity.tag or identity.id}"


def _distinguish(found: Sequence[Identity]) -> list[str]:
    """Name each of the snapshots so that it is the only one with this name."""
    for names in ([name_of(each) for each in found], [f"{each.vdi}:{each.id}" for each in found]):
        if len({*names}) == len(found):
            return names
    return [f"{each.vdi}:{each.created}" for each in found]


def _find_gap(catalog: Catalog, wanted: Identity) -> ChainGap:
    """Say why no chain leads from a full backup to a snapshot that backups are of."""
    placed = next(each for each in place_all(catalog.backups) if each.backup.identity.matches(wanted))
    first = placed.chain()[0]
    missing = first.subject.base_identity
    assert missing is not None, "with a full backup there is a chain"
    spoilt = next((each for each in catalog.others if each.subject and each.subject.identity.matches(missing)), None)
    return ChainGap(
        catalog.folder,
        str(wanted),
        first=first.name,
        needed=str(missing),
        spoilt=None if spoilt is None else f"{spoilt.name} ({spoilt.state.value})",
        circle=[] if placed.beginning is Beginning.GAP else _find_circle(catalog.backups, first),
        unread=catalog.count(State.ENCRYPTED),
    )


def _find_circle(backups: Sequence[Backup], start: Backup) -> list[str]:
    """Go from ``start`` to what it stands on, and on, until one comes again. Give the names of those in between.

    Neither a full backup nor a gap may lie that way.
    """
    by_key: dict[_Key | None, list[Backup]] = {}
    for each in backups:
        by_key.setdefault(_own_key(each), []).append(each)
    places, backup = dict[str, int](), start
    while backup.name not in places:
        places[backup.name] = len(places)
        bases, cluster = by_key[_base_key(backup)], backup.subject.cluster
        backup = next(each for each in bases if cluster is None or each.subject.cluster in (cluster, None))
    return list(places)[places[backup.name] :]


_Key = tuple[str, str, str | None, int | None, int]
"""What backups that follow one another agree on, apart from the cluster, which not all say."""


def _key(identity: Identity, size: int | None, subject: Subject) -> _Key:
    return identity.vdi, identity.vdi_id, identity.created, size, subject.object_size


class _Search:
    """Places backups, each of them once."""

    def __init__(self, backups: Sequence[Backup]) -> None:
        self._backups = backups
        self._waiting: dict[_Key, dict[str | None, list[Backup]]] = {}
        """Increments that nothing was found for that they stand on, by their base: last by its cluster."""
        self._placed: set[str] = set()
        """Names."""
        for backup in backups:
            if (key := _base_key(backup)) is not None:
                self._waiting.setdefault(key, {}).setdefault(backup.subject.cluster, []).append(backup)

    def full(self) -> list[Backup]:
        return [each for each in self._backups if each.subject.is_full]

    def on_base(self, base: Identity | str) -> list[Backup]:
        """Give the increments on ``base``."""

        def is_it(found: Identity | None) -> bool:
            return found is not None and (means(found, base) if isinstance(base, str) else found.matches(base))

        return [each for each in self._backups if is_it(each.subject.base_identity)]

    def behind_gaps(self) -> list[Backup]:
        """Give the increments whose base none of the backups is of."""
        there: dict[_Key, set[str | None]] = {}
        for each in self._backups:
            there.setdefault(_own_key(each), set()).add(each.subject.cluster)

        def has_base(backup: Backup) -> bool:
            key = _base_key(backup)
            clusters = there.get(key, set()) if key is not None else {None}
            cluster = backup.subject.cluster
            return bool(clusters) and (cluster is None or not clusters.isdisjoint((cluster, None)))

        return [each for each in self._backups if not has_base(each)]

    def place_from(self, firsts: Iterable[Backup], beginning: Beginning) -> Iterator[Placed]:
        """Place ``firsts``, and what stands on them, in the order of their costs."""
        heap: list[tuple[Cost, str, Placed]] = []

        def push(backup: Backup, before: Placed | None) -> None:
            if backup.name not in self._placed:
                self._placed.add(backup.name)
                cost = (before.cost if before else Cost()).plus(backup)
                heappush(heap, (cost, backup.name, Placed(backup, before, beginning, cost)))

        for first in firsts:
            push(first, None)
        while heap:
            *_, placed = heappop(heap)
            yield placed
            for follower in self._take_followers(placed.backup):
                push(follower, placed)

    def _take_followers(self, backup: Backup) -> Iterator[Backup]:
        by_cluster = self._waiting.get(_own_key(backup), {})
        cluster = backup.subject.cluster
        for each in list(by_cluster) if cluster is None else (cluster, None):
            yield from by_cluster.pop(each, ())


def _own_key(backup: Backup) -> _Key:
    return _key(backup.identity, backup.subject.size, backup.subject)


def _base_key(backup: Backup) -> _Key | None:
    base = backup.subject.base_identity
    return None if base is None else _key(base, backup.subject.base_size, backup.subject)
