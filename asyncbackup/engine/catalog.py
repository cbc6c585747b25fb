"""A catalog of what is stored in a folder: which backups there are, and what the other files are. Pure.

It says what names and the first lines of manifests say. What is in the files themselves is for ``verify``.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from asyncbackup.format.identity import Identity
from asyncbackup.format.manifest import Subject
from asyncbackup.storage.naming import Part, identify_name
from asyncbackup.storage.publication import MANIFEST


class State(StrEnum):
    """What is known of something that is stored."""

    GOOD = "good"
    """A backup whose manifest says what it is of."""
    PIECE = "piece"
    """A piece of a backup."""
    UNFINISHED = "unfinished"
    """A backup in the making, or one that something ended."""
    NO_DATA = "no data"
    """A manifest without its backup."""
    NO_MANIFEST = "no manifest"
    """A file without a manifest, so that nothing says what it is."""
    HALF_REPLACED = "half replaced"
    """A backup that a run which was interrupted has not yet given its manifest."""
    ENCRYPTED = "encrypted"
    """A backup whose manifest cannot be decrypted with the keys that there are."""
    DAMAGED = "damaged"
    """A backup whose manifest does not begin as one does."""
    UNREADABLE = "unreadable"
    """A backup whose manifest cannot be read, or a folder that cannot be."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Something that is stored: its name below the folder, and what its manifest says."""

    name: str
    size: int
    """Bytes of its data."""
    state: State
    manifest: str | None = None
    """The name of its manifest, if it has one."""
    subject: Subject | None = None
    problem: str | None = None
    """What is wrong with it, in words."""

    def as_dict(self) -> dict[str, Any]:
        """Give the facts for a machine."""
        said = {} if self.subject is None else self.subject.as_dict()
        return {"file": self.name, "file_bytes": self.size, "state": self.state.value, "problem": self.problem} | {
            name: said.get(name) for name in ("vdi", "cluster", "snapshot", "base")
        }


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that is there, with a manifest that says what it is of."""

    name: str
    size: int
    """Bytes of its data."""
    subject: Subject
    is_damaged: bool = False
    """Whether it is known to have more or fewer bytes than its manifest says."""

    @property
    def identity(self) -> Identity:
        return self.subject.identity


@dataclass(frozen=True, slots=True)
class Catalog:
    """What is stored in ``folder``: the backups, and what is none or cannot be used, both sorted by name."""

    folder: str
    backups: tuple[Backup, ...]
    others: tuple[Stored, ...]

    @classmethod
    def of(cls, folder: str, stored: Iterable[Stored]) -> Catalog:
        """Make the catalog of what was found."""
        backups, others = [], []
        for each in sorted(stored, key=lambda each: each.name):
            piece = each.subject.piece if each.subject is not None else None
            if each.state is State.GOOD and each.subject is not None and piece is None:
                backups.append(Backup(each.name, each.size, each.subject))
            elif each.state is State.GOOD and piece is not None:
                others.append(replace(each, state=State.PIECE, problem=f"{piece.number} of {piece.count}"))
            else:
                others.append(each)
        return cls(folder, tuple(backups), tuple(others))

    def with_damaged(self, names: Container[str]) -> Catalog:
        """Note that the backups of these ``names`` are damaged."""
        backups = (replace(each, is_damaged=True) if each.name in names else each for each in self.backups)
        return replace(self, backups=tuple(backups))

    def only(self, vdi: str) -> Catalog:
        """Give what it has of one VDI. What nobody knows the VDI of is left out."""
        return Catalog(
            self.folder,
            tuple(each for each in self.backups if each.subject.vdi == vdi),
            tuple(each for each in self.others if each.subject is not None and each.subject.vdi == vdi),
        )

    def count(self, state: State) -> int:
        """Count what is in ``state`` and no good backup."""
        return sum(each.state is state for each in self.others)


def below(folder: str, name: str) -> str:
    """Give the path, or the URL, of what is called ``name`` in a folder."""
    return f"{folder.rstrip('/')}/{name}"


def group_files(sizes: Mapping[str, int]) -> Iterator[Stored]:
    """Put data and manifests together by their names. ``sizes`` has the bytes of each file, by name.

    Who has read a manifest knows more: until then all that has one is taken for good, or for unfinished.
    """
    named = {name: identify_name(name) for name in sizes}
    owners = {part: {owner: name for name, (of, owner) in named.items() if of is part} for part in Part}
    for name, (part, owner) in named.items():
        manifest = owners[Part.MANIFEST].get(name)
        if part is Part.UNFINISHED:
            yield Stored(name, sizes[name], State.UNFINISHED, owners[Part.UNFINISHED_MANIFEST].get(owner))
        elif part is Part.MANIFEST and owner not in sizes:
            yield Stored(owner, 0, State.NO_DATA, name)
        elif part is Part.DATA and manifest is not None:
            yield Stored(name, sizes[name], State.GOOD, manifest)
        elif part is Part.DATA and name in owners[Part.DUE_MANIFEST] and name not in owners[Part.UNFINISHED]:
            due = owners[Part.DUE_MANIFEST][name]
            yield Stored(name, sizes[name], State.HALF_REPLACED, due, problem=f"{due} is to become {name}{MANIFEST}")
        elif part is Part.DATA and name not in owners[Part.OF_IMAGE]:
            yield Stored(name, sizes[name], State.NO_MANIFEST)


def find_named(backups: Iterable[Backup], name: str) -> list[Identity]:
    """Find the snapshots that ``name`` may mean: a tag, an id (all digits), or a time; perhaps behind ``VDI:``.

    What was backed up live is of no snapshot. Each snapshot is given once.
    """
    found: dict[tuple[str, str, str], list[Identity]] = {}
    for backup in backups:
        identity = backup.identity
        if identity.created is not None and means(identity, name):
            same = found.setdefault((identity.vdi, identity.vdi_id, identity.created), [])
            if not any(map(identity.matches, same)):
                same.append(identity)
    return [identity for same in found.values() for identity in same]


def means(identity: Identity, name: str) -> bool:
    """Tell whether ``name`` is that of the snapshot, alone or behind the VDI's."""
    return _is_name_of(identity, name) or (
        name.startswith(f"{identity.vdi}:") and _is_name_of(identity, name.removeprefix(f"{identity.vdi}:"))
    )


def _is_name_of(identity: Identity, name: str) -> bool:
    # Only digits are an id, as everywhere. There may be tags like that, and then the id or the time names the snapshot.
    if name.isascii() and name.isdigit():
        return name.lstrip("0") == str(identity.id)
    return bool(name) and name in (identity.tag, identity.created)
