from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from asyncbackup.errors import TargetBusy, TargetUnusable
from asyncbackup.storage import FileTarget, NewImage, StandingImage
from asyncbackup.storage.lock import NameLock
from tests.descriptors import open_descriptors


def test_a_lock_leaves_no_file(tmp_path: Path) -> None:
    lock = NameLock(tmp_path / "lock", "file")
    lock.acquire()
    assert (tmp_path / "lock").exists()

    lock.release()
    lock.release()

    assert list(tmp_path.iterdir()) == []


def test_the_second_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    first, second = (NameLock(tmp_path / "lock", "file") for _ in range(2))
    first.acquire()

    with pytest.raises(
        TargetBusy,
        match=f"^file: process {os.getpid()} on {os.uname().nodename} is writing it since 20..-..-..T..:..:..Z$",
    ):
        second.acquire()
    first.release()
    second.acquire()

    second.release()


@pytest.mark.parametrize(
    ("owner", "told"),
    [
        (b"", "another process is writing it"),
        (b"12 far.away\n", "process 12 on far.away is writing it"),
        (b"12 far.away 2026-11-28T03:00:00Z\n", "process 12 on far.away is writing it since 2026-11-28T03:00:00Z"),
        (b"12", "process 12 on some machine is writing it"),
        (b"\xff odd", "another process is writing it"),
    ],
)
def test_an_owner_is_named_as_far_as_it_is_known(tmp_path: Path, owner: bytes, told: str) -> None:
    first = NameLock(tmp_path / "lock", "file")
    first.acquire()
    (tmp_path / "lock").write_bytes(owner)

    with pytest.raises(TargetBusy, match=f"file: {told}$"):
        NameLock(tmp_path / "lock", "file").acquire()

    first.release()


def test_a_lock_file_that_nobody_holds_keeps_nobody_out(tmp_path: Path) -> None:
    (tmp_path / "lock").write_bytes(b"1234567 far.away and long gone\n")
    lock = NameLock(tmp_path / "lock", "file")

    lock.acquire()

    pid, machine, since = (tmp_path / "lock").read_text().split()
    assert (pid, machine) == (str(os.getpid()), os.uname().nodename)
    assert abs(datetime.fromisoformat(since) - datetime.now(UTC)) < timedelta(minutes=1)
    lock.release()


def test_a_lock_file_that_goes_between_opening_and_locking_is_not_taken_for_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, third = tmp_path / "lock", NameLock(tmp_path / "lock", "file")
    holder = NameLock(path, "file")
    holder.acquire()
    fstat = os.fstat

    def release_once(descriptor: int) -> os.stat_result:
        monkeypatch.setattr(os, "fstat", fstat)
        status = fstat(descriptor)
        holder.release()
        third.acquire()
        return status

    monkeypatch.setattr(os, "fstat", release_once)

    with pytest.raises(TargetBusy):
        NameLock(path, "file").acquire()

    third.release()


def test_a_lock_file_that_goes_for_good_meanwhile_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder, lock = (NameLock(tmp_path / "lock", "file") for _ in range(2))
    holder.acquire()
    fstat = os.fstat

    def release_once(descriptor: int) -> os.stat_result:
        monkeypatch.setattr(os, "fstat", fstat)
        status = fstat(descriptor)
        holder.release()
        return status

    monkeypatch.setattr(os, "fstat", release_once)
    lock.acquire()

    assert (tmp_path / "lock").exists()
    lock.release()


def test_a_lock_needs_no_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    lock = NameLock(tmp_path / "lock", "file")
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", fail)
        lock.acquire()

    with pytest.raises(TargetBusy, match="another process"):
        NameLock(tmp_path / "lock", "file").acquire()
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_file_is_no_lock(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock")

    with pytest.raises(TargetUnusable, match="cannot be used as a lock"):
        NameLock(tmp_path / "lock", "file").acquire()


def test_no_descriptor_stays_open_after_a_refusal(tmp_path: Path) -> None:
    holder = NameLock(tmp_path / "lock", "file")
    holder.acquire()
    before = len(open_descriptors())

    with pytest.raises(TargetBusy):
        NameLock(tmp_path / "lock", "file").acquire()

    assert len(open_descriptors()) == before
    holder.release()


_HOLD = """
import sys
from pathlib import Path
from asyncbackup.storage.lock import NameLock
NameLock(Path(sys.argv[1]), "file").acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(TargetBusy, match=f"process {process.pid} on .* is writing it"):
            NameLock(path, "file").acquire()
        process.kill()
        process.wait()

    lock = NameLock(path, "file")
    lock.acquire()
    lock.release()


@pytest.mark.parametrize("kind", [FileTarget, NewImage, StandingImage])
async def test_nobody_else_writes_a_file_that_is_being_written(
    tmp_path: Path, kind: type[FileTarget | NewImage | StandingImage]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    first = StandingImage(tmp_path / "file") if kind is StandingImage else FileTarget(tmp_path / "file", replace=True)

    async with first:
        second = (
            StandingImage(tmp_path / "link") if kind is StandingImage else kind(tmp_path / "link", replace=True)  # type: ignore[call-arg]
        )
        with pytest.raises(TargetBusy):
            await second.__aenter__()
        with pytest.raises(TargetBusy):
            await NewImage(tmp_path / "file", replace=True).__aenter__()
