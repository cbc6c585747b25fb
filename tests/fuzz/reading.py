"""Reads whatever it is given as a backup with a manifest, in every way there is, for fuzzing."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import aclosing, suppress
from pathlib import Path

from asyncbackup import ChainOptions, Dialect, NullSink, convert_to_rbd_diff, export, merge
from asyncbackup.engine.manifest import manifest_path
from asyncbackup.engine.reader import BackupReader
from asyncbackup.errors import AsyncBackupError
from asyncbackup.format.decoder import LOOK_AHEAD, Damage, Decoder, candidates
from asyncbackup.format.manifest import MAX_LINE, ManifestDecoder
from asyncbackup.sinks import Sink
from tests.scenarios import GOLDEN

OBJECT_SIZE = 1 << 20
SIZE = 8 << 20


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
    """Read files as ``verify``, ``export``, ``merge`` and ``convert`` do; only documented errors come through."""
    path = folder / "backup"
    path.write_bytes(backup)
    if manifest is not None:
        manifest_path(path).write_bytes(manifest)
    for dialect in (None, *Dialect):
        with suppress(AsyncBackupError):
            await _walk(path, dialect)
    options = ChainOptions(None, OBJECT_SIZE, SIZE)
    sink: Sink
    async with NullSink() as sink:
        with suppress(AsyncBackupError):
            await export([path], sink, chain_options=options)
        with suppress(AsyncBackupError):
            await merge([path], sink, chain_options=options)
        with suppress(AsyncBackupError):
            await convert_to_rbd_diff(path, sink, chain_options=options)


async def _walk(path: Path, dialect: Dialect | None) -> None:
    buffer = memoryview(bytearray(64 << 10))
    async with BackupReader(path, dialect=dialect) as reader, aclosing(reader.records()) as records:
        async for record in records:
            for start in range(0, record.header.length, len(buffer)):
                await reader.read_data(record, start, buffer[: record.header.length - start])


def seeds() -> list[bytes]:
    """Give some good backups, of both dialects, to begin with."""
    return [gzip.decompress(path.read_bytes())[:4096] for path in sorted(GOLDEN.glob("*.gz"))]
