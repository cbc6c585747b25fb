"""A store that speaks S3, as a process of its own: ``python -m benchmarks.s3``. It has a bucket, and prints its URL."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from asyncbackup.bench.programs import LOCAL
from asyncbackup.bench.serving import FAR, delayed, started
from tests.object_stores import environment_of, serving_s3


@dataclass(frozen=True, slots=True)
class Store:
    """A store that serves, at two addresses: over the shortest way, and over a longer one."""

    port: int
    bucket: str

    def url(self, name: str) -> str:
        """Name an object."""
        return f"s3://{self.bucket}/{name}"

    def leading(self, command: Sequence[str], host: str = LOCAL) -> list[str]:
        """Have a command reach it through ``host``."""
        told = environment_of(f"http://{host}:{self.port}")
        return ["env", *(f"{name}={value}" for name, value in told.items()), *command]


@asynccontextmanager
async def serving(delay_ms: float = 0) -> AsyncIterator[Store]:
    """Run a store, which is ``delay_ms`` away at FAR if that is not 0. Raises ProgramFailed."""
    async with started([sys.executable, "-m", "benchmarks.s3"]) as line:
        url = urlsplit(line.strip())
        assert url.port is not None
        store = Store(url.port, url.path.lstrip("/"))
        if not delay_ms:
            yield store
            return
        async with delayed(FAR, delay_ms, [store.port]):
            yield store


if __name__ == "__main__":
    with serving_s3() as server:
        os.write(1, f"{server.endpoint}/{server.new_bucket()}\n".encode())
        signal.pause()
