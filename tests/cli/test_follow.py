"""A replica that follows, as a user meets it: output, exit codes, and what to type next."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from asyncbackup import Cluster, Volume, connect
from asyncbackup.storage.publication import manifest_path
from asyncbackup.wire.constants import Opcode
from asyncbackup.wire.inode import SIZE_OFFSET
from asyncbackup.wire.oid import inode_oid
from tests.cli.command import Command, Outcome, Served, disk_store, serving, start
from tests.disks import OBJECT, OBJECTS, noise

OBJECTS_OF_A = 5
"""Objects that a restore of the full backup creates."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What watches another run watches as long as it takes to ask twice."""
    monkeypatch.setattr("asyncbackup.engine.journal._WATCH_S", 0)
    monkeypatch.setattr("asyncbackup.engine.journal._BEAT_S", 0.01)


@pytest.fixture
def faults() -> list[str]:
    """What the server does to requests; a test has its own."""
    return []


@pytest.fixture
def served(faults: list[str]) -> Iterator[Served]:
    with serving(disk_store(), *faults) as running:
        yield running


@pytest.fixture
def backups(backups: list[Path], command: Command, served: Served) -> list[Path]:
    """A full backup and an increment, of which the first is restored as VDI rep."""
    made = command("restore", backups[0], "--to", "rep", "--take-snapshot", "a", "-p", served.port)
    assert (made.code, b"took snapshot a" in made.out) == (0, True)
    return backups


Follow = Callable[..., Outcome]


@pytest.fixture
def follow(backups: list[Path], command: Command, served: Served) -> Follow:
    """Applies the increment, or ``files``, to the replica."""

    def run(*options: object, files: list[Path] = backups[1:]) -> Outcome:
        return command("restore", *files, "--to", "rep", "--onto", *options, "-p", served.port)

    return run


def act(served: Served, work: Callable[[Cluster], Coroutine[Any, Any, None]]) -> None:
    """Do ``work`` with a client of what is served."""

    async def run() -> None:
        async with connect(served.sheep.host, served.sheep.port) as cluster:
            await work(cluster)

    anyio.run(run)


def night(served: Served, command: Command, folder: Path, tag: str, base: str) -> Path:
    """Write to the origin, take a snapshot of it, and back that up as the difference to ``base``."""

    async def write(cluster: Cluster) -> None:
        await (await Volume.open(cluster, "disk")).write(0, noise(77, 512))
        await cluster.create_snapshot("disk", tag)

    act(served, write)
    assert command("backup", "disk", folder / tag, "-s", tag, "-F", base, "-p", served.port).code == 0
    return folder / tag


def test_the_report_says_what_was_applied_to_what(follow: Follow) -> None:
    outcome = follow("--take-snapshot", "b")

    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.decode().splitlines()
    assert lines[0].startswith("wrote 5 objects, 1.0 MiB, in ")
    assert lines[1:] == ["took snapshot b", "ok: rep: 8.0 MiB, what was applied to VDI 'rep' snapshot 1"]


def test_what_is_applied_already_is_told_and_no_error(follow: Follow) -> None:
    assert follow("--take-snapshot", "b").code == 0

    outcome = follow("--take-snapshot", "b")

    assert (outcome.code, outcome.err) == (0, "")
    assert re.fullmatch(
        r"ok: rep: holds snapshot 2 'b' of VDI 'disk' .* already; nothing was written\n", outcome.out.decode()
    )


def test_json_is_one_object(follow: Follow) -> None:
    told = json.loads(follow("--take-snapshot", "b", "--json").out)
    again = json.loads(follow("--take-snapshot", "b", "--json").out)

    names = ("vdi", "snapshot", "already_applied", "objects_done", "base")
    assert [told[name] for name in names] == ["rep", "b", False, 5, "VDI 'rep' snapshot 1"]
    assert [again[name] for name in names] == ["rep", "b", True, 0, "VDI 'rep' snapshot 2"]
    assert "snapshot 2 'b' of VDI 'disk'" in told["origin"]


def test_quiet_prints_nothing(follow: Follow) -> None:
    outcome = follow("--take-snapshot", "b", "-q")

    assert (outcome.code, outcome.out, outcome.err) == (0, b"", "")


def test_without_a_tag_no_snapshot_is_taken(follow: Follow) -> None:
    outcome = follow()

    assert (outcome.code, b"took snapshot" in outcome.out) == (0, False)


async def write(cluster: Cluster) -> None:
    await (await Volume.open(cluster, "rep")).write(4 * OBJECT, noise(1, 512))


async def snapshot_by_hand(cluster: Cluster) -> None:
    await cluster.create_snapshot("rep", "b")


async def forget(cluster: Cluster) -> None:
    a = await cluster.find_vdi("rep", "a")
    await cluster.delete_attribute("rep", f"asyncbackup.origin.{a.vdi_id:x}")


async def resize(cluster: Cluster) -> None:
    rep = await cluster.find_vdi("rep")
    await cluster.write_object(inode_oid(rep.vdi_id), (OBJECT * 9).to_bytes(8, "little"), SIZE_OFFSET, copies=1)


@pytest.mark.parametrize(
    ("spoil", "message", "what_next"),
    [
        (write, "was written to (1 objects differ) since VDI 'rep' snapshot 1", "`dog vdi rollback rep -s TAG`"),
        (resize, "was resized since VDI 'rep' snapshot 1", "`dog vdi rollback rep -s TAG`"),
        (forget, "nothing says what it was restored as", "restore to a new VDI"),
        (snapshot_by_hand, "nothing says what it was restored as", "restore to a new VDI"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_no_replica_is_refused_with_what_to_do(
    follow: Follow,
    served: Served,
    spoil: Callable[[Cluster], Coroutine[Any, Any, None]],
    message: str,
    what_next: str,
) -> None:
    act(served, spoil)

    outcome = follow("--take-snapshot", "b")

    assert outcome.code == 1
    assert message in outcome.err
    assert what_next in outcome.err


def test_a_locked_vdi_is_3(follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    async def locked(_cluster: Cluster, _vdi_id: int) -> bool:
        return True

    monkeypatch.setattr(Cluster, "is_locked", locked)
    outcome = follow("--take-snapshot", "b")

    assert outcome.code == 3
    assert "a guest has locked it; wait until that is done, and try again" in outcome.err


def test_a_night_that_was_skipped_is_refused_with_what_to_do(
    follow: Follow, command: Command, served: Served, tmp_path: Path
) -> None:
    outcome = follow("--take-snapshot", "c", files=[night(served, command, tmp_path, "c", "b")])

    assert outcome.code == 1
    assert "a backup between the two was not applied; name the backups in between as well" in outcome.err


def test_a_tag_that_is_taken_is_3(follow: Follow) -> None:
    outcome = follow("--take-snapshot", "a")

    assert outcome.code == 3
    assert "VDI 'rep' has a snapshot 'a' already; use another tag for --take-snapshot" in outcome.err


def test_a_vdi_that_is_not_there_is_5(command: Command, served: Served, backups: list[Path]) -> None:
    outcome = command("restore", backups[1], "--to", "none", "--onto", "-p", served.port)

    assert outcome.code == 5
    assert "no VDI named 'none'" in outcome.err


def test_a_full_backup_is_refused(follow: Follow, command: Command, served: Served, tmp_path: Path) -> None:
    assert command("backup", "disk", tmp_path / "other", "-s", "b", "-p", served.port).code == 0

    outcome = follow(files=[tmp_path / "other"])

    assert outcome.code == 1
    assert "is a full backup, and only increments can be applied to VDI 'rep'; name the increments" in outcome.err


def test_standard_input_is_refused(command: Command, served: Served, backups: list[Path]) -> None:
    options = ("--object-size", OBJECT, "--size", OBJECT * OBJECTS, "--assume-base", "-p", served.port)

    process = start(
        "restore", "-", "--to", "rep", "--onto", *map(str, options), stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    _, errors = process.communicate(backups[1].read_bytes(), timeout=30)

    assert process.returncode == 1
    assert b"name a file instead" in errors


@pytest.mark.parametrize(
    "ignored",
    [
        ["--base", "a"],
        ["--base-vdi", "disk"],
        ["--base", "a", "--base-vdi", "disk"],
        ["--base-image", "x"],
        ["--copies", "1"],
    ],
    ids=" ".join,
)
def test_what_a_vdi_says_itself_is_a_usage_error(follow: Follow, ignored: list[str]) -> None:
    outcome = follow(*ignored)

    assert outcome.code == 64
    assert f"--onto takes the VDI as it is: leave {ignored[0]} out" in outcome.err


@pytest.mark.parametrize("missing", [["--to", "rep"], ["FILE"], []], ids=" ".join)
def test_onto_needs_files_and_a_vdi(command: Command, missing: list[str]) -> None:
    assert command("restore", "--onto", *missing).code == 64


@pytest.mark.parametrize(
    "ignored",
    [
        *(["--to", "x"], ["--onto"], ["--take-snapshot", "x"], ["--size", "1M"], ["--copies", "1"], ["--assume-base"]),
        *(["--base", "a"], ["--base-vdi", "x"], ["--base-image", "x"], ["--manifest", "x"], ["--object-size", "4M"]),
        *(["--input-format", "dog"], ["--in-flight", "1"], ["--memory", "1M"]),
    ],
    ids=" ".join,
)
def test_discarding_takes_nothing_that_it_would_ignore(command: Command, ignored: list[str]) -> None:
    outcome = command("restore", "--discard", "rep", *ignored)

    assert outcome.code == 64
    assert f"--discard only removes a VDI: leave {ignored[0]} out" in outcome.err


def test_a_backup_without_a_manifest_is_applied_for_who_vouches_for_it(follow: Follow, backups: list[Path]) -> None:
    manifest_path(backups[1]).unlink()

    told = [follow("--take-snapshot", "b")]
    options: list[object] = []
    for option in (["--assume-base"], ["--object-size", "1M"], ["--size", "8M"]):
        options += option
        told.append(follow("--take-snapshot", "b", *options))

    assert [outcome.code for outcome in told] == [1, 1, 1, 0]
    assert "say so with --assume-base" in told[0].err
    assert "say it with --object-size" in told[1].err
    assert "say it with --size" in told[2].err
    assert b"assumed" in told[3].out
    assert b"the VDI does not say which snapshot it equals" in told[3].out


class TestInterrupted:
    """A run that fails at the second object that it writes."""

    @pytest.fixture
    def faults(self) -> list[str]:
        return [f"create_and_write_obj@{OBJECTS_OF_A + 2}:error=EIO"]

    def test_the_advice_is_right(self, follow: Follow, command: Command, served: Served, tmp_path: Path) -> None:
        failed = follow("--take-snapshot", "b")

        assert failed.code == 1
        assert "VDI 'rep' is half written: " in failed.err
        assert "to finish, run the interrupted command again, with the same FILEs" in failed.err
        assert "`dog vdi rollback rep -s TAG` takes the VDI back" in failed.err
        assert follow("--take-snapshot", "b").code == 0
        assert (
            command("verify", tmp_path / "full", tmp_path / "increment", "--against", "rep", "-p", served.port).code
            == 0
        )

    def test_nothing_else_is_done_with_it(
        self, follow: Follow, command: Command, served: Served, backups: list[Path], tmp_path: Path
    ) -> None:
        assert follow("--take-snapshot", "b").code == 1
        other = night(served, command, tmp_path, "c", "b")

        refused = [
            follow("--take-snapshot", "c", files=[backups[1], other]),
            command("verify", *backups, "--against", "rep", "-p", served.port),
            command("verify", *backups, "--against", "rep", "--assume-base", "-p", served.port),
            command("backup", "rep", tmp_path / "live", "--live", "-p", served.port),
        ]

        for outcome in refused:
            assert outcome.code == 1
            assert "VDI 'rep' is half written" in outcome.err
            assert "run the interrupted command again" in outcome.err
        assert not (tmp_path / "live").exists()
        on_the_snapshot = ("--base", "a", "--base-vdi", "rep", "-p", served.port)
        assert command("restore", backups[1], "--to", "new", *on_the_snapshot).code == 0


class TestWithoutItsSnapshot:
    """A restore whose snapshot could not be taken: the first request makes the VDI."""

    @pytest.fixture
    def faults(self) -> list[str]:
        return ["new_vdi@2:error=EIO"]

    @pytest.fixture
    def backups(self, command: Command, served: Served, tmp_path: Path) -> list[Path]:
        made = [tmp_path / "full", tmp_path / "increment"]
        for file, options in zip(made, (("-s", "a"), ("-s", "b", "-F", "a")), strict=True):
            assert command("backup", "disk", file, *options, "-p", served.port).code == 0
        return made

    def test_the_vdi_stays_and_follows_for_who_vouches_for_it(
        self, follow: Follow, command: Command, served: Served, backups: list[Path]
    ) -> None:
        failed = command("restore", backups[0], "--to", "rep", "--take-snapshot", "a", "-p", served.port)
        assert failed.code == 1
        assert "VDI 'rep' is complete, but its snapshot 'a' was not taken: " in failed.err
        (take,) = re.findall(r"`(dog vdi snapshot .*?)` takes it", failed.err)
        assert shlex.split(take) == ["dog", "vdi", "snapshot", "rep", "-s", "a"]

        without = follow("--take-snapshot", "b")
        act(served, lambda cluster: take_snapshot(cluster, "a"))
        unproved = follow("--take-snapshot", "b")
        vouched = follow("--take-snapshot", "b", "--assume-base")

        assert (without.code, "it has no snapshot" in without.err) == (1, True)
        assert "it may have been written to between its restore as snapshot 1 'a'" in unproved.err
        assert "if you know that it is, say so with --assume-base" in unproved.err
        assert (unproved.code, vouched.code) == (1, 0)
        assert b"assumed" in vouched.out


async def take_snapshot(cluster: Cluster, tag: str) -> None:
    await cluster.create_snapshot("rep", tag)


def wait_for_objects(served: Served, count: int, process: subprocess.Popen[bytes]) -> None:
    """Return when ``process`` has sent the object with this number."""
    while served.sheep.requests[Opcode.CREATE_AND_WRITE_OBJ] < count:
        assert process.poll() is None
        time.sleep(0.002)  # The server is in another thread, and has no other way to say it.


class TestStopped:
    """A run that waits for ever for the second object that it writes, until a signal comes."""

    @pytest.fixture
    def faults(self) -> list[str]:
        return [f"create_and_write_obj@{OBJECTS_OF_A + 2}:stall"]

    @pytest.mark.slow
    def test_ctrl_c_says_that_it_is_half_written(self, follow: Follow, served: Served, backups: list[Path]) -> None:
        arguments = ("restore", backups[1], "--to", "rep", "--onto", "--take-snapshot", "b", "-p", served.port, "-q")
        process = start(*arguments, stderr=subprocess.PIPE)
        wait_for_objects(served, OBJECTS_OF_A + 2, process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)

        assert process.returncode == 130
        assert b"VDI 'rep' is half written: apply the same backups to finish" in errors
        assert follow("--take-snapshot", "b").code == 0


class TestAtOnce:
    """Two runs at a time, of which the first one needs some seconds."""

    @pytest.fixture
    def faults(self) -> list[str]:
        return [f"create_and_write_obj@{OBJECTS_OF_A + 1}+:delay=4"]

    @pytest.mark.slow
    def test_the_second_is_refused_and_the_first_comes_to_its_end(
        self, command: Command, served: Served, backups: list[Path]
    ) -> None:
        arguments = ("restore", backups[1], "--to", "rep", "--onto", "--take-snapshot", "b", "-p", served.port)
        first = start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_for_objects(served, OBJECTS_OF_A + 1, first)
        second = start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        _, errors = second.communicate(timeout=30)
        first.communicate(timeout=30)

        assert (first.returncode, second.returncode) == (0, 3)
        assert b"backups are being applied to it at this moment; wait until that is done" in errors
        assert command("verify", *backups, "--against", "rep", "-p", served.port).code == 0


# FOLDER@SNAPSHOT


def test_of_a_folder_what_the_replica_lacks_is_applied(backups: list[Path], command: Command, served: Served) -> None:
    outcome = command("restore", f"{backups[0].parent}@b", "--to", "rep", "--onto", "-p", served.port)

    assert outcome.code == 0, outcome.err
    assert f"used, oldest first: {backups[1]}\n" in outcome.err


def test_of_a_folder_nothing_is_applied_that_the_replica_holds(
    backups: list[Path], command: Command, served: Served
) -> None:
    outcome = command("restore", f"{backups[0].parent}@a", "--to", "rep", "--onto", "-p", served.port)

    assert outcome.code == 0, outcome.err
    assert b"nothing was written" in outcome.out


def test_a_folder_that_leads_from_elsewhere_is_told(backups: list[Path], command: Command, served: Served) -> None:
    backups[1].unlink()
    manifest_path(backups[1]).unlink()

    outcome = command("restore", f"{backups[0].parent}@b", "--to", "rep", "--onto", "-p", served.port)

    assert outcome.code == 5
    assert "has no backup of a snapshot 'b'; it has disk:a" in outcome.err
