"""Reads whatever it is given as a backup with a manifest, in every way there is: read, or refused, in little memory."""

from __future__ import annotations

import asyncio
import gzip
import struct
import tempfile
import tracemalloc
from collections.abc import Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hypothesis import strategies as st

from asyncbackup import ChainOptions, Dialect, NullTarget, convert_to_rbd_diff, export, join, merge
from asyncbackup.engine.reader import open_backup
from asyncbackup.errors import AsyncBackupError
from asyncbackup.format.decoder import LOOK_AHEAD, Damage, Decoder, candidates
from asyncbackup.format.manifest import MAX_LINE, ManifestDecoder
from asyncbackup.storage import Target
from asyncbackup.storage.publication import manifest_path
from tests.fuzz.damage import apply, damages
from tests.fuzz.world import content
from tests.scenarios import GOLDEN

OBJECT_SIZE = 1 << 20
SIZE = 8 << 20
MEMORY: Final = 24 << 20
"""Bytes that reading takes at most: small files have no reason to take more, whatever they say of themselves."""


def decode(data: bytes) -> None:
    """Feed the sans-IO decoders; whatever is wrong is a Damage."""
    with suppress(Damage):
        candidates(data[:LOOK_AHEAD])
    for dialect in Dialect:
        decoder = Decoder(dialect)
        with suppress(Damage):
            while decoder.next_size and decoder.offset <= len(data):
                decoder.feed(data[decoder.offset : decoder.offset + decoder.next_size])
    manifest = ManifestDecoder()
    with suppress(Damage):
        for line in _lines(data):
            manifest.feed(line)
        manifest.finish()


def _lines(data: bytes) -> Iterator[bytes]:
    while data:
        end = min(data.find(b"\n") + 1 or len(data), MAX_LINE)
        yield data[:end]
        data = data[end:]


async def read(folder: Path, backup: bytes, manifest: bytes | None) -> None:
    """Read files as ``verify``, ``export``, ``merge``, ``convert`` and ``join`` do; only documented errors get out."""
    path = folder / "backup"
    path.write_bytes(backup)
    if manifest is not None:
        manifest_path(path).write_bytes(manifest)
    for dialect in (None, *Dialect):
        with suppress(AsyncBackupError):
            await _walk(path, dialect)
    options = ChainOptions(None, OBJECT_SIZE, SIZE)
    target: Target
    async with NullTarget() as target:
        with suppress(AsyncBackupError):
            await export([path], target, chain_options=options, allow_incomplete=True)
        with suppress(AsyncBackupError):
            await merge([path], target, chain_options=options)
        with suppress(AsyncBackupError):
            await join([path], target)
        with suppress(AsyncBackupError):
            await convert_to_rbd_diff(path, target, chain_options=options)


async def _walk(path: Path, dialect: Dialect | None) -> None:
    buffer = memoryview(bytearray(64 << 10))
    async with open_backup(path, dialect=dialect, takes_pieces=True) as reader, aclosing(reader.records()) as records:
        async for record in records:
            for start in range(0, record.header.length, len(buffer)):
                await reader.read_data(record, start, buffer[: record.header.length - start])


@dataclass(frozen=True)
class Case:
    """The bytes of a backup, and of its manifest if it has one."""

    backup: bytes
    manifest: bytes | None


def _damaged(name: str) -> st.SearchStrategy[bytes]:
    return damages.map(lambda changes: apply(changes, content(name)))


def _golden() -> list[bytes]:
    """Give some good backups, of both dialects, to begin with."""
    return [gzip.decompress(path.read_bytes())[:4096] for path in sorted(GOLDEN.glob("*.gz"))]


_MAGIC: Final = struct.pack("<II", 1, 0x11921192)
_NUMBERS: Final = st.one_of(st.integers(0, 3), st.sampled_from([512, 1 << 20, 1 << 22, 1 << 31, (1 << 32) - 1, 513]))
_HEADERS: Final = st.builds(
    lambda *fields: struct.pack("<IIII", *fields), _NUMBERS, _NUMBERS, _NUMBERS, st.sampled_from([0, 0, 1])
)
_PIECES: Final = st.one_of(
    _HEADERS, _HEADERS, st.binary(max_size=64), st.just(bytes(512)), st.just(b"\xff" * 4 + bytes(12))
)
_MADE_UP: Final = st.builds(lambda pieces: _MAGIC + b"".join(pieces), st.lists(_PIECES, max_size=8))

cases: Final = st.one_of(
    st.builds(Case, st.one_of(st.binary(max_size=200), _MADE_UP), st.none() | st.binary(max_size=200)),
    st.builds(
        lambda data, changes: Case(apply(changes, data), None),
        st.deferred(lambda: st.sampled_from(_golden())),
        damages,
    ),
    *(
        st.deferred(lambda name=name: st.builds(Case, _damaged(name), _damaged(f"{name}.manifest")))  # type: ignore[misc]
        for name in ("inc", "gaps", "sole")
    ),
    *(
        st.deferred(lambda name=name: st.builds(Case, st.just(content(name)), _damaged(f"{name}.manifest")))  # type: ignore[misc]
        for name in ("inc", "gaps", "sole")
    ),
)


def check(case: Case) -> None:
    """Read a case in every way."""
    decode(case.backup)
    if case.manifest is not None:
        decode(case.manifest)
    with tempfile.TemporaryDirectory() as folder:
        tracemalloc.start()
        try:
            asyncio.run(read(Path(folder), case.backup, case.manifest))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < MEMORY, f"{peak >> 20} MiB"
