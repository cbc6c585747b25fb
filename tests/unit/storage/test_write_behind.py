"""Writing to the disk on the way: what the kernel says, and what is done where it cannot."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from asyncbackup.storage.write_behind import start_writing, write_most

FUNCTION = "asyncbackup.storage.write_behind._SYNC_FILE_RANGE"


def refusing(code: int) -> Callable[..., int]:
    def refuse(*_: object) -> int:
        ctypes.set_errno(code)
        return -1

    return refuse


@pytest.fixture
def flushes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []
    monkeypatch.setattr(os, "fdatasync", found.append)
    return found


def test_a_file_is_written_without_a_flush(tmp_path: Path, flushes: list[int]) -> None:
    with (tmp_path / "file").open("wb", buffering=0) as file:
        file.write(b"data")
        start_writing(file.fileno())
        write_most(file.fileno())

    assert flushes == []


@pytest.mark.parametrize("function", [None, refusing(errno.ENOSYS), refusing(errno.ESPIPE)])
def test_where_the_kernel_cannot_the_file_is_flushed(
    monkeypatch: pytest.MonkeyPatch, flushes: list[int], function: Callable[..., int] | None
) -> None:
    monkeypatch.setattr(FUNCTION, function)

    start_writing(7)
    write_most(7)

    assert flushes == [7]


@pytest.mark.parametrize("write", [start_writing, write_most])
def test_an_error_of_the_disk_is_raised(monkeypatch: pytest.MonkeyPatch, write: Callable[[int], None]) -> None:
    monkeypatch.setattr(FUNCTION, refusing(errno.EIO))

    with pytest.raises(OSError, match="Input/output error"):
        write(7)
