"""Restore in shards as a user meets it: output, exit codes, what to do next."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from asyncbackup import connect
from asyncbackup.engine.removal import say_discarding
from tests.cli.command import Command, Outcome, Served, disk_store, serving
from tests.disks import OBJECT, OBJECTS
from tests.object_stores import SECRET, S3Server

END = ("--join-shards", "2", "--take-snapshot", "b")


@pytest.fixture
def served() -> Iterator[Served]:
    """A cluster of each test's own, which restores into it."""
    with serving(disk_store()) as running:
        yield running


class Restore:
    """Runs ``restore`` of some files to VDI new."""

    def __init__(self, command: Command, served: Served, files: list[str]) -> None:
        self.command = command
        self.port = served.port
        self.files = files

    def __call__(self, *arguments: object) -> Outcome:
        return self.command("restore", *self.files, "--to", "new", *arguments, "-p", self.port)

    def write_both(self) -> None:
        for shard in ("2/2", "1/2"):
            assert self("--shard", shard).code == 0


@pytest.fixture
def restore(command: Command, served: Served, backups: list[Path]) -> Restore:
    return Restore(command, served, list(map(str, backups)))


def test_shards_and_their_end_make_a_vdi_that_verifies(restore: Restore) -> None:
    first, second = restore("--shard", "2/2"), restore("--shard", "1/2")
    end = restore(*END)

    for written, number in ((first, 2), (second, 1)):
        assert (written.code, written.err) == (0, "")
        what_next, last = written.out.decode().splitlines()
        assert what_next == "when all 2 shards are written, --join-shards 2 completes the VDI"
        assert re.match(rf"ok: new, shard {number}/2: wrote [34] objects, ", last)
    assert (end.code, end.err) == (0, "")
    assert end.out.decode().splitlines() == [
        "joined 2 shards: 7 objects, 5.0 MiB",
        "took snapshot b",
        "ok: new: 8.0 MiB",
    ]
    against = ("--against", "new", "-s", "b", "-p", restore.port)
    assert restore.command("verify", *restore.files, *against).code == 0


def test_reports_as_json_are_one_object(restore: Restore) -> None:
    written = [json.loads(restore("--shard", f"{number}/2", "--json").out) for number in (1, 2)]
    again = json.loads(restore("--shard", "1/2", "--json").out)
    end = json.loads(restore(*END, "--json").out)

    assert [each["shard"] for each in written] == ["1/2", "2/2"]
    assert sum(each["objects_done"] for each in written) == end["objects_done"] == 7
    assert (again["already_written"], again["objects_done"]) == (True, 0)
    assert (end["vdi"], end["size"], end["snapshot"], end["checked"]) == ("new", OBJECT * OBJECTS, "b", True)


def test_what_was_done_before_is_no_error(restore: Restore) -> None:
    restore.write_both()
    again = restore("--shard", "1/2")
    restore(*END)
    end = restore(*END)

    assert (again.code, "was written before; nothing was written" in again.out.decode()) == (0, True)
    assert end.out == b"ok: new: is complete already, as snapshot b says; nothing was written\n"


def test_a_missing_shard_is_5_and_named(restore: Restore) -> None:
    restore("--shard", "1/2")
    end = restore(*END)

    assert end.code == 5
    assert "VDI 'new': shard 2 of 2 is missing, or not complete; write it with --shard 2/2 in place of" in end.err


def test_another_number_of_shards_is_refused(restore: Restore) -> None:
    restore("--shard", "1/2")
    other = restore("--shard", "2/3")

    assert other.code == 1
    assert "begun with another number of shards: expected 3, got 2" in other.err
    assert "`asyncbackup restore --discard new` gives all shards up" in other.err


def test_shards_are_discarded(restore: Restore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncbackup.verbs.discard.SHARDS_WATCH_S", 0)
    restore("--shard", "1/2")
    discarded = restore.command("restore", "--discard", "new", "-p", restore.port)

    assert discarded.code == 0
    assert restore("--shard", "1/3").code == 0


async def _say_discarding(port: str) -> None:
    async with connect("127.0.0.1", int(port)) as cluster:
        await say_discarding(cluster, await cluster.find_vdi("new"))


def test_a_shard_of_a_vdi_that_is_discarded_does_not_say_that_it_stays(restore: Restore) -> None:
    restore("--shard", "1/2")
    anyio.run(_say_discarding, restore.port)
    other = restore("--shard", "2/2")

    assert other.code == 1
    assert "a discard removes it, or began to; when it is gone, begin anew" in other.err
    assert "stays" not in other.err


def test_a_clone_is_made_in_shards(restore: Restore) -> None:
    restore.files = restore.files[1:]
    for shard in ("1/2", "2/2"):
        assert restore("--base", "a", "--shard", shard).code == 0
    end = restore("--base", "a", *END)

    assert (end.code, end.err) == (0, "")
    assert b"a clone of VDI 'disk' snapshot 1" in end.out


@pytest.mark.slow
def test_objects_in_a_store_are_restored_in_shards(
    restore: Restore, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    restore.files = [f"s3://{s3.new_bucket()}/file"]
    assert restore.command("backup", "disk", "-s", "b", restore.files[0], "-p", restore.port).code == 0
    restore.write_both()
    end = restore(*END)

    assert (end.code, SECRET in end.out.decode() + end.err) == (0, False)
    against = ("--against", "new", "-s", "b", "-p", restore.port)
    assert restore.command("verify", *restore.files, *against).code == 0


@pytest.mark.parametrize("part", [("--shard", "1/2"), END], ids=["shard", "join"])
@pytest.mark.parametrize(
    "given",
    [
        ("--onto",),
        ("--base-image", "image"),
        ("--resume",),
        ("--checkpoint", "1G"),
        ("--journal", "journal"),
        ("--dask", "local"),
        ("-",),
    ],
    ids=" ".join,
)
def test_what_several_runs_cannot_do_is_wrong_use(
    command: Command, part: tuple[str, ...], given: tuple[str, ...]
) -> None:
    assert command("restore", "none", "--to", "new", *part, *given).code == 64


@pytest.mark.parametrize(
    "part",
    [
        ("--shard", "1/2", "--take-snapshot", "b"),
        ("--shard", "1/2", "--join-shards", "2"),
        ("--shard", "3/2"),
        ("--join-shards", "2"),
        ("--join-shards", "0", "--take-snapshot", "b"),
    ],
    ids=" ".join,
)
def test_parts_that_do_not_go_together_are_wrong_use(command: Command, part: tuple[str, ...]) -> None:
    assert command("restore", "none", "--to", "new", *part).code == 64
    assert command("restore", "--discard", "new", *part).code == 64
