"""Lists the backups in a folder, and which goes on which; finds the chain that leads to a snapshot."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from asyncbackup.engine.catalog import Catalog, State, below
from asyncbackup.engine.selection import Beginning, Placed, choose_chain, find_contested, place_all
from asyncbackup.engine.survey import find_damaged, survey
from asyncbackup.errors import ChainGap, NotStored, SourceUnreadable
from asyncbackup.format.identity import Identity
from asyncbackup.storage import Access


@dataclass(frozen=True, slots=True)
class Listing:
    """What is stored in a folder."""

    catalog: Catalog
    placed: tuple[Placed, ...]
    """Each backup; behind the one that it stands on."""

    @property
    def size(self) -> int:
        """Bytes of all backups."""
        return sum(each.size for each in self.catalog.backups)

    @property
    def missing(self) -> list[Identity]:
        """The snapshots that increments are the difference to, and that no backup is of."""
        found: dict[tuple[str, str, str | None], Identity] = {}
        for each in self.placed:
            base = each.backup.subject.base_identity
            if each.beginning is Beginning.GAP and each.before is None and base is not None:
                found.setdefault((base.vdi, base.vdi_id, base.created), base)
        return list(found.values())

    def as_dict(self) -> dict[str, Any]:
        """Give the facts for a machine."""
        return {
            "folder": self.catalog.folder,
            "bytes": self.size,
            "backups": [_as_dict(each) for each in sorted(self.placed, key=lambda each: each.backup.name)],
            "others": [each.as_dict() for each in self.catalog.others],
        }


def _as_dict(placed: Placed) -> dict[str, Any]:
    backup = placed.backup
    return (
        {"file": backup.name, "file_bytes": backup.size}
        | backup.subject.as_dict()
        | {
            "may_lack": backup.subject.may_lack,
            "on": None if placed.before is None else placed.before.backup.name,
            "restorable": placed.beginning is Beginning.FULL,
            "chain_bytes": placed.cost.size,
        }
    )


async def list_backups(
    folder: str | os.PathLike[str], *, vdi: str | None = None, access: Access | None = None
) -> Listing:
    """List the backups in ``folder``, and in the folders in it, by what their manifests say; perhaps those of one VDI.

    No data is read: what is listed is not proved. Raises SourceMissing, FolderNeeded,
    SourceUnreadable, and NotStored if there is no backup of ``vdi``.
    """
    catalog = await survey(os.fspath(folder), access)
    if vdi is not None:
        existing = sorted({each.subject.vdi for each in catalog.backups})
        only = catalog.only(vdi)
        if not only.backups and not only.others:
            with _heeding_unread(catalog):
                raise NotStored(catalog.folder, f"VDI '{vdi}'", existing, catalog.count(State.ENCRYPTED))
        catalog = only
    return Listing(catalog, tuple(place_all(catalog.backups)))


@contextmanager
def _heeding_unread(catalog: Catalog) -> Iterator[None]:
    """Raise SourceUnreadable if something is missing, and a manifest that could not be read may be of that."""
    try:
        yield
    except (NotStored, ChainGap) as error:
        for each in catalog.others:
            if each.state is State.UNREADABLE and each.manifest is not None:
                name = below(catalog.folder, each.manifest)
                raise SourceUnreadable(name, f"{each.problem}; without it, {error}") from error
        raise


async def find_chain(
    folder: str | os.PathLike[str],
    snapshot: str,
    *,
    base: Identity | str | None = None,
    access: Access | None = None,
) -> list[str]:
    """Find the backups in ``folder`` that lead to ``snapshot`` with the least to read, and give their paths.

    They are in order, the oldest first, and begin with a full backup, or on ``base``. A snapshot is named by its tag,
    its id (all digits) or its time, perhaps behind ``VDI:``. No data is read. But where there are several ways, one
    that leads over a file of another size than its manifest says is taken only if all do.

    Raises NotStored if there is no backup of it, SnapshotAmbiguous, ChainGap if nothing leads there, SourceMissing, and
    SourceUnreadable, also where a manifest that cannot be read may be of what is missing; where there are several ways,
    what opening a backup raises as well.
    """
    catalog = await survey(os.fspath(folder), access)
    with _heeding_unread(catalog):
        chain = choose_chain(catalog, snapshot, base)
    judged = set[str]()
    while doubtful := [each for each in find_contested(catalog, chain) if each.name not in judged]:
        judged |= {each.name for each in doubtful}
        if damaged := await find_damaged(catalog.folder, doubtful, access):
            catalog = catalog.with_damaged(damaged)
            chain = choose_chain(catalog, snapshot, base)
    return [below(catalog.folder, each.name) for each in chain]
