from __future__ import annotations

import asyncio
import errno
import os
import resource
import stat
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from asyncbackup.errors import TargetError, TargetExists, TargetFull, TargetUnusable, TargetWriteFailed
from asyncbackup.storage import FileTarget, NullTarget, opening, publish
from tests.descriptors import open_descriptors
from tests.folders import left_in
from tests.privileges import unprivileged


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    made.mkdir()
    return made


async def write(
    path: Path,
    *buffers: bytes,
    beginning: bytes = b"",
    replace: bool = False,
    before_completing: Callable[[], object] = lambda: None,
) -> None:
    async with FileTarget(path, replace=replace) as target:
        await target.append(buffers)
        before_completing()
        await target.complete(beginning)


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def failing(code: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


class Gate:
    """Holds a system call in its thread until told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.entered = threading.Event()
        self.go_on = threading.Event()
        call = getattr(os, name)

        def wait(*args: object, **kwargs: object) -> object:
            self.entered.set()
            self.go_on.wait(10)
            return call(*args, **kwargs)

        monkeypatch.setattr(os, name, wait)


async def test_what_was_appended_is_in_the_file(folder: Path) -> None:
    async with FileTarget(folder / "file") as target:
        await target.append([b"zero", bytearray(b"one")])
        await target.append([memoryview(b"two")])
        await target.complete()

    assert (folder / "file").read_bytes() == b"zeroonetwo"


async def test_completing_replaces_the_beginning(folder: Path) -> None:
    async with FileTarget(folder / "file") as target:
        await target.append([b"0000rest"])
        await target.complete(b"head")

    assert (folder / "file").read_bytes() == b"headrest"


async def test_the_name_appears_only_when_it_is_complete(folder: Path) -> None:
    async with FileTarget(folder / "file") as target:
        await target.append([b"data"])
        assert not (folder / "file").exists()

        await target.complete()

        assert (folder / "file").read_bytes() == b"data"


async def test_nothing_else_is_left_when_it_is_complete(folder: Path) -> None:
    async with FileTarget(folder / "file") as target:
        await target.complete()

    assert left_in(folder) == ["file"]


async def test_nothing_is_left_of_what_is_not_completed(folder: Path) -> None:
    async with FileTarget(folder / "file") as target:
        await target.append([b"data"])

    assert left_in(folder) == []


async def test_nothing_is_left_after_an_error(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        await write(folder / "file", b"data", before_completing=lambda: 1 // 0)

    assert left_in(folder) == []


async def test_permissions_follow_the_umask(folder: Path) -> None:
    before = os.umask(0o027)
    try:
        async with FileTarget(folder / "file") as target:
            await target.complete()
    finally:
        os.umask(before)

    assert stat.S_IMODE((folder / "file").stat().st_mode) == 0o640


async def test_no_descriptor_stays_open(folder: Path) -> None:
    async with FileTarget(folder / "warm-up"):
        pass
    before = open_descriptors()

    async with FileTarget(folder / "file") as target:
        await target.complete()
    async with FileTarget(folder / "other"):
        pass

    # Those that other tests left to the garbage collector may be gone by now.
    assert {*open_descriptors()} <= {*before}


async def test_an_existing_file_is_refused_and_stays(folder: Path) -> None:
    (folder / "file").write_bytes(b"old")

    with pytest.raises(TargetExists, match="file: exists already"):
        async with FileTarget(folder / "file"):
            pytest.fail("entered")

    assert left_in(folder) == ["file"]
    assert (folder / "file").read_bytes() == b"old"


async def test_a_dangling_link_is_refused(folder: Path) -> None:
    (folder / "link").symlink_to(folder / "nowhere")

    with pytest.raises(TargetExists):
        async with FileTarget(folder / "link"):
            pytest.fail("entered")


@pytest.mark.parametrize("name", [".", "..", "/"])
async def test_a_folder_is_refused_however_it_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(folder)

    for replace in (False, True):
        with pytest.raises(TargetUnusable, match="folder"):
            async with FileTarget(name, replace=replace):
                pytest.fail("entered")


async def test_a_name_may_be_as_long_as_names_are(folder: Path) -> None:
    name = "ü" * 127 + "x"

    async with FileTarget(folder / name) as target:
        await target.complete()

    assert left_in(folder) == [name]


async def test_a_file_made_by_somebody_else_meanwhile_survives(folder: Path) -> None:
    with pytest.raises(TargetExists):
        await write(folder / "file", b"ours", before_completing=lambda: (folder / "file").write_bytes(b"theirs"))

    assert left_in(folder) == ["file"]
    assert (folder / "file").read_bytes() == b"theirs"


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
async def test_a_file_system_without_hard_links_will_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(os, "link", failing(code))

    async with FileTarget(folder / "file") as target:
        await target.append([b"data"])
        await target.complete()

    assert left_in(folder) == ["file"]


async def test_without_hard_links_a_file_made_meanwhile_survives_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", failing(errno.EPERM))

    with pytest.raises(TargetExists):
        await write(folder / "file", b"ours", before_completing=lambda: (folder / "file").write_bytes(b"theirs"))

    assert (folder / "file").read_bytes() == b"theirs"


async def test_a_failing_link_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", failing(errno.EIO))

    with pytest.raises(TargetWriteFailed, match="Input/output error"):
        async with FileTarget(folder / "file") as target:
            await target.complete()

    assert left_in(folder) == []


async def test_replacing_keeps_the_old_file_until_the_new_one_is_complete(folder: Path) -> None:
    (folder / "file").write_bytes(b"old")

    async with FileTarget(folder / "file", replace=True) as target:
        await target.append([b"new"])
        assert (folder / "file").read_bytes() == b"old"
        await target.complete()

    assert left_in(folder) == ["file"]
    assert (folder / "file").read_bytes() == b"new"


async def test_replacing_without_completing_keeps_the_old_file(folder: Path) -> None:
    (folder / "file").write_bytes(b"old")

    async with FileTarget(folder / "file", replace=True) as target:
        await target.append([b"new"])

    assert left_in(folder) == ["file"]
    assert (folder / "file").read_bytes() == b"old"


async def test_replacing_nothing_makes_a_file(folder: Path) -> None:
    async with FileTarget(folder / "file", replace=True) as target:
        await target.complete()

    assert left_in(folder) == ["file"]


async def test_replacing_through_a_link_replaces_what_it_points_to(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (folder / "link").symlink_to(tmp_path / "real")

    async with FileTarget(folder / "link", replace=True) as target:
        await target.append([b"new"])
        await target.complete()

    assert (folder / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


async def test_replacing_through_a_dangling_link_makes_what_it_points_to(folder: Path, tmp_path: Path) -> None:
    (folder / "link").symlink_to(tmp_path / "real")

    async with FileTarget(folder / "link", replace=True) as target:
        await target.complete()

    assert (folder / "link").is_symlink()
    assert (tmp_path / "real").is_file()


async def test_what_is_no_regular_file_is_not_replaced(folder: Path) -> None:
    os.mkfifo(folder / "fifo")

    with pytest.raises(TargetUnusable, match="fifo: is no regular file, so it is not replaced"):
        async with FileTarget(folder / "fifo", replace=True):
            pytest.fail("entered")

    assert left_in(folder) == ["fifo"]


async def test_a_missing_folder_is_told(folder: Path) -> None:
    with pytest.raises(TargetUnusable, match="No such file or directory"):
        async with FileTarget(folder / "missing" / "file"):
            pytest.fail("entered")


async def test_a_folder_that_is_a_file_is_told(folder: Path) -> None:
    (folder / "file").touch()

    with pytest.raises(TargetUnusable, match="Not a directory"):
        async with FileTarget(folder / "file" / "file"):
            pytest.fail("entered")


async def test_a_folder_that_is_not_ours_is_told() -> None:
    with tempfile.TemporaryDirectory() as readable:  # unlike tmp_path, below folders that everybody may enter
        os.chmod(readable, 0o555)  # noqa: PTH101 - a name is all there is
        with unprivileged(), pytest.raises(TargetUnusable, match="Permission denied"):
            await write(Path(readable) / "file")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
async def test_a_full_disk_is_told_and_nothing_is_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(os, "writev", failing(code))

    with pytest.raises(TargetFull, match=os.strerror(code)):
        async with FileTarget(folder / "file") as target:
            await target.append([b"data"])

    assert left_in(folder) == []


async def test_a_real_size_limit_is_told_and_nothing_is_left(folder: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # Python ignores the signal that comes with it.
    try:
        with pytest.raises(TargetFull, match="File too large"):
            async with FileTarget(folder / "file") as target:
                await target.append([bytes(800), bytes(800)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert left_in(folder) == []


@pytest.mark.parametrize("call", ["writev", "pwrite", "fsync"])
async def test_a_failing_disk_is_told_and_nothing_is_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(os, call, failing(errno.EIO))

    with pytest.raises(TargetWriteFailed, match="Input/output error"):
        await write(folder / "file", b"data", beginning=b"head")

    assert left_in(folder) == []


async def test_a_full_disk_at_completing_keeps_the_old_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "file").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", failing(errno.ENOSPC))

    with pytest.raises(TargetFull):
        await write(folder / "file", b"new", replace=True)

    assert left_in(folder) == ["file"]
    assert (folder / "file").read_bytes() == b"old"


async def test_short_writes_are_continued(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writev = os.writev
    monkeypatch.setattr(os, "writev", lambda descriptor, buffers: writev(descriptor, [memoryview(buffers[0])[:3]]))

    async with FileTarget(folder / "file") as target:
        await target.append([b"0123", b"", b"45678", b"9"])
        await target.complete()

    assert (folder / "file").read_bytes() == b"0123456789"


async def test_more_buffers_than_the_kernel_takes_are_written(folder: Path) -> None:
    async with FileTarget(folder / "file") as target:
        await target.append([bytes([number % 256]) for number in range(3000)])
        await target.complete()

    assert (folder / "file").read_bytes() == bytes(number % 256 for number in range(3000))


async def test_long_files_are_written_to_the_disk_on_the_way(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    waited: list[int] = []
    monkeypatch.setattr("asyncbackup.storage.serial_file.start_writing", started.append)
    monkeypatch.setattr("asyncbackup.storage.serial_file.write_most", waited.append)
    monkeypatch.setattr(os, "writev", lambda _, buffers: sum(map(len, buffers)))
    piece = memoryview(bytes(1 << 20))

    async with FileTarget(folder / "file") as target:
        for _ in range(130):
            await target.append([piece])

    assert (len(started), len(waited)) == (14, 2)


async def test_an_error_of_the_disk_on_the_way_is_an_error_of_the_target(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncbackup.storage.serial_file.start_writing", failing(errno.EIO))

    async with FileTarget(folder / "file") as target:
        with pytest.raises(TargetWriteFailed, match="Input/output error"):
            await target.append([memoryview(bytes(8 << 20))])


async def test_a_failing_open_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "open", failing(errno.EMFILE))

    with pytest.raises(TargetUnusable, match="Too many open files"):
        async with FileTarget(folder / "file"):
            pytest.fail("entered")

    assert left_in(folder) == []


async def test_an_error_carries_the_target(folder: Path) -> None:
    with pytest.raises(TargetError) as caught:
        async with FileTarget(folder / "missing" / "file"):
            pytest.fail("entered")

    assert caught.value.target == str(folder / "missing" / "file")


@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
async def test_a_cancellation_takes_back_after_the_write_under_way(
    folder: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    gate = Gate(monkeypatch, "writev")

    task = asyncio.create_task(write(folder / "file", b"data"))
    await asyncio.to_thread(gate.entered.wait, 10)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    gate.go_on.set()
    await asyncio.wait([task])

    assert task.cancelled()
    assert left_in(folder) == []


async def test_a_cancel_scope_takes_back_after_the_write_under_way(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch, "writev")
    with anyio.CancelScope() as scope:

        async def cancel() -> None:
            await asyncio.to_thread(gate.entered.wait, 10)
            scope.cancel()
            gate.go_on.set()

        task = asyncio.create_task(cancel())
        async with FileTarget(folder / "file") as target:
            await target.append([b"data"])

    await task
    assert scope.cancelled_caught
    assert left_in(folder) == []


@pytest.mark.parametrize("replace", [False, True])
async def test_completing_that_is_cancelled_is_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, replace: bool
) -> None:
    gate = Gate(monkeypatch, "fsync")

    task = asyncio.create_task(write(folder / "file", b"0000rest", beginning=b"head", replace=replace))
    await asyncio.to_thread(gate.entered.wait, 10)
    task.cancel()
    gate.go_on.set()
    await asyncio.wait([task])

    assert task.cancelled()
    assert left_in(folder) == ["file"]
    assert (folder / "file").read_bytes() == b"headrest"


@pytest.mark.parametrize("waits", [True, False], ids=["in time", "late"])
async def test_a_cancelled_open_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch, *, waits: bool) -> None:
    monkeypatch.setattr(opening, "GRACE_S", 60 if waits else 0)
    gate = Gate(monkeypatch, "open")
    task = asyncio.create_task(write(folder / "file"))
    await asyncio.to_thread(gate.entered.wait, 10)
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "opening")

    task.cancel()
    if waits:
        gate.go_on.set()
    await asyncio.wait([task])
    gate.go_on.set()
    await asyncio.to_thread(thread.join, 10)

    assert task.cancelled()
    assert left_in(folder) == []


async def write_both(
    folder: Path, before_publishing: Callable[[], object] = lambda: None, *, replace: bool = False
) -> None:
    async with (
        FileTarget(folder / "file", replace=replace) as data,
        FileTarget.beside(data, ".proof") as proof,
    ):
        await data.append([b"data"])
        await proof.append([b"proof"])
        before_publishing()
        await publish(data, proof)


async def test_what_stands_beside_a_file_appears_with_it(folder: Path) -> None:
    await write_both(folder)

    assert left_in(folder) == ["file", "file.proof"]
    assert (folder / "file.proof").read_bytes() == b"proof"


async def test_what_stands_beside_a_file_and_cannot_appear_takes_it_along(folder: Path) -> None:
    with pytest.raises(TargetExists, match=r"file\.proof: exists already"):
        await write_both(folder, before_publishing=lambda: (folder / "file.proof").write_bytes(b"theirs"))

    assert left_in(folder) == ["file.proof"]
    assert (folder / "file.proof").read_bytes() == b"theirs"


async def test_a_manifest_of_another_kind_is_completed_after_the_file(folder: Path) -> None:
    async with FileTarget(folder / "file") as target:
        await publish(target, NullTarget())

    assert left_in(folder) == ["file"]


async def test_what_is_attached_is_in_the_way_too(folder: Path) -> None:
    (folder / "file.proof").touch()

    with pytest.raises(TargetExists, match=r"file\.proof: exists already"):
        async with FileTarget(folder / "file", attached=[".proof"]):
            pytest.fail("entered")


async def test_what_is_attached_goes_with_the_file_it_belongs_to(folder: Path) -> None:
    (folder / "file").touch()
    (folder / "file.proof").touch()

    async with FileTarget(folder / "file", replace=True, attached=[".proof"]) as target:
        assert {"file", "file.proof"} < set(left_in(folder))
        await target.complete()

    assert left_in(folder) == ["file"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o604, 0o444, 0o4755])
async def test_what_replaces_a_file_has_its_permissions(folder: Path, mode: int) -> None:
    (folder / "file").touch()
    (folder / "file").chmod(mode)

    async with FileTarget(folder / "file", replace=True) as target:
        assert modes(folder)[".file.partial"] == mode & 0o777
        await target.complete()

    assert stat.S_IMODE((folder / "file").stat().st_mode) == mode & 0o777


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
async def test_what_replaces_a_file_has_its_owner(folder: Path) -> None:
    (folder / "file").touch()
    os.chown(folder / "file", 1234, 5678)

    async with FileTarget(folder / "file", replace=True) as target, FileTarget.beside(target, ".proof") as proof:
        await publish(target, proof)

    for name in ("file", "file.proof"):
        assert ((folder / name).stat().st_uid, (folder / name).stat().st_gid) == (1234, 5678)


async def test_what_belongs_to_a_file_keeps_its_own_permissions_and_has_else_those_of_the_file(folder: Path) -> None:
    for name, mode in (("file", 0o600), ("file.one", 0o640)):
        (folder / name).touch()
        (folder / name).chmod(mode)

    for suffix in (".one", ".two"):
        async with FileTarget(folder / "file", replace=True) as target, FileTarget.beside(target, suffix) as beside:
            await publish(target, beside)

    assert modes(folder) == {"file": 0o600, "file.one": 0o640, "file.two": 0o600}


@pytest.mark.parametrize(("mode", "narrowed"), [(0o640, 0o600), (0o660, 0o600), (0o664, 0o644), (0o646, 0o646)])
async def test_a_group_that_cannot_be_kept_gets_no_more_than_everybody(
    folder: Path, monkeypatch: pytest.MonkeyPatch, mode: int, narrowed: int
) -> None:
    (folder / "file").touch()
    (folder / "file").chmod(mode)
    monkeypatch.setattr(os, "fchown", failing(errno.EPERM))

    async with FileTarget(folder / "file", replace=True) as target:
        await target.complete()

    assert stat.S_IMODE((folder / "file").stat().st_mode) == narrowed


async def test_a_group_is_kept_where_the_owner_cannot_be(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "file").touch()
    (folder / "file").chmod(0o640)
    changes: list[tuple[int, int]] = []

    def change(_: int, owner: int, group: int) -> None:
        changes.append((owner, group))
        if owner >= 0:
            raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", change)

    async with FileTarget(folder / "file", replace=True) as target:
        await target.complete()

    status = (folder / "file").stat()
    assert changes[-1] == (-1, status.st_gid)
    assert stat.S_IMODE(status.st_mode) == 0o640


async def test_what_belongs_to_a_file_goes_where_a_link_to_the_file_leads(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (folder / "link").symlink_to(tmp_path / "real")

    async with (
        FileTarget(folder / "link", replace=True, attached=[".proof"]) as target,
        FileTarget.beside(target, ".proof") as proof,
    ):
        await proof.append([b"proof"])
        await publish(target, proof)

    assert left_in(folder) == ["link"]
    assert (tmp_path / "real.proof").read_bytes() == b"proof"


async def test_what_stands_beside_a_link_and_would_be_of_another_file_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "real").touch()
    (folder / "link").symlink_to(tmp_path / "real")
    (folder / "link.proof").write_bytes(b"of the old file")

    with pytest.raises(TargetUnusable, match=r"link\.proof: stands beside a link to .*real"):
        async with FileTarget(folder / "link", replace=True, attached=[".proof"]):
            pytest.fail("entered")

    (folder / "link.proof").unlink()
    (folder / "link.proof").symlink_to(tmp_path / "real.proof")
    async with FileTarget(folder / "link", replace=True, attached=[".proof"]):
        pass


async def test_a_link_in_the_place_of_what_belongs_to_a_file_is_replaced_itself(folder: Path, tmp_path: Path) -> None:
    (folder / "file").touch()
    (tmp_path / "elsewhere").write_bytes(b"theirs")
    (folder / "file.proof").symlink_to(tmp_path / "elsewhere")

    async with (
        FileTarget(folder / "file", replace=True, attached=[".proof"]) as target,
        FileTarget.beside(target, ".proof") as proof,
    ):
        await proof.append([b"ours"])
        await publish(target, proof)

    assert not (folder / "file.proof").is_symlink()
    assert (folder / "file.proof").read_bytes() == b"ours"
    assert (tmp_path / "elsewhere").read_bytes() == b"theirs"


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "an empty name"),
        ("folder/", "names a folder"),
        ("a\0b", "NUL"),
        ("\ud800", "encoding"),
        ("n" * 256, "File name too long"),
    ],
)
async def test_what_is_no_name_of_a_file_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, name: str, message: str, replace: bool
) -> None:
    monkeypatch.chdir(folder)

    with pytest.raises(TargetUnusable, match=message):
        async with FileTarget(name, replace=replace):
            pytest.fail("entered")

    assert left_in(folder) == []


async def test_short_writes_in_the_middle_are_continued(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: pwrite(descriptor, data[:3], offset))

    async with FileTarget(folder / "file") as target:
        await target.append([bytes(12)])
        await target.complete(b"0123456789")

    assert (folder / "file").read_bytes() == b"0123456789\0\0"


async def test_nobody_else_reads_what_is_written_before_it_has_the_permissions_of_what_it_replaces(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "file").touch()
    open_, made = os.open, []

    def note(path: Path, flags: int, mode: int = 0o777) -> int:
        if Path(path).name == ".file.partial":
            made.append(mode)
        return open_(path, flags, mode)

    monkeypatch.setattr(os, "open", note)

    async with FileTarget(folder / "file", replace=True):
        pass

    assert made == [0o600]


async def test_what_comes_before_a_write_runs_in_the_thread_that_writes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, threading.Thread]] = []
    writev = os.writev

    def noted(descriptor: int, buffers: Sequence[bytes]) -> int:
        done.append(("write", threading.current_thread()))
        return writev(descriptor, buffers)

    monkeypatch.setattr(os, "writev", noted)
    async with FileTarget(folder / "file") as target:
        await target.append([b"data"], before=lambda: done.append(("before", threading.current_thread())))

    assert [what for what, _ in done] == ["before", "write"]
    assert done[0][1] is done[1][1] is not threading.main_thread()


async def test_what_is_synced_is_on_disk_under_no_name_yet(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))

    async with FileTarget(folder / "file") as target:
        await target.append([b"data"])
        await target.sync()

        assert synced == [4]
        assert not (folder / "file").exists()


async def test_what_is_abandoned_leaves_nothing_and_may_be_abandoned_again(folder: Path) -> None:
    async with FileTarget(folder / "file") as target:
        await target.append([b"data"])
        await target.abandon()
        await target.abandon()

        assert left_in(folder) == []


async def test_what_is_abandoned_does_not_appear_with_the_file_it_belongs_to(folder: Path) -> None:
    async with FileTarget(folder / "file") as data, FileTarget.beside(data, ".proof") as proof:
        await proof.append([b"half"])
        await proof.abandon()
        await publish(data)

    assert left_in(folder) == ["file"]
