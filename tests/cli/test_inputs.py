"""No input ends in a traceback: names, numbers and addresses that nobody would think of, and no descriptors left."""

from __future__ import annotations

import resource
import socket
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from asyncbackup import Cluster, compare, export, merge, restore, verify
from asyncbackup.sheep import MemoryStore
from tests.chains import Files
from tests.cli.command import Command, serving, start
from tests.folders import left_in
from tests.privileges import unprivileged

DIGITS = "9" * 5000


BACKUP = ["backup", "disk", "file", "-s", "a"]
RESTORE = ["restore", "a", "--to", "new"]
VERIFY = ["verify", "a", "--against", "disk", "--sample", "5"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["backup", "disk", "file", "-s", DIGITS], "snapshot ids end at 4294967295"),
        (["backup", "disk", "file", "-s", "4294967296"], "snapshot ids end at 4294967295"),
        (["backup", "disk", "file", "-s", "000"], "snapshot ids start at 1"),
        (["backup", "disk", "file", "-s", "t" * 256], "at most 255 bytes"),
        (["backup", "disk", "file", "-s", "é" * 128], "at most 255 bytes"),
        (["backup", "disk", "file", "-s", "a", "-F", "a\0b"], "at most 255 bytes, without NUL"),
        ([*BACKUP, "-p", DIGITS], "expected a whole number, got"),
        ([*BACKUP, "-p", "7_000"], "expected a whole number, got"),
        ([*BACKUP, "-p", "\u0667\u0660"], "expected a whole number, got"),
        ([*BACKUP, "-p", "65536"], "is not in the range"),
        ([*BACKUP, "--connections", "257"], "is not in the range"),
        ([*BACKUP, "--in-flight", "65537"], "is not in the range"),
        ([*BACKUP, "--memory", "9999999999T"], "expected at most 16.0 TiB"),
        ([*BACKUP, "--memory", DIGITS], "expected a size"),
        ([*BACKUP, "--timeout", "inf"], "expected a number of seconds"),
        ([*BACKUP, "--timeout", "1e300"], "is not in the range"),
        ([*BACKUP, "--timeout", "1e999"], "is not in the range"),
        ([*BACKUP, "--timeout", DIGITS], "expected a number of seconds"),
        ([*BACKUP, "--timeout", "\u0663"], "expected a number of seconds"),
        ([*RESTORE, "--size", "9999999999T"], "expected 1 B to"),
        ([*RESTORE, "--size", "0"], "expected 1 B to"),
        ([*RESTORE, "--copies", "32"], "is not in the range"),
        ([*RESTORE, "--object-size", "512K"], "expected 1.0 MiB to 2.0 GiB"),
        ([*RESTORE, "--object-size", "4G"], "expected 1.0 MiB to 2.0 GiB"),
        ([*RESTORE, "--object-size", "3M"], "expected a power of two"),
        (["restore", "a", "--to", ""], "a VDI needs a name"),
        (["restore", "a", "--to", "n" * 256], "at most 255 bytes"),
        (["restore", "a", "--to", "a\0b"], "without NUL"),
        (["export", "a", "--to", "image", "--size", "9999999999T"], "expected 1 B to"),
        (["convert", "a", "--to", "c", "--format", "rbd-diff", "--size", "8388608T"], "expected 1 B to"),
        ([*VERIFY, "--seed", DIGITS], "expected a whole number, got"),
        ([*VERIFY, "--seed", "18446744073709551616"], "is not in the range"),
        (["verify", "a", "--against", "disk", "--sample", DIGITS], "expected a percentage"),
        (["verify", "a", "--against", "disk", "--sample", "nan"], "expected a percentage"),
        (["info", "a\0b"], "no file has a NUL in its name"),
        (["info", "a", "--manifest", ""], "'--manifest': an empty name is the name of no file"),
        (["export", "ab", "--to", "image", "--base-image", ""], "'--base-image': an empty name"),
        (["verify", "a", ""], "'FILE...': an empty name"),
        (["verify", "-", "-"], "standard input can be read only once"),
        (["verify", "-", "--against", "disk"], "--against reads each FILE twice"),
        (["restore", "-", "-", "--to", "new"], "standard input can be read only once"),
        (["export", "-", "a", "-", "--to", "image"], "standard input can be read only once"),
        (["merge", "-", "-", "--to", "merged"], "standard input can be read only once"),
        (["backup", "disk", "", "-s", "a"], "'FILE': an empty name"),
        (["export", "a", "--to", ""], "'--to': an empty name"),
        (["convert", "a", "--to", "d", "--format", "rbd-diff", "--snapshot-name", ""], "a snapshot needs a name"),
        (["convert", "a", "--to", "d", "--format", "rbd-diff", "--base-name", ""], "a snapshot needs a name"),
        (["convert", "a", "--to", "d", "--format", "dog", "--snapshot-name", ""], "a snapshot needs a name"),
        (["convert", "a", "--to", "d", "--format", "dog", "--size", "8M"], "--size are for --format rbd-diff"),
        (["backup", "disk", "f", "-s", "b", "--also", "-=a"], "standard output is for FILE alone"),
        (["backup", "disk", "f", "-s", "b", "--also", "=a"], "'--also': an empty name"),
        (["backup", "disk", "f", "-s", "b", "--also", "f=a"], "f is given twice"),
        (["backup", "disk", "f", "-s", "b", "--also", "./f=a"], "f and ./f are one file"),
        (["backup", "disk", "f", "-s", "b", "--also", "f.manifest=a"], "/f.manifest and f.manifest are one file"),
        (["backup", "disk", "f.manifest", "-s", "b", "--also", "f=a"], "f.manifest and /"),
        (["backup", "disk", "s3://b/f", "-s", "b", "--also", "S3://b/f=a"], "s3://b/f and S3://b/f are one file"),
        (
            ["backup", "disk", "s3://b/f", "-s", "b", "--also", "s3://b/f.manifest=a"],
            "s3://b/f.manifest is given twice",
        ),
        (["backup", "disk", "-", "-s", "b", "--manifest", "m", "--also", "m=a"], "m is given twice"),
        (["backup", "disk", "-", "-s", "b", "--workers", "2"], "--workers needs files: standard output takes"),
        (["backup", "disk", "f", "-s", "b", "--also", "g=0"], "snapshot ids start at 1"),
        (["sheep", "--store", ""], "'--store': an empty name"),
        (["sheep", "--bind", ""], "expected an address; 0.0.0.0 stands for all"),
        (["sheep", "--store", "/"], "expected the name of a folder"),
        (["sheep", "-p", "65536"], "is not in the range"),
        (["sheep", "-p", "65535", "--nodes", "2"], "there are no 2 ports from 65535 on"),
        (["sheep", "--nodes", "3", "--copies", "5"], "5 copies need as many nodes, and there are 3"),
        (["sheep", "--nodes", "2", "--store", "folder"], "leave --store out, or run one node"),
        (["sheep", "--nodes", "2", "--bind", "0.0.0.0"], "give one address with --bind, not 0.0.0.0"),
    ],
)
def test_values_out_of_bounds_are_wrong_use(
    command: Command, files: Files, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(files.folder)
    before = left_in(files.folder)

    outcome = command(*arguments)

    assert outcome.code == 64
    assert message in outcome.err
    assert left_in(files.folder) == before


@pytest.mark.parametrize("snapshot", ["\u0661", "1_0", "\u00b2", "-1"])
def test_what_is_no_ascii_number_is_a_tag(command: Command, store: MemoryStore, tmp_path: Path, snapshot: str) -> None:
    with serving(store) as served:
        outcome = command("backup", "disk", tmp_path / "file", f"--snapshot={snapshot}", "-p", served.port)

    assert outcome.code == 5
    assert f"has no snapshot '{snapshot}'" in outcome.err


@pytest.mark.parametrize("address", ["10.0.0..5", ".", "a..b", "x" * 10000, "é" * 100, "\udcff", "a\0b", "a b", "%"])
def test_an_address_that_no_node_can_have(command: Command, address: str) -> None:
    outcome = command("vdi", "list", "-a", address, "-p", "1")

    assert outcome.code == 2
    assert outcome.err.startswith("asyncbackup: cannot reach a sheep at ")
    assert outcome.err.count("\n") == 1


NAMES = ["", ".", "/", "..", "n" * 256, "/etc/passwd/x"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "verb",
    [
        ["backup", "disk", "{}", "-s", "a", "--force"],
        ["backup", "disk", "-", "-s", "a", "--manifest", "{}"],
        ["export", "a", "--to", "{}", "--force"],
        ["merge", "a", "--to", "{}"],
        ["convert", "a", "--to", "{}", "--format", "rbd-diff"],
        ["info", "{}"],
        ["verify", "{}"],
        ["restore", "{}", "--to", "new"],
        ["export", "{}", "--to", "image"],
        ["export", "ab", "--to", "image", "--base-image", "{}"],
        ["merge", "ab", "bc", "--to", "merged", "--base-image", "{}"],
    ],
    ids=" ".join,
)
def test_a_name_that_no_file_can_have(
    command: Command,
    store: MemoryStore,
    files: Files,
    monkeypatch: pytest.MonkeyPatch,
    *,
    verb: list[str],
    name: str,
) -> None:
    monkeypatch.chdir(files.folder)
    before = left_in(files.folder)

    with serving(store) as served:
        port = ["-p", served.port] if verb[0] in {"backup", "restore"} else []
        outcome = command(*(argument.format(name) for argument in verb), *port)

    assert outcome.code in {1, 2, 5, 64}
    assert outcome.out == b"" or verb[0] == "verify"
    assert left_in(files.folder) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "limit"),
    [
        *((["vdi", "list"], limit) for limit in (6, 8, 10, 12)),
        *((["export", "{}/a", "{}/ab", "{}/bc", "--to", "{}/image"], limit) for limit in (6, 8, 10, 12, 14)),
    ],
)
def test_too_few_descriptors_are_told_as_such(
    store: MemoryStore, files: Files, arguments: list[str], limit: int
) -> None:
    def set_limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    with serving(store) as served:
        port = ["-p", served.port] if "vdi" in arguments else []
        process = start(
            *(argument.format(files.folder) for argument in arguments),
            *port,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=set_limit,
        )
        _, err = process.communicate(timeout=60)

    assert process.returncode == 2, err
    assert b"Too many open files" in err
    assert err.count(b"\n") == 1
    assert not (files.folder / "image").exists()


def test_a_cluster_without_space_is_full(command: Command, store: MemoryStore, files: Files) -> None:
    for fault in ("new_vdi@1:error=NO_SPACE", "create_and_write_obj@2:error=NO_SPACE"):
        with serving(store, fault) as served:
            outcome = command("restore", files.a, "--to", "full", "-p", served.port)

        assert outcome.code == 4, outcome.err
        assert "no space left in the cluster" in outcome.err


@pytest.mark.slow
def test_a_cluster_without_space_even_to_remove_is_full(command: Command, store: MemoryStore, files: Files) -> None:
    with serving(store, "create_and_write_obj@2:error=NO_SPACE", "remove_obj@1+:error=NO_SPACE") as served:
        restored = command("restore", files.a, "--to", "left", "-p", served.port)
        discarded = command("restore", "--discard", "left", "-p", served.port)

    assert (restored.code, discarded.code) == (4, 4)
    assert "VDI 'left', tagged 'unfinished restore', may be left behind" in restored.err
    assert "removing object" in discarded.err


def test_an_empty_name_of_the_base_s_vdi_is_not_taken_for_none(
    command: Command, store: MemoryStore, files: Files
) -> None:
    with serving(store) as served:
        outcome = command(
            "restore", files.ab, "--to", "new", "--base", "a", "--base-vdi", "", "--assume-base", "-p", served.port
        )

    assert outcome.code == 5
    assert "no VDI named ''" in outcome.err


@pytest.mark.parametrize("verb", [["info"], ["convert", "--to", "made", "--format", "dog"]])
def test_a_manifest_is_told_from_the_backup_that_it_is_of(command: Command, files: Files, verb: list[str]) -> None:
    outcome = command(*verb, f"{files.a}.manifest")

    assert outcome.code == 5
    assert f"is the manifest of the backup {files.a}, which is there, but was not named" in outcome.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["info", "{}/a"],
        ["verify", "{}/a"],
        ["verify", "{}"],
        ["export", "{}/a", "--to", "{}/image"],
        ["merge", "{}/a", "--to", "{}/merged", "--force"],
        ["export", "{}/ab", "--to", "{}/image", "--base-image", "{}/image-a"],
    ],
    ids=" ".join,
)
def test_a_folder_that_may_not_be_read(command: Command, files: Files, arguments: list[str]) -> None:
    named = [argument.format(files.folder) for argument in arguments]
    # What a verb needs is imported now: nobody may be unable to.
    command(*named, "--help")
    files.folder.chmod(0)

    try:
        with unprivileged():
            outcome = command(*named)
    finally:
        files.folder.chmod(0o700)

    told = outcome.err + outcome.out.decode()
    assert outcome.code in {1, 2}
    assert "Permission denied" in told
    assert str(files.folder) in told


@pytest.mark.parametrize(
    "arguments",
    [
        ["info", "socket"],
        ["verify", "socket"],
        ["verify", "a", "--manifest", "socket"],
        ["export", "a", "--to", "socket", "--force"],
        ["merge", "a", "--to", "socket", "--force"],
        ["export", "ab", "--to", "image", "--base-image", "socket"],
    ],
    ids=" ".join,
)
def test_a_socket_is_no_file(
    command: Command, files: Files, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(files.folder)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")

    outcome = command(*arguments)

    assert outcome.code == 2
    assert outcome.err.startswith("asyncbackup: socket: is n")
    assert Path("socket").is_socket()


Call = Callable[[Cluster, Path], Awaitable[object]]


@pytest.mark.parametrize(
    "call",
    [
        lambda _cluster, _path: verify([]),
        lambda _cluster, path: export([], path),
        lambda _cluster, path: merge([], path),
        lambda cluster, _path: restore(cluster, [], "new"),
        lambda cluster, _path: compare(cluster, [], "vm"),
    ],
)
async def test_no_backups_are_no_success(cluster: Cluster, tmp_path: Path, call: Call) -> None:
    with pytest.raises(ValueError, match="expected at least one backup, got none"):
        await call(cluster, tmp_path / "made")

    assert left_in(tmp_path) == []


async def test_one_backup_is_no_sequence_of_them() -> None:
    with pytest.raises(TypeError, match="expected a sequence of backups, got one"):
        await verify("vm.monday")
