"""The embedded server as a cluster to measure: ``python -m asyncbackup.bench.embedded HOST COPIES FOLDER...``.

There is a node for each FOLDER, which keeps its objects. In lists of nodes they have address HOST. It prints the ports.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio

from asyncbackup.sheep import FolderStore, SheepCluster


class _NamedCluster(SheepCluster):
    """A cluster whose nodes have another address in its lists than the one that they are bound to."""

    def __init__(self, folders: Sequence[Path], named: str, copies: int) -> None:
        super().__init__([FolderStore(folder) for folder in folders], copies=copies)
        self._named = named

    @property
    def addresses(self) -> list[tuple[str, int]]:
        return [(self._named, port) for _, port in super().addresses]


async def _serve(named: str, copies: int, folders: Sequence[Path]) -> None:
    async with _NamedCluster(folders, named, copies) as cluster:
        os.write(1, " ".join(str(port) for _, port in cluster.addresses).encode() + b"\n")
        await asyncio.Event().wait()


if __name__ == "__main__":
    named, copies, *folders = sys.argv[1:]
    served = named, int(copies), [Path(folder) for folder in folders]
    anyio.run(_serve, *served, backend_options={"use_uvloop": True})
