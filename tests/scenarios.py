"""The golden scenarios: what was written and snapshotted, and what the reference clients made of it."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

from asyncbackup import Cluster, Dialect, Volume

GOLDEN = Path(__file__).parent / "golden"
NAMES = ("edges", "three-snapshots")


def load(name: str) -> dict[str, Any]:
    """Read a scenario: vdi, size, object_size, steps, backups."""
    scenario: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())
    return scenario


def pairs() -> list[tuple[str, str, str]]:
    """Name each golden backup: scenario, base, snapshot."""
    return [(name, backup["from"], backup["to"]) for name in NAMES for backup in load(name)["backups"]]


def expected(name: str, base: str, to: str, dialect: Dialect) -> bytes:
    """Read what the reference client of ``dialect`` wrote."""
    return gzip.decompress((GOLDEN / f"{name}.{base}-{to}.{dialect.value}.gz").read_bytes())


async def play(cluster: Cluster, scenario: dict[str, Any], vdi: str | None = None) -> None:
    """Create the scenario's VDI, do its writes and take its snapshots."""
    name = vdi or scenario["vdi"]
    await cluster.create_vdi(name, scenario["size"])
    volume = await Volume.open(cluster, name)
    for step in scenario["steps"]:
        if "write" in step:
            await volume.write(step["write"]["offset"], content(step["write"]))
        else:
            await cluster.create_snapshot(name, step["snapshot"])
            volume = await Volume.open(cluster, name)


def content(write: dict[str, Any]) -> bytes:
    """Make the bytes of a write."""
    length: int = write["length"]
    match write["kind"]:
        case "zero":
            return bytes(length)
        case "fill":
            return bytes([write["byte"]]) * length
        case "text":
            return bytes(write["text"], "ascii").ljust(length, b"\0")
        case "random":
            return random.Random(write["seed"]).randbytes(length)
        case "tile":
            return random.Random(write["seed"]).randbytes(512) * (length // 512)
        case kind:
            raise ValueError(f"no content is of kind {kind!r}")
