"""Where the embedded server keeps its objects: anonymous memory, or a folder with a sparse file an object.

A store hands objects out as views of a mapping, which show what ``write`` changes. A view stays good after the object
was replaced, removed or pushed out of the cache of open mappings: the mapping goes when its last view does. No
protocol, no rules here.
"""

from __future__ import annotations

import json
import mmap
import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Protocol

from asyncbackup.wire.messages import Bytes

MAX_OPEN_MAPPINGS: Final = 256
"""Objects that a folder store keeps mapped: each holds a file descriptor, of which a process often has 1024."""

MEMORY_STORE_SIZE: Final = 1 << 40
"""Bytes that a memory store claims to hold; memory ends earlier, but a fixed figure makes answers repeatable."""

Piece = tuple[int, Bytes]
"""Offset in bytes, and the data that goes there."""


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """What a cluster is formatted with. ``ctime``: seconds << 32 | nanoseconds."""

    ctime: int
    copies: int
    block_size_shift: int


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes a store can hold, and holds."""

    size: int
    used: int


class Store(Protocol):
    """Objects of fixed sizes under 64-bit ids, and one cluster configuration."""

    def get(self, oid: int) -> memoryview | None:
        """View a whole object, or None if there is none."""

    def put(self, oid: int, size: int, pieces: Iterable[Piece]) -> None:
        """Create an object of ``size`` bytes, zeros but for ``pieces``, or replace it; all of it appears at once."""

    def write(self, oid: int, offset: int, data: Bytes) -> bool:
        """Change bytes within an object; False if there is none."""

    def remove(self, oid: int) -> bool:
        """Remove an object; False if there is none."""

    def oids(self) -> list[int]:
        """List the objects there are, in no order."""

    def space(self) -> Space: ...

    def load_config(self) -> ClusterConfig | None:
        """Give what ``save_config`` was given, or None for a new store. Raises ValueError if it is damaged."""

    def save_config(self, config: ClusterConfig) -> None: ...


class MemoryStore:
    """Keeps objects in anonymous mappings: a page costs memory once it is written. Lives as long as the value does."""

    def __init__(self) -> None:
        self._objects: dict[int, memoryview] = {}
        self._config: ClusterConfig | None = None

    def get(self, oid: int) -> memoryview | None:
        view = self._objects.get(oid)
        return None if view is None else view.toreadonly()

    def put(self, oid: int, size: int, pieces: Iterable[Piece]) -> None:
        view = memoryview(mmap.mmap(-1, size))
        for offset, data in pieces:
            view[offset : offset + len(data)] = data
        self._objects[oid] = view

    def write(self, oid: int, offset: int, data: Bytes) -> bool:
        return _write_into(self._objects.get(oid), offset, data)

    def remove(self, oid: int) -> bool:
        return self._objects.pop(oid, None) is not None

    def oids(self) -> list[int]:
        return list(self._objects)

    def space(self) -> Space:
        return Space(MEMORY_STORE_SIZE, sum(view.nbytes for view in self._objects.values()))

    def load_config(self) -> ClusterConfig | None:
        return self._config

    def save_config(self, config: ClusterConfig) -> None:
        self._config = config


class FolderStore:
    """Keeps objects as sparse files ``obj/<oid in 16 hex digits>`` under ``path``, which is made if need be.

    A file gets its name once it is complete, so a killed server leaves whole objects behind; nothing is synced, so a
    crash of the machine may cost the latest ones. One server at a time.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._objects = self._path / "obj"
        self._config = self._path / "cluster.json"
        self._mapped: OrderedDict[int, memoryview] = OrderedDict()
        self._objects.mkdir(parents=True, exist_ok=True)
        for leftover in self._objects.glob("*.tmp"):
            leftover.unlink()

    def _file(self, oid: int) -> Path:
        return self._objects / f"{oid:016x}"

    def get(self, oid: int) -> memoryview | None:
        view = self._map(oid)
        return None if view is None else view.toreadonly()

    def _map(self, oid: int) -> memoryview | None:
        view = self._mapped.get(oid)
        if view is not None:
            self._mapped.move_to_end(oid)
            return view
        try:
            with self._file(oid).open("r+b") as file:
                view = memoryview(mmap.mmap(file.fileno(), 0))
        except FileNotFoundError:
            return None
        self._mapped[oid] = view
        if len(self._mapped) > MAX_OPEN_MAPPINGS:
            self._mapped.popitem(last=False)
        return view

    def put(self, oid: int, size: int, pieces: Iterable[Piece]) -> None:
        temporary = self._file(oid).with_suffix(".tmp")
        try:
            with temporary.open("wb", buffering=0) as file:
                file.truncate(size)
                for offset, data in pieces:
                    _write_fully(file.fileno(), data, offset)
            temporary.replace(self._file(oid))
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        self._mapped.pop(oid, None)

    def write(self, oid: int, offset: int, data: Bytes) -> bool:
        return _write_into(self._map(oid), offset, data)

    def remove(self, oid: int) -> bool:
        self._mapped.pop(oid, None)
        try:
            self._file(oid).unlink()
        except FileNotFoundError:
            return False
        return True

    def oids(self) -> list[int]:
        return [int(entry.name, 16) for entry in os.scandir(self._objects) if len(entry.name) == 16]

    def space(self) -> Space:
        used = sum(entry.stat().st_blocks * 512 for entry in os.scandir(self._objects))
        disk = os.statvfs(self._objects)
        return Space(disk.f_bavail * disk.f_frsize + used, used)

    def load_config(self) -> ClusterConfig | None:
        try:
            text = self._config.read_text()
        except FileNotFoundError:
            return None
        try:
            return ClusterConfig(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self._config} is no cluster configuration: {error}") from error

    def save_config(self, config: ClusterConfig) -> None:
        with tempfile.NamedTemporaryFile("w", dir=self._path, suffix=".tmp", delete=False) as file:
            json.dump(asdict(config), file)
        Path(file.name).replace(self._config)


def _write_into(view: memoryview | None, offset: int, data: Bytes) -> bool:
    if view is None:
        return False
    view[offset : offset + len(data)] = data
    return True


def _write_fully(descriptor: int, data: Bytes, offset: int) -> None:
    """Write all of ``data`` at ``offset``; one call writes at most 2 GiB - 4 KiB."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view = view[written:]
        offset += written
