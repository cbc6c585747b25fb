"""What is backed up, and from where."""

from __future__ import annotations

import json
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass

from asyncbackup.client import Address, ClientOptions, Cluster, connect_any
from asyncbackup.client.cluster import Snapshot


@dataclass(frozen=True, slots=True)
class Job:
    """A snapshot of a VDI, or what changed since another one, and the nodes through which to reach it."""

    gateways: tuple[Address, ...]
    vdi: str
    snapshot: Snapshot
    base: Snapshot | None = None
    """None: a full backup."""
    empty: Snapshot | None = None
    """A snapshot of the VDI before anything was written: for who knows no full backup, but the difference to that."""
    rate: int | None = None
    """Bytes a second to read, at most."""

    def connect(self) -> AbstractAsyncContextManager[Cluster]:
        """Connect as a backup does."""
        return connect_any(self.gateways, ClientOptions(rate=self.rate))

    def encode(self) -> str:
        """Write it as JSON, for a process of ours."""
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> Job:
        """Read what ``encode`` wrote."""
        told = json.loads(text)
        return cls(**told | {"gateways": tuple((host, port) for host, port in told["gateways"])})
