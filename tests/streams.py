"""Standard input and output of this process, replaced for the time of a test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def standard_input(source: Path | bytes) -> Iterator[None]:
    """Let a file, or a pipe that holds some bytes and ends, be what stands on descriptor 0."""
    with _replaced(0, os.open(source, os.O_RDONLY) if isinstance(source, Path) else _pipe(source)):
        yield


@contextmanager
def standard_output(path: Path) -> Iterator[None]:
    """Let what is written to descriptor 1 go to a file."""
    with _replaced(1, os.open(path, os.O_WRONLY | os.O_CREAT)):
        yield


def _pipe(data: bytes) -> int:
    reader, writer = os.pipe()
    written = os.write(writer, data)
    os.close(writer)
    assert written == len(data), "more than a pipe holds at once"
    return reader


@contextmanager
def _replaced(standard: int, descriptor: int) -> Iterator[None]:
    saved = os.dup(standard)
    os.dup2(descriptor, standard)
    os.close(descriptor)
    try:
        yield
    finally:
        os.dup2(saved, standard)
        os.close(saved)
