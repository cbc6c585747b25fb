"""Records what a run asks the kernel for in one folder, and makes the folders that a crash may leave of it.

As sqlite's crash tests do it: what was written is kept in a list, and whatever was not flushed may be lost. Data that
was not flushed is torn, or in detail: any part of it is there, in any order. Of the changes of names since the folder
was flushed any may have been lost, whatever order they were made in: that is more than most file systems do.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

TORN: Final = b"torn"
"""What a file holds that was not flushed."""


class Call(NamedTuple):
    """``create``, ``write``, ``flush`` a file, ``link``, ``rename``, ``unlink`` names, or ``flush folder``."""

    kind: str
    name: str = ""
    other: str = ""
    content: bytes = b""
    """What was written, or what is flushed."""
    offset: int = 0
    """Where it was written; or where a file was cut off, or made longer, if ``resizes``."""
    resizes: bool = False

    def __str__(self) -> str:
        return " ".join(filter(None, (self.kind, self.name, self.other)))


class Recorder:
    """Keeps the calls that concern ``folder``, except those for locks, and what failed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.calls: list[Call] = []
        self._folder = folder
        for name in ("open", "write", "writev", "pwrite", "ftruncate", "fsync", "link", "replace", "unlink"):
            monkeypatch.setattr(os, name, getattr(self, f"_{name}")(getattr(os, name)))

    def texts(self) -> list[str]:
        """Give the calls in words; several writes after one another are one."""
        return [text for text, _ in itertools.groupby(map(str, self.calls))]

    def _keep(self, kind: str, *paths: Any, **more: Any) -> None:
        here = [Path(path) for path in paths]
        if all(path.parent == self._folder and path.suffix != ".lock" for path in here):
            name, *other = [path.name for path in here]
            self.calls.append(Call(kind, name, "".join(other), **more))

    def _open(self, call: Callable[..., int]) -> Callable[..., int]:
        def opening(path: Any, flags: int, *rest: Any, **named: Any) -> int:
            is_new = flags & os.O_CREAT and not os.path.lexists(path)
            descriptor = call(path, flags, *rest, **named)
            if is_new:
                self._keep("create", path)
            return descriptor

        return opening

    def _write(self, call: Callable[..., int]) -> Callable[..., int]:
        def write(descriptor: int, buffers: Any) -> int:
            given = b"".join(buffers) if isinstance(buffers, list) else bytes(buffers)
            written = call(descriptor, buffers)
            path = _path(descriptor)
            if path.parent == self._folder:
                offset = os.lseek(descriptor, 0, os.SEEK_CUR) - written
                self._keep("write", path, content=given[:written], offset=offset)
            return written

        return write

    _writev = _write

    def _pwrite(self, call: Callable[..., int]) -> Callable[..., int]:
        def write(descriptor: int, data: Any, offset: int) -> int:
            written = call(descriptor, data, offset)
            self._keep("write", _path(descriptor), content=bytes(data)[:written], offset=offset)
            return written

        return write

    def _ftruncate(self, call: Callable[..., None]) -> Callable[..., None]:
        def resize(descriptor: int, size: int) -> None:
            call(descriptor, size)
            self._keep("write", _path(descriptor), offset=size, resizes=True)

        return resize

    def _fsync(self, call: Callable[..., None]) -> Callable[..., None]:
        def flush(descriptor: int) -> None:
            call(descriptor)
            path = _path(descriptor)
            if path == self._folder:
                self.calls.append(Call("flush folder"))
            else:
                self._keep("flush", path, content=Path(f"/proc/self/fd/{descriptor}").read_bytes())

        return flush

    def _on_names(self, kind: str, call: Callable[..., None]) -> Callable[..., None]:
        def change(*paths: Any, **named: Any) -> None:
            call(*paths, **named)
            self._keep(kind, *paths)

        return change

    def _link(self, call: Callable[..., None]) -> Callable[..., None]:
        return self._on_names("link", call)

    def _replace(self, call: Callable[..., None]) -> Callable[..., None]:
        return self._on_names("rename", call)

    def _unlink(self, call: Callable[..., None]) -> Callable[..., None]:
        return self._on_names("unlink", call)


def _path(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}").readlink()


class Left(NamedTuple):
    """A folder after a crash: which file a name leads to, and what each file holds."""

    names: tuple[tuple[str, int], ...]
    contents: tuple[tuple[int, bytes], ...]

    def make(self, folder: Path) -> None:
        """Put it on disk, in place of what is there; one file of two names is one."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        contents, made = dict(self.contents), dict[int, Path]()
        for name, file in self.names:
            if file in made:
                os.link(made[file], folder / name)
            else:
                made[file] = folder / name
                made[file].write_bytes(contents[file])


@dataclass
class _Disk:
    """What is known to be on the disk, and the changes of names that may be."""

    names: dict[str, int]
    """As the running process sees them."""
    durable_names: dict[str, int]
    contents: dict[int, bytes]
    pending: list[dict[str, int | None]] = field(default_factory=list)

    def follow(self, call: Call) -> None:
        if call.kind == "create":
            file = len(self.contents)
            self.contents[file] = TORN
            self._change({call.name: file})
        elif call.kind == "link":
            self._change({call.other: self.names[call.name]})
        elif call.kind == "rename" and self.names[call.name] != self.names.get(call.other):
            self._change({call.other: self.names[call.name], call.name: None})
        elif call.kind == "unlink":
            self._change({call.name: None})
        elif call.kind == "write":
            self.contents[self.names[call.name]] = TORN
        elif call.kind == "flush":
            self.contents[self.names[call.name]] = call.content
        elif call.kind == "flush folder":
            self.durable_names, self.pending = dict(self.names), []

    def _change(self, change: dict[str, int | None]) -> None:
        _apply(self.names, change)
        self.pending.append(change)

    def outcomes(self) -> Iterator[Left]:
        for lost in itertools.product((False, True), repeat=len(self.pending)):
            names = dict(self.durable_names)
            for change, is_lost in zip(self.pending, lost, strict=True):
                if not is_lost:
                    _apply(names, change)
            held = sorted((file, self.contents[file]) for file in set(names.values()))
            yield Left(tuple(sorted(names.items())), tuple(held))


def _apply(names: dict[str, int], change: dict[str, int | None]) -> None:
    for name, file in change.items():
        if file is None:
            names.pop(name, None)
        else:
            names[name] = file


def take(folder: Path) -> Left:
    """Take what is in a folder as it is, all of it durable."""
    files: dict[int, int] = {}
    names, contents = {}, {}
    for path in sorted(folder.iterdir()):
        if path.suffix != ".lock":
            file = files.setdefault(path.stat().st_ino, len(files))
            names[path.name], contents[file] = file, path.read_bytes()
    return Left(tuple(sorted(names.items())), tuple(sorted(contents.items())))


def killed(before: Left, calls: list[Call]) -> Left:
    """Give what a process leaves that is killed after ``calls`` while the machine goes on."""
    disk = _Disk(dict(before.names), dict(before.names), dict(before.contents))
    for call in calls:
        disk.follow(call)
    return Left(tuple(sorted(disk.names.items())), tuple(sorted(disk.contents.items())))


def crashes(before: Left, calls: list[Call]) -> set[Left]:
    """Give all that a crash at any time of ``calls`` may leave, and what an end without one leaves."""
    disk = _Disk(dict(before.names), dict(before.names), dict(before.contents))
    found = set(disk.outcomes())
    for call in calls:
        disk.follow(call)
        found.update(disk.outcomes())
    return found


@dataclass
class _Unflushed:
    """What a file holds for certain, and what was written to it since it was flushed."""

    flushed: bytes
    writes: list[Call] = field(default_factory=list)

    def outcomes(self) -> list[bytes]:
        """Give what it may hold: none of it and all of it come first."""
        whole = self._hold(self.writes)
        found = [self.flushed, whole]
        for at, write in enumerate(self.writes):
            before, behind = self.writes[:at], self.writes[at + 1 :]
            size = len(write.content)
            torn = [write._replace(content=write.content[:part]) for part in (size // 2, size - 1)]
            zeros = write._replace(content=write.content[: size // 2] + bytes(size - size // 2))
            found += map(self._hold, (before, [*before, *behind], [*before, zeros, *behind]))
            found += [self._hold([*before, part]) for part in torn]
        return list(dict.fromkeys(found))

    def _hold(self, writes: list[Call]) -> bytes:
        content = bytearray(self.flushed)
        for write in writes:
            end = write.offset + len(write.content)
            content += bytes(max(0, end - len(content)))
            if write.resizes:
                del content[write.offset :]
            else:
                content[write.offset : end] = write.content
        return bytes(content)


class _DetailedDisk:
    """A disk on which of each file any part may be that was written, in any order, since it was flushed.

    Of two files that were both not flushed one is as old, or as new, as it can be.
    """

    def __init__(self, before: Left) -> None:
        self._names = _Disk(dict(before.names), dict(before.names), dict(before.contents))
        self._files = {file: _Unflushed(content) for file, content in before.contents}

    def follow(self, call: Call) -> None:
        if call.kind == "create":
            self._files[len(self._files)] = _Unflushed(b"")
        if call.kind == "write":
            self._files[self._names.names[call.name]].writes.append(call)
        if call.kind == "flush":
            self._files[self._names.names[call.name]] = _Unflushed(call.content)
        self._names.follow(call)

    def flushed(self, name: str) -> bytes | None:
        """Give what a file surely holds; None: perhaps there is no such name."""
        file = self._names.durable_names.get(name)
        return None if file is None else self._files[file].flushed

    def outcomes(self) -> Iterator[Left]:
        held = {file: unflushed.outcomes() for file, unflushed in self._files.items()}
        for names, _ in self._names.outcomes():
            files = sorted({file for _, file in names})
            for one in files:
                for extreme in (0, -1):
                    others = {file: held[file][:2][extreme] for file in files}
                    for content in held[one]:
                        yield Left(names, tuple(sorted((others | {one: content}).items())))
            if not files:
                yield Left(names, ())


def detailed_crashes(before: Left, calls: list[Call], sure: str) -> dict[Left, bytes]:
    """Give all that a crash at any time of ``calls`` may leave, in detail; and what file ``sure`` then surely holds."""
    disk = _DetailedDisk(before)
    found: dict[Left, bytes] = {}
    for call in (None, *calls):
        if call is not None:
            disk.follow(call)
        held = disk.flushed(sure) or b""
        for left in disk.outcomes():
            found[left] = max(found.get(left, b""), held, key=len)
    return found


def detailed_crash(before: Left, calls: list[Call]) -> set[Left]:
    """Give all that a crash right after ``calls`` may leave, in detail."""
    disk = _DetailedDisk(before)
    for call in calls:
        disk.follow(call)
    return set(disk.outcomes())
