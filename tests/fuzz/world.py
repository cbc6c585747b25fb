"""What the fuzzers play with: a small cluster, and what this version writes when it works on that."""

from __future__ import annotations

import asyncio
import struct
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

from asyncbackup import Cluster, Shard, Volume, backup, connect, export
from asyncbackup.sheep import MemoryStore, Sheep
from asyncbackup.sheep.store import ClusterConfig
from asyncbackup.wire import btree
from asyncbackup.wire.constants import SECTOR_SIZE
from asyncbackup.wire.inode import TABLE_OFFSET
from asyncbackup.wire.oid import data_oid, inode_oid
from tests.btree import btree_oid
from tests.disks import OBJECT, SHIFT, noise

OBJECTS: Final = 4
_PAGE: Final = 4096

Pieces = list[tuple[int, bytes]]


def new_store() -> MemoryStore:
    """Make a store that holds VDI ``disk`` with snapshots a, b and c, and the hyper volume ``hyper``."""
    config, objects, _ = _make_once()
    store = MemoryStore()
    store.save_config(config)
    for oid, size, pieces in objects:
        store.put(oid, size, pieces)
    return store


def put_files(folder: Path) -> None:
    """Put backups ``full``, ``inc`` and ``last`` of the disk, an image of each, and what is beside, into ``folder``.

    ``gaps`` is what ``last`` is, but lacks an object that could not be read. ``part1`` and ``part2`` are the pieces of
    ``inc``, and ``sole`` is the only piece of ``inc``.
    """
    _, _, files = _make_once()
    for name, size, pieces in files:
        with (folder / name).open("wb") as file:
            file.truncate(size)
            for offset, data in pieces:
                file.seek(offset)
                file.write(data)


@cache
def file_names() -> tuple[str, ...]:
    """Name the files that ``put_files`` puts."""
    return tuple(name for name, _, _ in _make_once()[2])


def content(name: str) -> bytes:
    """Give the bytes of a file that ``put_files`` puts."""
    size, pieces = next((size, pieces) for each, size, pieces in _make_once()[2] if each == name)
    data = bytearray(size)
    for offset, piece in pieces:
        data[offset : offset + len(piece)] = piece
    return bytes(data)


@cache
def _make_once() -> tuple[ClusterConfig, list[tuple[int, int, Pieces]], list[tuple[str, int, Pieces]]]:
    store = MemoryStore()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        asyncio.run(_make(store, folder))
        files = [(path.name, path.stat().st_size, _pieces(path.read_bytes())) for path in sorted(folder.iterdir())]
    config = store.load_config()
    assert config is not None
    views = {oid: store.get(oid) for oid in store.oids()}
    objects = [(oid, len(view), _pieces(view)) for oid, view in views.items() if view is not None]
    return config, objects, files


def _pieces(data: bytes | memoryview) -> Pieces:
    """Give what is no zeros, page by page."""
    zeros = bytes(_PAGE)
    pages = ((start, bytes(data[start : start + _PAGE])) for start in range(0, len(data), _PAGE))
    return [(start, page) for start, page in pages if page != zeros[: len(page)]]


async def _make(store: MemoryStore, folder: Path) -> None:
    async with Sheep(store) as sheep, connect(sheep.host, sheep.port) as cluster:
        await cluster.create_vdi("disk", OBJECTS * OBJECT - 512, block_size_shift=SHIFT)
        base = None
        for number, tag in enumerate("abc"):
            volume = await Volume.open(cluster, "disk")
            await volume.write(number * OBJECT + 4096, noise(number, 8 * SECTOR_SIZE))
            await volume.write(512, noise(10 + number, SECTOR_SIZE))
            await cluster.create_snapshot("disk", tag)
            name = ("full", "inc", "last")[number]
            await backup(cluster, "disk", folder / name, snapshot=tag, base=base)
            base = tag
        for number, count, name in ((1, 2, "part1"), (2, 2, "part2"), (1, 1, "sole")):
            await backup(cluster, "disk", folder / name, snapshot="b", base="a", shard=Shard(number, count))
        lost = data_oid((await cluster.find_vdi("disk", "c")).vdi_id, 2)
        kept = bytes(store.get(lost) or b"")
        store.remove(lost)
        await backup(cluster, "disk", folder / "gaps", snapshot="c", base="b", skip_unreadable=True)
        store.put(lost, len(kept), [(0, kept)])
        await _make_hyper(cluster)
    files = [folder / name for name in ("full", "inc", "last")]
    for number in range(1, 4):
        await export(files[:number], folder / f"image-{'abc'[number - 1]}")


async def _make_hyper(cluster: Cluster) -> None:
    """Make a hyper volume with a tree of two levels."""
    vdi_id = await cluster.create_vdi("hyper", 8 << 22, store_policy=1)
    for idx in (0, 5):
        await cluster.create_object(data_oid(vdi_id, idx), noise(idx, SECTOR_SIZE), copies=1)
        leaf = btree.pack_node_header(btree.LEAF, 1) + struct.pack("<II", idx, vdi_id)
        await cluster.create_object(btree_oid(vdi_id, idx + 1), leaf, copies=1)
    entries = b"".join(struct.pack("<IIQ", idx, 0, btree_oid(vdi_id, idx + 1)) for idx in (0, 5))
    root = btree.pack_node_header(btree.INDIRECT, 2) + entries
    await cluster.write_object(inode_oid(vdi_id), root, TABLE_OFFSET, copies=1)
