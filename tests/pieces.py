"""Pieces of backups, as runs on several machines make them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asyncbackup import Cluster, Shard, backup
from asyncbackup.storage.publication import manifest_path


async def make_pieces(cluster: Cluster, folder: Path, count: int, **arguments: Any) -> list[Path]:
    """Back up snapshot b of the disk of tests.disks in so many pieces; ``arguments`` say what is otherwise."""
    given: dict[str, Any] = {"snapshot": "b"} | arguments
    paths = [folder / f"piece{number}" for number in range(1, count + 1)]
    for number, path in enumerate(paths, 1):
        await backup(cluster, "disk", path, shard=Shard(number, count), **given)
    return paths


def read_both(path: Path) -> tuple[bytes, bytes]:
    """Give what a backup and its manifest hold."""
    return path.read_bytes(), manifest_path(path).read_bytes()


def remove(paths: Sequence[Path]) -> None:
    """Remove backups, and their manifests."""
    for path in paths:
        path.unlink()
        manifest_path(path).unlink()
