"""Backups that are interrupted on the command line, and go on."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from asyncbackup.sheep import MemoryStore
from tests.cli.command import Command, Served, disk_store, serving, start
from tests.cli.test_signals import end, until_true
from tests.disks import OBJECT
from tests.folders import left_in

# Most tests start processes of their own.
pytestmark = pytest.mark.slow

KEPT = [".file.partial", ".file.partial.manifest"]
STALLS = "read_obj@14+:stall"
"""Comes when the first objects were read, with one request after the other."""


def options(port: str, folder: Path) -> list[str]:
    return ["disk", str(folder / "file"), "-s", "b", "-p", port, "--checkpoint", "1M", "--in-flight", "1"]


def interrupt(store: MemoryStore, folder: Path, number: signal.Signals, *more: str) -> tuple[int, str]:
    """Back up until the server stalls, and then send a signal."""
    with serving(store, STALLS) as served:
        process = start("backup", *more, *options(served.port, folder), stderr=subprocess.PIPE)
        until_true((folder / KEPT[1]).exists, process)
        until_true(lambda: (folder / KEPT[0]).stat().st_size > 3 * OBJECT, process)
        return end(process, number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_what_is_there_and_says_what_goes_on(
    store: MemoryStore, command: Command, served: Served, tmp_path: Path, number: signal.Signals
) -> None:
    assert command("backup", "disk", tmp_path / "whole", "-s", "b", "-p", served.port).code == 0
    folder = tmp_path / "my folder"
    folder.mkdir()

    code, err = interrupt(store, folder, number)

    assert code == 128 + number
    told, _, rest = err.partition("`")
    assert told == f"asyncbackup: stopped by {number.name}; what was written stays: "
    line, _, rest = rest.partition("`")
    assert rest == " goes on with it\n"
    assert left_in(folder) == KEPT

    # The same command, at a server that does not stall.
    arguments = shlex.split(line)
    assert arguments[:3] == ["asyncbackup", "backup", "--resume"]
    arguments[arguments.index("-p") + 1] = served.port
    outcome = command(*arguments[1:])

    assert outcome.code == 0
    assert b"went on behind 3.0 MiB that an interrupted run had written" in outcome.out
    assert left_in(folder) == ["file", "file.manifest"]
    for name in ("", ".manifest"):
        assert (folder / f"file{name}").read_bytes() == (tmp_path / f"whole{name}").read_bytes()


def test_what_is_compressed_goes_on_as_well(
    store: MemoryStore, command: Command, served: Served, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    assert command("backup", "--zstd=1", "disk", tmp_path / "whole", "-s", "b", "-p", served.port).code == 0

    code, err = interrupt(store, folder, signal.SIGINT, "--zstd=1")

    assert code == 130
    assert "what was written stays: `asyncbackup backup --resume --zstd=1 disk" in err
    assert left_in(folder) == KEPT
    outcome = command("backup", "--resume", "--zstd=1", *options(served.port, folder))
    assert outcome.code == 0
    # The end of the third object is in a frame with the fourth.
    assert b"went on behind 2.0 MiB that an interrupted run had written" in outcome.out
    for name in ("", ".manifest"):
        assert (folder / f"file{name}").read_bytes() == (tmp_path / f"whole{name}").read_bytes()


def test_a_signal_while_it_goes_on_does_not_name_the_option_twice(store: MemoryStore, tmp_path: Path) -> None:
    _, err = interrupt(store, tmp_path, signal.SIGINT, "--resume")

    assert err.count("--resume") == 1


def test_what_is_unfinished_is_an_error_that_names_both_ways_out(
    store: MemoryStore, command: Command, served: Served, tmp_path: Path
) -> None:
    interrupt(store, tmp_path, signal.SIGINT)
    size = (tmp_path / KEPT[0]).stat().st_size

    outcome = command("backup", *options(served.port, tmp_path))

    assert outcome.code == 3
    assert outcome.err == (
        f"asyncbackup: {tmp_path / 'file'}: an interrupted run left {size} bytes of it, unfinished, in "
        f"{tmp_path / KEPT[0]}; the same command with --resume goes on with that, and with --force it begins anew\n"
    )
    assert command("backup", "--force", *options(served.port, tmp_path)).code == 0
    assert left_in(tmp_path) == ["file", "file.manifest"]


def test_what_is_unfinished_is_in_the_way_of_other_commands(
    store: MemoryStore, command: Command, served: Served, tmp_path: Path
) -> None:
    interrupt(store, tmp_path, signal.SIGINT)
    assert command("backup", "disk", tmp_path / "whole", "-s", "b", "-p", served.port).code == 0

    assert command("merge", tmp_path / "whole", "--to", tmp_path / "file").code == 3
    assert command("export", tmp_path / "whole", "--to", tmp_path / "file").code == 3
    assert command("export", tmp_path / "whole", "--to", tmp_path / "file", "--force").code == 0
    assert not {*KEPT} & {*left_in(tmp_path)}


def test_what_was_begun_otherwise_is_told_with_what_to_do(
    store: MemoryStore, command: Command, served: Served, tmp_path: Path
) -> None:
    interrupt(store, tmp_path, signal.SIGINT)

    outcome = command("backup", "--resume", *options(served.port, tmp_path), "-s", "a")

    assert outcome.code == 1
    assert "begun with another snapshot: expected snapshot 1 'a' of VDI 'disk'" in outcome.err
    assert outcome.err.endswith(
        "; to go on, name what it was begun with; to begin anew, use --force without --resume\n"
    )
    assert left_in(tmp_path) == KEPT


def test_what_was_begun_with_other_compression_is_told_with_what_to_do(
    store: MemoryStore, command: Command, served: Served, tmp_path: Path
) -> None:
    interrupt(store, tmp_path, signal.SIGINT, "--zstd")

    outcome = command("backup", "--resume", "--format", "dog", *options(served.port, tmp_path))

    assert outcome.code == 1
    assert "begun with another compression: expected none, got zstd; to go on, name what it was begun" in outcome.err
    assert left_in(tmp_path) == KEPT


def test_an_export_goes_on_as_well(store: MemoryStore, command: Command, served: Served, tmp_path: Path) -> None:
    increment, folder = tmp_path / "increment", tmp_path / "folder"
    folder.mkdir()
    line = ["export", str(increment), "--base", "a", "--checkpoint", "1M", "--in-flight", "1"]
    assert command("backup", "disk", increment, "-s", "b", "-F", "a", "-p", served.port).code == 0
    assert command(*line, "--to", tmp_path / "whole", "-p", served.port).code == 0
    with serving(store, "read_obj@20+:stall") as stalled:
        process = start(*line, "--to", folder / "image", "-p", stalled.port, stderr=subprocess.PIPE)
        until_true((folder / ".image.partial.journal").exists, process)
        code, err = end(process, signal.SIGINT)

    assert code == 130
    assert f"what was written stays: `asyncbackup export --resume {shlex.join(line[1:])} --to " in err
    assert left_in(folder) == [".image.partial", ".image.partial.journal"]

    outcome = command(*line, "--to", folder / "image", "-p", served.port, "--resume")

    assert outcome.code == 0
    assert b"went on behind " in outcome.out
    assert (folder / "image").read_bytes() == (tmp_path / "whole").read_bytes()
    assert left_in(folder) == ["image", "image.state"]


def test_a_restore_goes_on_as_well(store: MemoryStore, command: Command, tmp_path: Path) -> None:
    full, journal = tmp_path / "full", tmp_path / "journal"
    line = ["restore", str(full), "--to", "new", "--checkpoint", "1M", "--in-flight", "1", "--journal", str(journal)]
    disk = disk_store()
    with serving(disk) as served:
        assert command("backup", "disk", full, "-s", "b", "-p", served.port).code == 0
    with serving(disk, "create_and_write_obj@4+:stall") as stalled:
        process = start(*line, "-p", stalled.port, "--timeout", "3600", stderr=subprocess.PIPE)
        # The first line is there from the beginning on.
        until_true(lambda: journal.exists() and journal.read_bytes().count(b"\n") > 1, process)
        code, err = end(process, signal.SIGINT)

    assert code == 130
    assert f"what was written stays: `asyncbackup restore --resume {shlex.join(line[1:])} -p " in err
    with serving(disk) as served:
        outcome = command(*line, "-p", served.port)
        assert outcome.code == 3
        assert "--resume" in outcome.err

        outcome = command(*line, "-p", served.port, "--resume")

        assert outcome.code == 0
        assert b"went on behind " in outcome.out
        assert command("verify", full, "--against", "new", "-p", served.port).code == 0
    assert not journal.exists()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (("-", "-s", "b", "--resume"), "--resume needs a file"),
        (("-", "-s", "b", "--checkpoint", "2M"), "--checkpoint needs a file"),
        (("file", "--live", "--resume"), "--resume needs a snapshot"),
        (("file", "-s", "b", "--no-manifest", "--resume"), "--resume needs the manifest"),
        (("file", "-s", "b", "--checkpoint", "1K"), "expected 1.0 MiB to "),
    ],
)
def test_what_cannot_be_resumed_is_a_usage_error(command: Command, line: tuple[str, ...], told: str) -> None:
    outcome = command("backup", "disk", *line)

    assert outcome.code == 64
    assert told in outcome.err


def test_a_fifo_is_not_resumed(command: Command, served: Served, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")

    outcome = command("backup", "disk", tmp_path / "fifo", "-s", "b", "--resume", "-p", served.port)

    assert outcome.code == 64
    assert "it is a pipe, which keeps nothing" in outcome.err


FULL = """
import resource, sys
from asyncbackup import __main__
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), -1))
__main__.main()
"""


def test_a_full_disk_says_how_much_is_missing_and_what_goes_on(
    command: Command, served: Served, tmp_path: Path
) -> None:
    limit = 3 * OBJECT
    arguments = ["backup", *options(served.port, tmp_path)]
    process = subprocess.run(
        [sys.executable, "-c", FULL, str(limit), *arguments], capture_output=True, text=True, check=False, timeout=60
    )

    assert process.returncode == 4
    assert "make room for at least 64 B more, and 5.0 MiB are always enough; what was written stays" in process.stderr
    assert "`asyncbackup backup --resume disk " in process.stderr
    assert left_in(tmp_path) == KEPT
    assert command(*arguments, "--resume").code == 0
    assert left_in(tmp_path) == ["file", "file.manifest"]
