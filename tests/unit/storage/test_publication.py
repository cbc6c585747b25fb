"""What appears under which name, in which order, and what a crash or an error leaves."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from asyncbackup.errors import AsyncBackupError, HalfReplaced, TargetExists, TargetUnusable, TargetWriteFailed
from asyncbackup.format.identity import Identity
from asyncbackup.format.image import Marker
from asyncbackup.storage import FileTarget, NewImage, PipeTarget, StandingImage, open_target, publish
from asyncbackup.storage.backup_source import find_manifest
from asyncbackup.storage.lock import NameLock
from asyncbackup.storage.publication import MANIFEST, Place, Publication
from tests.crashes import Left, Recorder, crashes, killed, take


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    made.mkdir()
    return made


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.iterdir())}


IDENTITY = Identity("disk", "a6c1f0", "2026-11-24T03:00:00.000000001Z", None, 3, "monday")

OLD = {"file": "old data", "file.manifest": "old proof"}
NEW = {"file": "new data", "file.manifest": "new proof"}


def fill(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)


async def write(folder: Path, *, replace: bool, manifest: bool = True, name: str = "file") -> None:
    async with open_target(folder / name, replace=replace, with_manifest=manifest) as (data, proof, _):
        await data.append([b"___ data"])
        if proof is not None:
            await proof.append([b"new proof"])
        await publish(data, proof, b"new")


WRITTEN = ["create .file.partial", "create .file.manifest.partial", "write .file.partial"]
FLUSHED = ["write .file.manifest.partial", "write .file.partial", "flush .file.partial", "flush .file.manifest.partial"]


async def test_the_order_in_which_a_new_backup_appears(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(monkeypatch, folder)

    await write(folder, replace=False)

    assert recorder.texts() == [
        *WRITTEN,
        *FLUSHED,
        "flush folder",
        "rename .file.manifest.partial .file.manifest.new",
        "flush folder",
        "link .file.partial file",
        "flush folder",
        "link .file.manifest.new file.manifest",
        "flush folder",
        "unlink .file.manifest.new",
        "unlink .file.partial",
    ]


async def test_the_order_in_which_a_backup_is_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(folder, OLD)
    recorder = Recorder(monkeypatch, folder)

    await write(folder, replace=True)

    assert recorder.texts() == [
        *WRITTEN,
        *FLUSHED,
        "flush folder",
        "rename .file.manifest.partial .file.manifest.new",
        "rename file.manifest .file.manifest.old",
        "flush folder",
        "rename .file.partial file",
        "flush folder",
        "rename .file.manifest.new file.manifest",
        "flush folder",
        "unlink .file.manifest.old",
    ]
    assert contents(folder) == NEW


async def test_the_order_in_which_what_can_be_gone_on_with_appears(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(monkeypatch, folder)

    async with open_target(folder / "file") as (data, proof, partial):
        assert proof is not None
        assert partial is not None
        for target in (data, proof):
            await target.append([b"begun"])
            await target.sync()
        await partial.keep()
        await publish(data, proof)

    assert recorder.texts() == [
        "create .file.partial",
        "create .file.manifest.partial",
        "write .file.partial",
        "flush .file.partial",
        "write .file.manifest.partial",
        "flush .file.manifest.partial",
        "flush folder",
        "rename .file.manifest.partial .file.partial.manifest",
        "flush folder",
        "flush .file.partial",
        "flush .file.partial.manifest",
        "flush folder",
        "link .file.partial.manifest .file.manifest.new",
        "flush folder",
        "link .file.partial file",
        "flush folder",
        "link .file.manifest.new file.manifest",
        "flush folder",
        "unlink .file.manifest.new",
        "unlink .file.partial.manifest",
        "unlink .file.partial",
    ]


async def test_the_order_in_which_a_backup_is_replaced_without_a_manifest(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder, OLD)
    recorder = Recorder(monkeypatch, folder)

    await write(folder, replace=True, manifest=False)

    assert recorder.texts() == [
        "create .file.partial",
        "write .file.partial",
        "flush .file.partial",
        "flush folder",
        "rename file.manifest .file.manifest.old",
        "flush folder",
        "rename .file.partial file",
        "flush folder",
        "unlink .file.manifest.old",
    ]
    assert contents(folder) == {"file": "new data"}


async def test_the_order_in_which_an_image_appears(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(monkeypatch, folder)

    async with NewImage(folder / "image") as image:
        await image.resize(8)
        await image.write_at(4, b"data")
        await image.finish(IDENTITY)

    assert recorder.texts() == [
        "create .image.partial",
        "write .image.partial",
        "create .image.state.partial",
        "write .image.state.partial",
        "flush .image.partial",
        "flush .image.state.partial",
        "flush folder",
        "rename .image.state.partial .image.state.new",
        "flush folder",
        "link .image.partial image",
        "flush folder",
        "link .image.state.new image.state",
        "flush folder",
        "unlink .image.state.new",
        "unlink .image.partial",
    ]


async def test_the_order_in_which_an_image_is_rolled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(folder, {"image": "old data"})
    recorder = Recorder(monkeypatch, folder)

    async with StandingImage(folder / "image") as image:
        await image.mark(Marker((), image.inode, 8, None, None))
        await image.write_at(0, b"new")
        await image.finish(IDENTITY)

    assert recorder.texts() == [
        "flush .image.rolling.partial",
        "rename .image.rolling.partial image.rolling",
        "flush folder",
        "write image",
        "flush image",
        "flush .image.state.partial",
        "rename .image.state.partial image.state",
        "flush folder",
        "unlink image.rolling",
        "flush folder",
    ]


async def test_a_file_that_a_pipe_is_redirected_to_is_flushed_after_the_last_write(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(monkeypatch, folder)
    descriptor = os.open(folder / "file", os.O_WRONLY | os.O_CREAT)

    async with PipeTarget(descriptor) as target:
        await target.append([b"data"])
        await target.complete()

    os.close(descriptor)
    assert recorder.texts() == ["create file", "write file", "flush file"]


class Case(NamedTuple):
    before: dict[str, str]
    after: dict[str, str]
    replace: bool
    manifest: bool = True
    links: bool = True


CASES = {
    "new": Case({}, NEW, replace=False),
    "new without hard links": Case({}, NEW, replace=False, links=False),
    "new where one may be replaced": Case({}, NEW, replace=True),
    "replaced": Case(OLD, NEW, replace=True),
    "with the first manifest": Case({"file": "old data"}, NEW, replace=True),
    "with the last manifest": Case(OLD, {"file": "new data"}, replace=True, manifest=False),
    "without manifests": Case({"file": "old data"}, {"file": "new data"}, replace=True, manifest=False),
}


@pytest.fixture(params=list(CASES.values()), ids=list(CASES))
def case(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Case:
    case: Case = request.param
    if not case.links:
        monkeypatch.setattr(os, "link", failing(errno.EPERM))
    return case


def failing(code: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def publication(folder: Path) -> Publication:
    place = Place(folder / "file")
    return Publication(place, (place.beside(MANIFEST),))


def see(folder: Path) -> dict[str, str] | None:
    """Give what a reader takes for a backup and its manifest; None if it is told that they do not go together."""
    if not (folder / "file").exists():
        return {}
    try:
        manifest = find_manifest(folder / "file")
    except HalfReplaced:
        return None
    seen = {"file": (folder / "file").read_text()}
    return seen | ({manifest.name: manifest.read_text()} if manifest else {})


async def test_a_crash_at_any_time_leaves_old_with_old_or_new_with_new(
    folder: Path, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder, case.before)
    before = take(folder)
    with monkeypatch.context() as patched:
        recorder = Recorder(patched, folder)
        await write(folder, replace=case.replace, manifest=case.manifest)
    assert contents(folder) == case.after
    monkeypatch.setattr(os, "fsync", lambda _: None)

    for left in crashes(before, recorder.calls):
        left.make(folder)
        assert see(folder) in (None, case.before, case.after), left
        publication(folder).recover()
        assert contents(folder) in (case.before, case.after), left


async def test_a_crash_while_the_next_run_puts_things_right_is_put_right_by_the_one_after_it(
    folder: Path, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder, case.before)
    before = take(folder)
    with monkeypatch.context() as patched:
        recorder = Recorder(patched, folder)
        await write(folder, replace=case.replace, manifest=case.manifest)
    seen: set[Left] = set()

    for left in crashes(before, recorder.calls):
        left.make(folder)
        started = take(folder)
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", lambda _: None)
            again = Recorder(patched, folder)
            publication(folder).recover()
        for twice in crashes(started, again.calls) - seen:
            seen.add(twice)
            twice.make(folder)
            assert see(folder) in (None, case.before, case.after), (left, twice)
            with monkeypatch.context() as patched:
                patched.setattr(os, "fsync", lambda _: None)
                publication(folder).recover()
            assert contents(folder) in (case.before, case.after), (left, twice)


@pytest.mark.slow
async def test_a_crash_right_after_the_next_run_put_things_right_brings_nothing_back(
    folder: Path, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder, case.before)
    before = take(folder)
    with monkeypatch.context() as patched:
        recorder = Recorder(patched, folder)
        await write(folder, replace=case.replace, manifest=case.manifest)
    seen: set[Left] = set()

    for made in range(len(recorder.calls)):
        first = recorder.calls[:made]
        killed(before, first).make(folder)
        with monkeypatch.context() as patched:
            again = Recorder(patched, folder)
            publication(folder).recover()
        for left in crashes(before, [*first, *again.calls]) - seen:
            seen.add(left)
            left.make(folder)
            assert see(folder) in (None, case.before, case.after), (made, left)
            with monkeypatch.context() as patched:
                patched.setattr(os, "fsync", lambda _: None)
                publication(folder).recover()
            assert contents(folder) in (case.before, case.after), (made, left)


def follow(failure: HalfReplaced) -> None:
    """Do what the message says is to be done."""
    Path(failure.source).rename(failure.place)


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def fail_at(monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], number: int, code: int) -> list[str]:
    """Let call ``number`` of ``names`` fail, and all like it that follow; give the list of those made."""
    made: list[str] = []
    broken: list[tuple[object, ...]] = []

    def wrap(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            made.append(name)
            what = (name, *map(str, args))
            if len(made) == number:
                broken.append(what)
            if what in broken:
                raise OSError(code, os.strerror(code))
            return call(*args, **kwargs)

        return counted

    for name in names:
        monkeypatch.setattr(os, name, wrap(name, getattr(os, name)))
    return made


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.EPERM, errno.EIO])
async def test_a_failing_change_of_names_leaves_old_with_old_or_new_with_new(
    folder: Path, case: Case, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    for number in range(1, 30):
        empty(folder)
        fill(folder, case.before)
        with monkeypatch.context() as patched:
            made = fail_at(patched, ("replace", "link"), number, code)
            failure: AsyncBackupError | None = None
            try:
                await write(folder, replace=case.replace, manifest=case.manifest)
            except AsyncBackupError as error:
                failure = error
        if len(made) < number:
            break
        seen = see(folder)
        if isinstance(failure, HalfReplaced):
            assert seen is None
            follow(failure)
            assert see(folder) in (case.before, case.after)
        elif failure is not None:
            assert seen in (case.before, case.after)
            assert isinstance(failure, TargetWriteFailed)
        with suppress(TargetExists):
            await write(folder, replace=case.replace, manifest=case.manifest)
        assert contents(folder) == case.after
    else:
        pytest.fail("more changes of names than expected")


async def test_what_cannot_be_taken_back_either_is_told_and_is_for_the_next_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder, OLD)
    replace = os.replace

    def replace_manifests_away(source: Path, target: Path) -> None:
        if source.name in (".file.partial", ".file.manifest.old"):
            raise OSError(errno.EIO, "Input/output error")
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", replace_manifests_away)
        with pytest.raises(HalfReplaced) as caught:
            await write(folder, replace=True)
    assert caught.value.source == str(folder / ".file.manifest.old")
    assert see(folder) is None
    told: list[str] = []

    async with FileTarget(folder / "file", replace=True, attached=[MANIFEST], on_leftover=told.append):
        pass

    assert contents(folder) == OLD
    assert len(told) == 1


@pytest.fixture(params=["file", "file.manifest"])
def immutable(request: pytest.FixtureRequest, folder: Path) -> Iterator[Path]:
    fill(folder, OLD)
    locked: Path = folder / request.param
    if not shutil.which("chattr") or subprocess.run(["chattr", "+i", locked], check=False).returncode:
        pytest.skip("files cannot be made immutable here")
    yield locked
    subprocess.run(["chattr", "-i", locked], check=True)


async def test_a_file_that_must_not_be_changed_stays_with_its_manifest(folder: Path, immutable: Path) -> None:
    with pytest.raises(TargetWriteFailed, match="Operation not permitted"):
        await write(folder, replace=True)

    assert contents(folder) == OLD


async def test_a_folder_that_becomes_read_only_keeps_old_with_old(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder, OLD)

    async with open_target(folder / "file", replace=True) as (data, proof, _):
        with monkeypatch.context() as patched:
            for name in ("replace", "link", "unlink"):
                patched.setattr(os, name, failing(errno.EROFS))
            with pytest.raises(TargetWriteFailed, match="Read-only file system"):
                await publish(data, proof)

    assert contents(folder) == OLD


class Halves:
    """States that an interrupted replacement leaves, and what they come to."""

    data_is_new = (
        {"file": "new data", ".file.manifest.new": "new proof", ".file.manifest.old": "old proof"},
        NEW,
        ".file.manifest.new",
    )
    data_is_old = (
        {
            "file": "old data",
            ".file.partial": "new data",
            ".file.manifest.new": "new proof",
            ".file.manifest.old": "old proof",
        },
        OLD,
        ".file.manifest.old",
    )


@pytest.fixture(params=[Halves.data_is_new, Halves.data_is_old], ids=["data is new", "data is old"])
def half(request: pytest.FixtureRequest, folder: Path) -> tuple[dict[str, str], str]:
    left, becomes, due = request.param
    fill(folder, left)
    return becomes, due


def test_a_reader_is_told_of_half_a_replacement(folder: Path, half: tuple[dict[str, str], str]) -> None:
    with pytest.raises(HalfReplaced, match="is half replaced") as caught:
        find_manifest(folder / "file")

    assert (caught.value.source, caught.value.place) == (str(folder / half[1]), str(folder / "file.manifest"))


async def test_the_next_run_puts_half_a_replacement_right_and_says_so(
    folder: Path, half: tuple[dict[str, str], str]
) -> None:
    told: list[str] = []

    with pytest.raises(TargetExists):
        async with FileTarget(folder / "file", attached=[MANIFEST], on_leftover=told.append):
            pytest.fail("entered")

    assert contents(folder) == half[0]
    assert len(told) == 1
    assert "a run was interrupted while it replaced this" in told[0]


async def test_a_reader_waits_for_a_run_that_is_between_data_and_manifest(
    folder: Path, half: tuple[dict[str, str], str]
) -> None:
    lock = NameLock(folder / ".file.lock", "file")
    lock.acquire()
    reading = asyncio.create_task(asyncio.to_thread(find_manifest, folder / "file"))
    await asyncio.sleep(0)
    assert not reading.done()

    publication(folder).recover()
    lock.release()

    assert await reading == folder / "file.manifest"
    assert contents(folder) == half[0]


async def test_what_is_left_of_a_file_that_is_gone_is_no_manifest_of_the_next(folder: Path) -> None:
    fill(folder, {".file.manifest.new": "new proof of what was moved away"})

    await write(folder, replace=False, manifest=False)

    assert contents(folder) == {"file": "new data"}


async def test_what_a_killed_run_left_is_removed_and_told(folder: Path) -> None:
    fill(folder, OLD | {".file.partial": "half", ".file.manifest.partial": "half", ".file.lock": "4711 elsewhere\n"})
    told: list[str] = []

    async with FileTarget(folder / "file", replace=True, attached=[MANIFEST], on_leftover=told.append):
        pass

    assert contents(folder) == OLD
    left = ".file.manifest.partial, .file.partial"
    assert told == [f"{folder / 'file'}: a run was interrupted before; what it left is removed: {left}"]


async def test_a_half_that_cannot_be_put_right_is_told_as_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(folder, Halves.data_is_new[0])
    monkeypatch.setattr(os, "replace", failing(errno.EPERM))

    with pytest.raises(HalfReplaced):
        async with FileTarget(folder / "file", replace=True, attached=[MANIFEST]):
            pytest.fail("entered")

    assert contents(folder) == Halves.data_is_new[0]


@pytest.mark.parametrize("length", [247, 248, 255])
async def test_a_long_name_works_without_a_manifest(folder: Path, length: int) -> None:
    name = "n" * length

    for replace in (False, True):
        await write(folder, replace=replace, manifest=False, name=name)

    assert contents(folder) == {name: "new data"}


async def test_the_longest_name_that_leaves_room_for_a_manifest_works(folder: Path) -> None:
    name = "n" * (255 - len(MANIFEST))

    await write(folder, replace=False, name=name)

    assert contents(folder) == {name: "new data", name + MANIFEST: "new proof"}


@pytest.mark.parametrize("length", [247, 255, 256])
async def test_a_name_without_room_for_a_manifest_is_refused_by_name(folder: Path, length: int) -> None:
    name = "n" * length

    with pytest.raises(TargetUnusable, match=f"{name}(.manifest)?: File name too long"):
        await write(folder, replace=False, name=name)

    assert contents(folder) == {}


def test_long_names_that_begin_alike_have_other_names_between() -> None:
    one, other = (Place(Path("n" * 254 + last)) for last in "ab")

    assert len(one.partial.name) == 255
    assert one.partial != other.partial
    assert len({one.partial, one.new, one.old, one.lock}) == 4
