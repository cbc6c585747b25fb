"""Backups with manifests of version 1 stay good, and give back what the snapshots held when they were made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import xxhash

from asyncbackup import Cluster, Dialect, export, restore, verify
from tests.disks import content_of

FILES = Path(__file__).parent.parent / "golden" / "manifest-1"
IMAGES: dict[str, dict[str, Any]] = json.loads((FILES / "images.json").read_text())
"""What each snapshot held: size in bytes, and the digest."""

CHAINS = [
    ("monday", ["monday"]),
    ("tuesday", ["monday", "monday-tuesday"]),
    ("wednesday", ["monday", "monday-tuesday", "tuesday-wednesday"]),
    ("wednesday", ["wednesday.merged"]),
    ("wednesday", ["monday", "monday-wednesday.merged"]),
    ("thursday", ["monday", "monday-tuesday", "tuesday-thursday.merged"]),
    ("now", ["now"]),
]

each_chain = pytest.mark.parametrize(("snapshot", "names"), CHAINS, ids=["+".join(names) for _, names in CHAINS])
each_dialect = pytest.mark.parametrize("dialect", list(Dialect), ids=lambda dialect: dialect.value)


def files(names: list[str], dialect: Dialect) -> list[Path]:
    return [FILES / f"{name}.{dialect.value}" for name in names]


def check(content: bytes, snapshot: str) -> None:
    """Compare with what ``snapshot`` held."""
    assert len(content) == IMAGES[snapshot]["size"]
    assert xxhash.xxh3_128_hexdigest(content) == IMAGES[snapshot]["xxh3_128"]


@each_dialect
@each_chain
async def test_they_are_verified(snapshot: str, names: list[str], dialect: Dialect) -> None:
    report = await verify(files(names, dialect))

    assert (report.is_good, report.unproven_links) == (True, 0)
    assert all(file.has_manifest for file in report.files)


@each_dialect
@each_chain
async def test_they_are_exported(tmp_path: Path, snapshot: str, names: list[str], dialect: Dialect) -> None:
    image = tmp_path / "image"

    summary = await export(files(names, dialect), image)

    assert summary.checked
    check(image.read_bytes(), snapshot)


@each_dialect
@each_chain
async def test_they_are_restored(cluster: Cluster, snapshot: str, names: list[str], dialect: Dialect) -> None:
    summary = await restore(cluster, files(names, dialect), "restored")

    assert summary.checked
    size, object_size = IMAGES[snapshot]["size"], summary.object_size
    held = await content_of(cluster, "restored", None)
    image = b"".join(held.get(idx, bytes(object_size)) for idx in range(-(-size // object_size)))
    check(image[:size], snapshot)
