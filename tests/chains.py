"""A disk of three snapshots, a full backup of it and two increments, and what each snapshot holds."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from asyncbackup import Cluster, Dialect, Volume, backup, connect
from asyncbackup.format.identity import Identity
from asyncbackup.format.image import ImageState
from asyncbackup.format.manifest import ManifestEncoder, RecordDigests, Subject
from asyncbackup.sheep import MemoryStore, Sheep
from asyncbackup.storage.image import state_path
from asyncbackup.storage.publication import manifest_path
from tests.disks import OBJECT, OBJECTS, content_of, make_disk, noise

SIZE = OBJECTS * OBJECT


@dataclass(frozen=True)
class Files:
    """Paths of the full backup ``a`` and of the increments ``ab`` and ``bc``; images of the snapshots.

    Object 1 is changed by both increments, in places apart from one another; object 7 is only in the last.
    """

    folder: Path
    a: Path
    ab: Path
    bc: Path
    images: dict[str, bytes]
    identities: dict[str, Identity]
    """Of the snapshots."""

    @property
    def all(self) -> list[Path]:
        return [self.a, self.ab, self.bc]

    def image(self, snapshot: str, name: str | None = None, *, has_state: bool = True) -> Path:
        """Write what a snapshot holds into a file, as ``dog vdi read`` does; with a state, as an export does."""
        path = self.folder / (name or f"image-{snapshot}")
        path.write_bytes(self.images[snapshot])
        if has_state:
            say_what_it_is(path, self.identities[snapshot])
        return path

    def without_manifests(self) -> Files:
        for file in self.all:
            manifest_path(file).unlink()
        return self


def copy_files(folder: Path) -> Files:
    """Put the files into ``folder``; made once in a process, since nobody changes what they were made of."""
    contents, images, identities = _make_once()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return Files(folder, folder / "a", folder / "ab", folder / "bc", images, identities)


def declare(file: Path, **changes: Any) -> None:
    """Let ``file`` and its manifest be of something else, as if they had been made so: without what does not fit."""
    path, encoder, lines = manifest_path(file), ManifestEncoder(), []
    data, position, kept = file.read_bytes(), 16, []
    first, *others, _ = path.read_bytes().splitlines(keepends=True)
    subject = replace(Subject.decode(first), **changes)
    lines.append(encoder.opening(subject))
    for record in map(RecordDigests.decode, others):
        end = position + 16 + record.header.length
        if record.header.idx < subject.object_count:
            lines.append(encoder.record(record))
            kept.append(data[position:end])
        position = end
    content = b"".join([Dialect.COLLIE.patch(len(kept)), *kept])
    path.write_bytes(b"".join([*lines, encoder.ending(len(content))]))
    file.write_bytes(content)


def say_what_it_is(image: Path, identity: Identity, *, assumed: bool = False) -> None:
    """Put a state beside an image that is current."""
    status = image.stat()
    state_path(image).write_bytes(ImageState(identity, status.st_size, status.st_mtime_ns, assumed=assumed).encode())


@cache
def _make_once() -> tuple[dict[str, bytes], dict[str, bytes], dict[str, Identity]]:
    with tempfile.TemporaryDirectory() as made:
        images, identities = asyncio.run(_make(Path(made)))
        return {path.name: path.read_bytes() for path in Path(made).iterdir()}, images, identities


async def _make(folder: Path) -> tuple[dict[str, bytes], dict[str, Identity]]:
    async with Sheep(MemoryStore()) as sheep, connect(sheep.host, sheep.port) as cluster:
        await make_snapshots(cluster)
        images, identities = {}, {}
        for file, base, to in (("a", None, "a"), ("ab", "a", "b"), ("bc", "b", "c")):
            await backup(cluster, "disk", folder / file, snapshot=to, base=base)
            content = await content_of(cluster, "disk", to)
            images[to] = b"".join(content.get(idx, bytes(OBJECT)) for idx in range(OBJECTS))
            identities[to] = await cluster.identify(await cluster.find_vdi("disk", to))
        return images, identities


async def make_snapshots(cluster: Cluster) -> None:
    """Create VDI ``disk`` with snapshots a, b and c."""
    await make_disk(cluster)
    volume = await Volume.open(cluster, "disk")
    await volume.write(OBJECT + 8192, noise(21, 512))
    await volume.write(7 * OBJECT + 512, noise(22, 1024))
    await cluster.create_snapshot("disk", "c")
