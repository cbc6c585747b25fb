"""Reads the manifest of a backup, and takes the digests that stand in one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import xxhash

from asyncbackup.errors import BackupDamaged, HalfReplaced, SourceUnreadable
from asyncbackup.format import RecordHeader
from asyncbackup.format.decoder import Damage
from asyncbackup.format.manifest import MAX_LINE, ManifestDecoder, RecordDigests, Subject, Trailer
from asyncbackup.storage.lock import is_held
from asyncbackup.storage.opening import open_regular
from asyncbackup.storage.publication import MANIFEST, Place, Publication, exists

_AWAIT_RUN_S: Final = 0.05
"""Seconds between two looks whether a run has given a backup and its manifest their names."""


def manifest_path(backup: str | os.PathLike[str]) -> Path:
    """Name the manifest of a backup file."""
    path = Path(backup)
    return path.parent / (path.name + MANIFEST)


def find_manifest(backup: str | os.PathLike[str]) -> Path | None:
    """Find the manifest of a backup: beside it, or where a link leads to it, beside what it leads to.

    Raises HalfReplaced if replacing both was interrupted between them, OSError. Blocks: for threads.
    """
    final = Path(os.path.realpath(backup))
    publication = Publication(Place(final), (Place(manifest_path(final)),))
    while (due := publication.find_due()) is not None:
        # A run may be between the two just now. If it has ended meanwhile, nothing is due any more.
        if not is_held(publication.main.lock) and publication.find_due() == due:
            raise HalfReplaced(os.fspath(backup), str(due.source), str(due.target))
        time.sleep(_AWAIT_RUN_S)
    return next((path for path in (manifest_path(backup), manifest_path(final)) if exists(path)), None)


class ManifestFile:
    """A manifest, read in constant memory. Blocks, so it is for threads.

    Reading raises SourceMissing, SourceUnreadable, BackupDamaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.subject: Subject | None = None
        """What the backup is of; known once the manifest was checked, as the trailer is."""
        self.trailer: Trailer | None = None

    def check(self) -> None:
        """Read all of it."""
        for decoded in self._lines():
            if isinstance(decoded, Subject):
                self.subject = decoded
            elif isinstance(decoded, Trailer):
                self.trailer = decoded

    def records(self) -> Iterator[RecordDigests]:
        """Read what it says of each record, in order."""
        for decoded in self._lines():
            if isinstance(decoded, RecordDigests):
                yield decoded

    def _lines(self) -> Iterator[Subject | RecordDigests | Trailer]:
        name = str(self.path)
        decoder = ManifestDecoder()
        try:
            with os.fdopen(open_regular(self.path), "rb") as lines, located(name):
                while line := lines.readline(MAX_LINE):
                    yield decoder.feed(line)
                decoder.finish()
        except OSError as error:
            raise SourceUnreadable(name, error.strerror or str(error)) from error


class Digests:
    """The running digests of a record: of what it is laid over, if that is wanted, and of its own data, in order."""

    def __init__(self, *, with_base: bool = True) -> None:
        self.with_base = with_base
        self.base = xxhash.xxh3_128()
        self.data = xxhash.xxh3_128()

    def take_base(self, content: memoryview) -> None:
        """Take what data is about to be laid over."""
        if self.with_base:
            self.base.update(content)

    def of(self, header: RecordHeader) -> RecordDigests:
        """Give what was taken, as that of the record ``header``."""
        return RecordDigests(header, self.data.hexdigest(), self.base.hexdigest() if self.with_base else None)


@contextmanager
def located(source: str) -> Iterator[None]:
    """Say of which file damage is."""
    try:
        yield
    except Damage as damage:
        raise BackupDamaged(source, damage.offset, damage.problem) from damage
