"""Gives a file and the files that belong to it, such as its manifest, their names as one unit.

No file system renames two files at once, so intermediate names show the progress. Beside FILE stand, hidden:

- ``.FILE.partial`` and ``.FILE.manifest.partial``: the data and the manifest that are being written;
- ``.FILE.partial.manifest`` in place of the latter: another run can go on with both files. This name alone says so, so
  one rename is enough to say it. Whoever removes the two files removes this one first. An image has
  ``.FILE.journal.partial`` and ``.FILE.partial.journal``, which is removed when the image gets its name;
- ``.FILE.pieces``: a folder with parts of the data that other processes make. Another run makes them again;
- ``.FILE.manifest.new``: the new manifest. It is complete, and so is the data;
- ``.FILE.manifest.old``: the manifest of the file that is replaced. It is renamed before the data is replaced, so that
  no manifest ever stands beside the data of another backup.

Then the data gets its name, and after that the new manifest. After an interruption there are two cases. If the data
still has only its partial name, the old manifest must get its name back. If the data has its final name, the new
manifest must get its name. Either is one rename: readers get an error that names it, and the next run does it. The
folder is flushed before each of these steps, because a crash may keep the later of two changes and lose the earlier.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import xxhash

from asyncbackup.errors import HalfReplaced, TargetExists

MANIFEST: Final = ".manifest"
"""The ending that makes the name of a manifest from that of its backup."""

JOURNAL: Final = ".journal"
"""The same for the journal of an image that is being written. The journal says how much is written."""

NAME_MAX: Final = 255
"""Bytes of a file's name, on all the usual file systems."""

_COPY_SIZE: Final = 1 << 20
"""Bytes to copy at a time."""

_NO_HARD_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


@dataclass(frozen=True, slots=True)
class Place:
    """The final name of a file, and its intermediate names."""

    final: Path
    suffix: str = field(default="", compare=False)
    """The ending of the file's name, if the file belongs to another one: the other name is the same without it."""

    @property
    def lock(self) -> Path:
        """The file that a writer locks."""
        return self._hidden(".lock")

    @property
    def partial(self) -> Path:
        """The name while it is being written."""
        return self._hidden(".partial")

    @property
    def kept(self) -> Path:
        """The name of a file that belongs to another one, if another run can go on with both."""
        owner = self.final.name.removesuffix(self.suffix)
        return self._hidden(".partial" + self.suffix, owner)

    @property
    def pieces(self) -> Path:
        """The folder for parts of the file that are made apart."""
        return self._hidden(".pieces")

    @property
    def new(self) -> Path:
        """The name of a complete file that waits for the file that it belongs to."""
        return self._hidden(".new")

    @property
    def old(self) -> Path:
        """The name of a file that is being replaced."""
        return self._hidden(".old")

    def beside(self, suffix: str) -> Place:
        """Give the place of the file with this ending that belongs to this one."""
        return Place(self.final.parent / (self.final.name + suffix), suffix)

    def _hidden(self, ending: str, of: str | None = None) -> Path:
        """Derive a hidden name from the file's name, or from ``of``. If it is too long, a digest replaces its end."""
        name = os.fsencode(self.final.name if of is None else of)
        whole = b"." + name + os.fsencode(ending)
        if len(whole) <= NAME_MAX:
            return self.final.parent / os.fsdecode(whole)
        digest = f"~{xxhash.xxh3_64_hexdigest(name)}{ending}"
        start = whole[: NAME_MAX - len(digest)].decode(errors="ignore")
        return self.final.parent / (start + digest)


def manifest_path(backup: str | os.PathLike[str]) -> Path:
    """Name the manifest of a backup file."""
    return Place(Path(backup)).beside(MANIFEST).final


class Rename(NamedTuple):
    """The rename that completes or undoes a replacement which was interrupted."""

    source: Path
    target: Path


@dataclass(frozen=True, slots=True)
class Publication:
    """The file at ``main`` and those ``attached`` to it. A caller that changes them must hold the lock of ``main``."""

    main: Place
    attached: tuple[Place, ...] = ()

    def find_due(self) -> Rename | None:
        """Find the rename that an interrupted run did not do, if readers must not use the files before it is done."""
        has_name = self._has_name()
        for place in self.attached:
            if has_name and exists(place.new):
                return Rename(place.new, place.final)
            if not has_name and exists(place.old) and not exists(place.final):
                return Rename(place.old, place.final)
        return None

    @property
    def _kept(self) -> list[Path]:
        """The names of which one exists if another run can go on with the data."""
        return [self.main.beside(suffix).kept for suffix in (MANIFEST, JOURNAL)]

    def find_leftovers(self) -> list[Path]:
        """Find the files that have intermediate names."""
        between = [path for place in self.attached for path in (place.partial, place.new, place.old)]
        between += [self.main.beside(JOURNAL).partial, *self._kept, self.main.partial]
        return [path for path in between if exists(path)]

    def is_unfinished(self, suffix: str | None = None) -> bool:
        """Tell if another run can go on with the data. With a ``suffix``, only a file with that ending counts."""
        kept = self._kept if suffix is None else [self.main.beside(suffix).kept]
        return any(map(exists, kept)) and not self._has_name()

    def keep(self, written: Place) -> None:
        """Let another run go on with the data and ``written``, one of the attached files. Both must be on disk."""
        self._flush()
        written.partial.replace(written.kept)
        self._flush()

    def discard(self) -> None:
        """Remove the files that another run could go on with."""
        _remove(*self._kept)
        self._flush()
        _remove(self.main.partial)

    def recover(self, *, has_name: bool | None = None) -> None:
        """Restore one of the two states, old data with its old manifest or new with new, and remove all leftovers.

        Files that another run can go on with stay. ``has_name``: whether the data that was written has its name; None
        if the caller does not know it.
        """
        self._flush()
        if has_name is None:
            has_name = self._has_name()
        if exists(self.main.final):
            for place in self.attached:
                waiting = place.new if has_name else place.old
                if exists(waiting):
                    waiting.replace(place.final)
        for place in self.attached:
            _remove(place.partial, place.new, place.old)
        _remove(self.main.beside(JOURNAL).partial)
        if has_name or not any(map(exists, self._kept)):
            _remove(*self._kept)
            # The data is removed last: without it, a leftover manifest would look as if it had to get its name.
            self._flush()
            _remove(self.main.partial)

    def publish(self, written: Place | None, *, replace: bool, is_kept: bool = False) -> None:
        """Give the data and ``written``, one of the attached files, their names. Remove the other attached files.

        Both must be on disk. They have their partial names or, if the run ``is_kept``, the names that ``keep`` gave.
        Raises TargetExists and OSError with all names as before, and HalfReplaced if the old names could not be
        restored.
        """
        replaced = [place for place in self.attached if replace and exists(place.final)]
        has_name = False
        try:
            if written is not None or replaced:
                self._flush()
                if written is not None and is_kept:
                    # The file keeps its other name too, so that a crash here loses nothing.
                    _remove(written.new)
                    _double(written.kept, written.new)
                elif written is not None:
                    written.partial.replace(written.new)
                for place in replaced:
                    place.final.replace(place.old)
                self._flush()
            _give_name(self.main.partial, self.main.final, replace=replace)
            has_name = True
            self._flush()
            if written is not None:
                _give_name(written.new, written.final, replace=replace)
                self._flush()
                _remove(written.new)
            _remove(*self._kept)
            for place in replaced:
                _remove(place.old)
        except BaseException as error:
            self._undo(error, has_name=has_name, replace=replace)
            raise

    def _undo(self, error: BaseException, *, has_name: bool, replace: bool) -> None:
        try:
            if has_name and not replace:
                self._take_back()
                has_name = False
            self.recover(has_name=has_name)
        except OSError:
            if (due := self.find_due()) is not None:
                raise HalfReplaced(str(self.main.final), str(due.source), str(due.target)) from error

    def _take_back(self) -> None:
        """Give the new file its partial name back. No file had the final name before."""
        if exists(self.main.partial):
            self.main.final.unlink()
        else:
            self.main.final.replace(self.main.partial)

    def _has_name(self) -> bool:
        """Tell whether the data that was written has its name. A hard link may have both names."""
        try:
            partial = self.main.partial.lstat()
        except FileNotFoundError:
            return True
        try:
            return os.path.samestat(partial, self.main.final.lstat())
        except FileNotFoundError:
            return False

    def _flush(self) -> None:
        for folder in {place.final.parent for place in (self.main, *self.attached)}:
            flush_folder(folder)


def _double(source: Path, double: Path) -> None:
    """Give a file a second name. If the file system has no hard links, make a durable copy."""
    try:
        os.link(source, double)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
    else:
        return
    with source.open("rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        descriptor = os.open(double, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            while piece := file.read(_COPY_SIZE):
                rest = memoryview(piece)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
            with suppress(OSError):
                os.fchown(descriptor, status.st_uid, status.st_gid)
            os.fchmod(descriptor, status.st_mode & 0o777)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _give_name(source: Path, final: Path, *, replace: bool) -> None:
    if not replace:
        try:
            os.link(source, final)
        except FileExistsError as error:
            raise TargetExists(str(final)) from error
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            if exists(final):
                raise TargetExists(str(final)) from error
        else:
            return
    source.replace(final)


def exists(path: Path) -> bool:
    """Tell whether this name exists, even as a link that leads nowhere. Raises OSError."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False
    return True


def flush_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(*paths: Path) -> None:
    for path in paths:
        with suppress(FileNotFoundError):
            path.unlink()
