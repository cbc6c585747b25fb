from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from asyncbackup.errors import SourceUnreadable, TargetBusy, TargetFull, TargetUnusable
from asyncbackup.storage import journal as journal_module
from asyncbackup.storage.journal import JournalFile, journal_beside
from tests.folders import left_in


async def test_lines_stay_and_are_read_again(tmp_path: Path) -> None:
    async with JournalFile(tmp_path / "journal") as journal:
        assert await journal.read() == []
        await journal.append(b"one\n")
        await journal.append(b"two\n")

    async with JournalFile(tmp_path / "journal") as journal:
        assert await journal.read() == [b"one\n", b"two\n"]
        await journal.append(b"three\n")
        assert await journal.read() == [b"one\n", b"two\n", b"three\n"]


async def test_a_line_is_on_disk_when_it_was_appended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    async with JournalFile(tmp_path / "journal") as journal:
        await journal.append(b"one\n")
        await journal.append(b"two\n")

    assert flushed == ["journal", tmp_path.name, "journal"]


async def test_one_without_lines_goes(tmp_path: Path) -> None:
    async with JournalFile(tmp_path / "journal"):
        pass
    assert left_in(tmp_path) == []

    async with JournalFile(tmp_path / "journal") as journal:
        await journal.append(b"line\n")
        await journal.clear()
        assert await journal.read() == []

    assert left_in(tmp_path) == []


async def test_nobody_else_opens_it(tmp_path: Path) -> None:
    async with JournalFile(tmp_path / "journal"):
        with pytest.raises(TargetBusy):
            await JournalFile(tmp_path / "journal").__aenter__()


async def test_what_is_no_file_is_no_journal(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "file")

    for name in ("folder", "fifo", "link", "missing/journal"):
        with pytest.raises(TargetUnusable):
            await JournalFile(tmp_path / name).__aenter__()

    assert left_in(tmp_path) == ["fifo", "folder", "link"]


async def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with JournalFile(tmp_path / "journal") as journal:
        monkeypatch.setattr(os, "write", fail)
        with pytest.raises(TargetFull):
            await journal.append(b"line\n")


async def test_one_that_is_absurdly_long_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "_MAX_SIZE", 100)
    (tmp_path / "journal").write_bytes(bytes(101))

    async with JournalFile(tmp_path / "journal") as journal:
        with pytest.raises(SourceUnreadable, match="at most 100 bytes"):
            await journal.read()


def test_each_work_has_a_journal_of_its_own_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")

    one, other = (journal_beside(tmp_path / "file", vdi) for vdi in ("vm1", "../vm2\udcff"))

    assert one != other
    assert {one.parent, other.parent} == {tmp_path}
    assert one.name.startswith(".file.restore-")
    assert journal_beside(tmp_path / "link", "vm1") == one
