"""Records what a run asks the kernel for in one folder, and makes the folders that a crash may leave of it.

As sqlite's crash tests do it: what was written is kept in a list, and whatever was not flushed may be lost. Data that
was not flushed is torn. Of the changes of names since the folder was flushed any may have been lost, whatever order
they were made in: that is more than most file systems do.
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

    def _keep(self, kind: str, *paths: Any, content: bytes = b"") -> None:
        here = [Path(path) for path in paths]
        if all(path.parent == self._folder and path.suffix != ".lock" for path in here):
            name, *other = [path.name for path in here]
            self.calls.append(Call(kind, name, "".join(other), content))

    def _open(self, call: Callable[..., int]) -> Callable[..., int]:
        def opening(path: Any, flags: int, *rest: Any, **named: Any) -> int:
            is_new = flags & os.O_CREAT and not os.path.lexists(path)
            descriptor = call(path, flags, *rest, **named)
            if is_new:
                self._keep("create", path)
            return descriptor

        return opening

    def _on_file(self, kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def change(descriptor: int, *rest: Any) -> Any:
            result = call(descriptor, *rest)
            link = Path(f"/proc/self/fd/{descriptor}")
            if link.readlink() == self._folder:
                self.calls.append(Call(f"{kind} folder"))
            else:
                self._keep(kind, link.readlink(), content=link.read_bytes() if kind == "flush" else b"")
            return result

        return change

    def _write(self, call: Callable[..., Any]) -> Callable[..., Any]:
        return self._on_file("write", call)

    _writev = _pwrite = _ftruncate = _write

    def _fsync(self, call: Callable[..., Any]) -> Callable[..., Any]:
        return self._on_file("flush", call)

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
