"""Backups of made-up snapshots, as a catalog has them, and as files."""

from __future__ import annotations

from pathlib import Path

from asyncbackup.engine.catalog import Backup, Catalog, State, Stored
from asyncbackup.format import Dialect
from asyncbackup.format.identity import Identity
from asyncbackup.format.manifest import Subject
from asyncbackup.storage.publication import manifest_path

SIZE = 8 << 20


def identity(number: int, vdi: str = "vm", *, tag: str = "", cluster: str | None = None) -> Identity:
    """Make the identity of the snapshot of a day."""
    return Identity(vdi, f"{number:x}", f"2026-11-{number:02}T01:00:00.000000000Z", cluster, number, tag)


def subject(to: Identity, base: Identity | None, *, may_lack: bool = False) -> Subject:
    """Say what a backup of ``to`` holds that is the difference to ``base``."""
    return Subject(
        size=SIZE,
        object_size=1 << 22,
        copies=1,
        copy_policy=0,
        dialect=Dialect.COLLIE,
        identity=to,
        base_identity=base,
        base_size=None if base is None else SIZE,
        may_lack=may_lack,
    )


def stored(name: str, to: int, base: int | None = None, *, size: int = 100, may_lack: bool = False) -> Backup:
    """Make a backup of the day ``to`` that is the difference to that of ``base``."""
    return Backup(name, size, subject(identity(to), None if base is None else identity(base), may_lack=may_lack))


def catalog(*backups: Backup) -> Catalog:
    """Make a catalog of backups alone."""
    made = Catalog.of("folder", [Stored(each.name, each.size, State.GOOD, "m", each.subject) for each in backups])
    return made.with_damaged({each.name for each in backups if each.is_damaged})


def write(folder: Path, name: str, to: int, base: int | None = None, *, vdi: str = "vm", tag: str = "") -> Path:
    """Write what stands for a backup, and its manifest's first line."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    said = subject(identity(to, vdi, tag=tag), None if base is None else identity(base, vdi))
    file.write_bytes(b"backup")
    manifest_path(file).write_bytes(said.encode())
    return file
