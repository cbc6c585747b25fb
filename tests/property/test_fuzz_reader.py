"""Whatever bytes are given for a backup, they are read, or refused with a documented error, in little memory."""

from __future__ import annotations

import struct
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncbackup.engine.manifest import manifest_path
from tests.chains import copy_files
from tests.fuzz.reading import decode, read, seeds

MAGIC = struct.pack("<II", 1, 0x11921192)
NUMBERS = st.one_of(st.integers(0, 3), st.sampled_from([512, 1 << 20, 1 << 22, 1 << 31, (1 << 32) - 1, 513]))
HEADERS = st.builds(
    lambda *fields: struct.pack("<IIII", *fields), NUMBERS, NUMBERS, NUMBERS, st.sampled_from([0, 0, 1])
)
PIECES = st.one_of(HEADERS, HEADERS, st.binary(max_size=64), st.just(bytes(512)), st.just(b"\xff" * 4 + bytes(12)))
MADE_UP = st.builds(lambda pieces: MAGIC + b"".join(pieces), st.lists(PIECES, max_size=8))

PEAK = 24 << 20
"""Bytes that reading takes at most: small files have no reason to take more, whatever they say of themselves."""


@st.composite
def mutated(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """Take a good file, and change, cut out, double or cut off some of it."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, min(len(data), 200) - 1)))
        end = at + draw(st.integers(0, 40))
        match draw(st.sampled_from(["set", "cut", "double", "end"])):
            case "set" if data:
                data[at] = draw(st.integers(0, 255))
            case "cut":
                del data[at:end]
            case "double":
                data[at:at] = data[at:end]
            case "end":
                del data[end:]
    return bytes(data)


async def check(backup: bytes, manifest: bytes | None) -> None:
    decode(backup)
    if manifest is not None:
        decode(manifest)
    with tempfile.TemporaryDirectory() as folder:
        tracemalloc.start()
        try:
            await read(Path(folder), backup, manifest)
            assert tracemalloc.get_traced_memory()[1] < PEAK
        finally:
            tracemalloc.stop()


@settings(max_examples=60)
@given(st.one_of(st.binary(max_size=200), MADE_UP), st.none() | st.binary(max_size=200))
async def test_made_up_bytes(backup: bytes, manifest: bytes | None) -> None:
    await check(backup, manifest)


@settings(max_examples=60)
@given(mutated(seeds()))
async def test_backups_with_a_few_bytes_changed(backup: bytes) -> None:
    await check(backup, None)


@pytest.fixture
def good(tmp_path: Path) -> tuple[bytes, bytes]:
    files = copy_files(tmp_path)
    return files.bc.read_bytes(), manifest_path(files.bc).read_bytes()


@settings(max_examples=40)
@given(st.data())
async def test_manifests_with_a_few_bytes_changed(good: tuple[bytes, bytes], data: st.DataObject) -> None:
    backup, manifest = good

    await check(backup, data.draw(mutated([manifest])))
