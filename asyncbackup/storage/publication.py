"""Gives a file and what belongs to it, such as its manifest, their names as one.

No file system renames two files at once, so the names between say how far it came. Beside FILE stand, hidden:

- ``.FILE.partial`` and ``.FILE.manifest.partial``: what is being written;
- ``.FILE.partial.manifest`` in place of the latter: what is being written, and can be gone on with by another run. This
  one name says it, so that one rename does. Whoever removes the two begins with it. An image has
  ``.FILE.journal.partial`` and ``.FILE.partial.journal``, which goes when the image gets its name;
- ``.FILE.manifest.new``: a manifest that is complete, as is the data;
- ``.FILE.manifest.old``: the manifest that was there. It moves out of the way before the data is replaced, so that no
  manifest ever stands beside data that it is not of.

Then the data gets its name, and after it the new manifest. Whether the data has its name, so that nothing goes by the
partial one alone, decides what an interruption meant: if not, the old manifest goes back; if so, the new one goes on.
Either is one rename, which readers are told of and which the next run does. The folder is flushed before each of these
steps, because a crash may keep the later of two changes and lose the earlier.
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
"""What is added to the name of a backup for that of its manifest."""

JOURNAL: Final = ".journal"
"""What an image has in place of that while it is being written: what says how far it is."""

NAME_MAX: Final = 255
"""Bytes of a file's name, on all the usual file systems."""

_COPY_SIZE: Final = 1 << 20
"""Bytes to copy at a time."""

_NO_HARD_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file goes, and the names that stand for it on the way there."""

    final: Path
    suffix: str = field(default="", compare=False)
    """The end of the file's name, if it belongs to the file that is named like it without that."""

    @property
    def lock(self) -> Path:
        """Locked by who writes it."""
        return self._hidden(".lock")

    @property
    def partial(self) -> Path:
        """What is being written."""
        return self._hidden(".partial")

    @property
    def kept(self) -> Path:
        """What is being written and belongs to another file, once another run can go on with both."""
        owner = self.final.name.removesuffix(self.suffix)
        return self._hidden(".partial" + self.suffix, owner)

    @property
    def new(self) -> Path:
        """What is complete, and gets its name right after the file that it belongs to."""
        return self._hidden(".new")

    @property
    def old(self) -> Path:
        """What was there before."""
        return self._hidden(".old")

    def beside(self, suffix: str) -> Place:
        """Give the place of what belongs to this file."""
        return Place(self.final.parent / (self.final.name + suffix), suffix)

    def _hidden(self, ending: str, of: str | None = None) -> Path:
        """Derive a name from the file's own, or that of another, with a digest of it in place of what does not fit."""
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
    """What brings a file and what belongs to it together again."""

    source: Path
    target: Path


@dataclass(frozen=True, slots=True)
class Publication:
    """The file at ``main`` and those ``attached`` to it. Who changes it holds the lock of ``main``."""

    main: Place
    attached: tuple[Place, ...] = ()

    def find_due(self) -> Rename | None:
        """Tell which rename an interrupted run left to do, if readers must not go on without it."""
        has_name = self._has_name()
        for place in self.attached:
            if has_name and exists(place.new):
                return Rename(place.new, place.final)
            if not has_name and exists(place.old) and not exists(place.final):
                return Rename(place.old, place.final)
        return None

    @property
    def _kept(self) -> list[Path]:
        """What says, if it is there, that another run can go on with the data."""
        return [self.main.beside(suffix).kept for suffix in (MANIFEST, JOURNAL)]

    def find_leftovers(self) -> list[Path]:
        """Find what stands under the names between."""
        between = [path for place in self.attached for path in (place.partial, place.new, place.old)]
        between += [self.main.beside(JOURNAL).partial, *self._kept, self.main.partial]
        return [path for path in between if exists(path)]

    def is_unfinished(self, suffix: str | None = None) -> bool:
        """Tell whether there is something that another run can go on with, by what belongs to it of that ``suffix``."""
        kept = self._kept if suffix is None else [self.main.beside(suffix).kept]
        return any(map(exists, kept)) and not self._has_name()

    def keep(self, written: Place) -> None:
        """Let another run go on with the data and ``written``, one of the attached; both are on disk."""
        self._flush()
        written.partial.replace(written.kept)
        self._flush()

    def discard(self) -> None:
        """Remove what another run could have gone on with."""
        _remove(*self._kept)
        self._flush()
        _remove(self.main.partial)

    def recover(self, *, has_name: bool | None = None) -> None:
        """Bring back one of the two states, old with old or new with new, and remove what is left over.

        What another run can go on with stays. ``has_name``: whether the data that was written has its name, where that
        is known.
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
            # The data goes last: without it what is left of a manifest would look as if it were due.
            self._flush()
            _remove(self.main.partial)

    def publish(self, written: Place | None, *, replace: bool, is_kept: bool = False) -> None:
        """Give the data its name, and ``written``, which is one of the attached. The other attached files are removed.

        What was written is on disk under the partial names, or under those of what ``is_kept``. Raises TargetExists and
        OSError with everything as it was, and HalfReplaced if that could not be brought back.
        """
        replaced = [place for place in self.attached if replace and exists(place.final)]
        has_name = False
        try:
            if written is not None or replaced:
                self._flush()
                if written is not None and is_kept:
                    # It keeps the other name as well, so that a crash here loses nothing.
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
        """Take its name from a file that was not there before."""
        if exists(self.main.partial):
            self.main.final.unlink()
        else:
            self.main.final.replace(self.main.partial)

    def _has_name(self) -> bool:
        """Tell whether the data that was written has its name: a hard link may go by both."""
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
    """Let a file have a second name; where there are no hard links, make a durable copy of it."""
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
    """Tell whether there is something of this name, links that lead nowhere included. Raises OSError."""
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
