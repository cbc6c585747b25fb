"""Every way to fail has its exit code and one message, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from asyncbackup import ClientOptions, connect
from asyncbackup.client.objects import READ_SIZE
from asyncbackup.errors import TargetExists
from asyncbackup.sheep import MemoryStore
from tests.cli.command import Command, Outcome, disk_store, playing, serving, start
from tests.disks import CHANGED, rewrite_inode
from tests.faults.proxy import Handler
from tests.folders import left_in
from tests.privileges import unprivileged


@pytest.fixture
def nobody() -> str:
    """A port where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])


def assert_one_message(outcome: Outcome, code: int, *parts: str) -> None:
    assert outcome.code == code, outcome.err
    assert outcome.out == b""
    assert outcome.err.startswith("asyncbackup: ")
    assert outcome.err.count("\n") == 1
    for part in parts:
        assert part in outcome.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["disc", "-s", "a"], "no VDI named 'disc'; VDIs are disk"),
        (["disk", "-s", "z"], "VDI 'disk' has no snapshot 'z'; snapshots are 2 (b), 1 (a)"),
        (["disk", "-s", "7"], "VDI 'disk' has no snapshot 7; snapshots are 2 (b), 1 (a)"),
        (["disk", "-s", "a", "-F", "z"], "VDI 'disk' has no snapshot 'z'; snapshots are 2 (b), 1 (a)"),
        (["disk", "-s", "4294967295"], "VDI 'disk' has no snapshot 4294967295; snapshots are"),
        (["x" * 300, "-s", "a"], "VDIs are disk"),
    ],
)
def test_what_is_unknown(
    command: Command, store: MemoryStore, tmp_path: Path, arguments: list[str], message: str
) -> None:
    with serving(store) as served:
        vdi, *rest = arguments
        outcome = command("backup", vdi, tmp_path / "file", *rest, "-p", served.port)

    assert_one_message(outcome, 5, message)
    assert left_in(tmp_path) == []


def test_nothing_listens(command: Command, tmp_path: Path, nobody: str) -> None:
    outcome = command("backup", "disk", tmp_path / "file", "-s", "a", "-p", nobody)

    assert_one_message(outcome, 2, f"cannot reach a sheep at localhost:{nobody}", "check the address and the port")
    assert left_in(tmp_path) == []


async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html; charset=utf-8\r\n\r\n")


async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)


async def closing(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (http, "does not speak the sheep protocol"),
        (silent, "did not answer GET_NODE_LIST within 1 s"),
        (echo, "did not answer GET_NODE_LIST within 1 s"),
        (closing, "lost the connection"),
    ],
)
def test_something_that_is_no_sheep(command: Command, tmp_path: Path, handler: Handler, message: str) -> None:
    with playing(handler) as port:
        outcome = command("backup", "disk", tmp_path / "file", "-s", "a", "-p", port, "--timeout", "1")

    assert_one_message(outcome, 2, message)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(
    ("result", "word"),
    [
        ("WAIT_FOR_FORMAT", "waiting for format"),
        ("STARTUP", "starting up"),
        ("SHUTDOWN", "shutting down"),
        ("HALT", "halted"),
    ],
)
def test_a_cluster_that_does_not_serve(
    command: Command, store: MemoryStore, tmp_path: Path, result: str, word: str
) -> None:
    with serving(store, f"any@1+:error={result}") as served:
        arguments = ("backup", "disk", tmp_path / "file", "-s", "a", "-p", served.port)
        outcome = command(*arguments, "--give-up-after", "0")

    assert_one_message(outcome, 2, f"is not serving: {word}")
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("existing", ["file", "file.manifest"])
def test_a_file_that_exists_even_if_there_is_no_cluster(
    command: Command, tmp_path: Path, nobody: str, existing: str
) -> None:
    (tmp_path / existing).write_bytes(b"old")

    outcome = command("backup", "disk", tmp_path / "file", "-s", "a", "-p", nobody)

    assert_one_message(outcome, 3, f"{existing}: exists already; use another name, or --force to replace it")
    assert left_in(tmp_path) == [existing]
    assert (tmp_path / existing).read_bytes() == b"old"


def test_a_file_that_was_to_be_replaced(command: Command, store: MemoryStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "file.manifest").write_bytes(b"old manifest")

    with serving(store, f"read_obj/{CHANGED}@1:error=EIO") as served:
        outcome = command("backup", "disk", tmp_path / "file", "-s", "b", "--force", "-p", served.port)

    assert_one_message(outcome, 1)
    assert left_in(tmp_path) == ["file", "file.manifest"]
    assert (tmp_path / "file").read_bytes() == b"old"
    assert (tmp_path / "file.manifest").read_bytes() == b"old manifest"


def test_a_missing_folder_even_if_there_is_no_cluster(command: Command, tmp_path: Path, nobody: str) -> None:
    outcome = command("backup", "disk", tmp_path / "missing" / "file", "-s", "a", "-p", nobody)

    assert_one_message(outcome, 2, "No such file or directory")


def test_a_folder_that_is_not_ours_even_if_there_is_no_cluster(command: Command, nobody: str) -> None:
    command("backup", "--help")  # Loads the modules, which nobody else may read here.
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)  # noqa: PTH101 - a name is all there is
        with unprivileged():
            outcome = command("backup", "disk", Path(folder) / "file", "-s", "a", "-p", nobody)

    assert_one_message(outcome, 2, "Permission denied")


def test_different_object_sizes(command: Command, tmp_path: Path) -> None:
    store = disk_store()
    with serving(store) as served:

        async def rewrite() -> None:
            async with connect("127.0.0.1", served.sheep.port, ClientOptions(connections=1)) as cluster:
                rewrite_inode(store, replace(await cluster.find_vdi("disk", "a"), block_size_shift=22))

        anyio.run(rewrite)
        outcome = command("backup", "disk", tmp_path / "file", "-s", "b", "-F", "a", "-p", served.port)

    assert_one_message(outcome, 1, "has objects of 1048576 bytes, and")
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("force", [False, True])
def test_a_file_that_gets_too_large(command: Command, store: MemoryStore, tmp_path: Path, *, force: bool) -> None:
    if force:
        (tmp_path / "file").write_bytes(b"old")
    before = left_in(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with serving(store) as served:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, hard))
        try:
            options = ["--force"] if force else []
            outcome = command("backup", "disk", tmp_path / "file", "-s", "b", "-p", served.port, *options)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert_one_message(outcome, 4, "file: File too large")
    assert left_in(tmp_path) == before
    assert all((tmp_path / name).read_bytes() == b"old" for name in before)


def test_a_device_that_is_full(store: MemoryStore) -> None:
    with serving(store) as served, Path("/dev/full").open("wb") as full:
        process = start("backup", "disk", "-", "-s", "b", "-p", served.port, stdout=full, stderr=subprocess.PIPE)
        _, err = process.communicate(timeout=30)

    assert process.returncode == 4
    assert err == b"asyncbackup: standard output: No space left on device; nothing went to standard output\n"


def test_a_reader_that_goes_away(store: MemoryStore) -> None:
    reader, writer = os.pipe()
    with serving(store) as served:
        process = start("backup", "disk", "-", "-s", "b", "-p", served.port, stdout=writer, stderr=subprocess.PIPE)
        os.close(writer)
        os.read(reader, 8)
        os.close(reader)
        _, err = process.communicate(timeout=30)

    assert process.returncode == 2
    assert (
        err
        == b"asyncbackup: standard output: Broken pipe; what went to standard output is incomplete: do not keep it\n"
    )


def test_an_object_that_cannot_be_read(command: Command, store: MemoryStore, tmp_path: Path) -> None:
    with serving(store, f"read_obj/{CHANGED}@1:error=EIO") as served:
        outcome = command("backup", "disk", tmp_path / "file", "-s", "b", "-F", "a", "-p", served.port)

    assert_one_message(outcome, 1, "reading object ", " (oid 00", "failed: I/O error (result 0x03)")
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("short=20", f"expected {READ_SIZE} bytes, got 20 bytes"),
        ("long=8", f"expected at most {READ_SIZE} bytes for READ_OBJ, got {READ_SIZE + 8} bytes"),
        ("wrong-id", "expected an answer to one of our requests, got one to request"),
        ("garbage=64", "expected an answer to one of our requests, got one to request"),
        ("reset", "lost the connection"),
        ("cut=1000", "lost the connection"),
        ("stall", "did not answer READ_OBJ within 1 s; check whether the node is stalled"),
    ],
)
def test_a_broken_answer(command: Command, store: MemoryStore, tmp_path: Path, fault: str, message: str) -> None:
    with serving(store, f"read_obj/{CHANGED}@1:{fault}") as served:
        arguments = ("backup", "disk", tmp_path / "file", "-s", "b", "-p", served.port)
        outcome = command(*arguments, "--timeout", "1", "--give-up-after", "0")

    assert_one_message(outcome, 2, message)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("arguments", [["vdi", "list"], ["vdi", "tree"]])
def test_every_verb_tells_what_is_wrong_the_same_way(command: Command, nobody: str, arguments: list[str]) -> None:
    assert_one_message(command(*arguments, "-p", nobody), 2, "cannot reach a sheep")


def test_output_that_nobody_reads_is_no_traceback(store: MemoryStore) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with serving(store) as served:
        process = start("vdi", "list", "-p", served.port, stdout=writer, stderr=subprocess.PIPE)
        os.close(writer)
        _, err = process.communicate(timeout=30)

    assert process.returncode != 0
    assert err == b""


def test_a_name_that_no_host_can_have_to_listen_at(command: Command) -> None:
    assert_one_message(command("sheep", "--bind", "a" * 300, "-p", "0"), 2, "no host has such a name")


@pytest.mark.parametrize("address", ["10.0.0..5", "a" * 300, "\udcff"])
def test_a_name_that_no_host_can_have(command: Command, address: str) -> None:
    assert_one_message(command("vdi", "list", "-a", address), 2, "no host has such a name")


def test_a_program_is_told_what_went_wrong(command: Command, nobody: str) -> None:
    outcome = command("vdi", "list", "--json", "-p", nobody)

    told = json.loads(outcome.out)["error"]
    assert (told["kind"], told["exit_code"]) == ("Unreachable", 2)
    assert told["fields"]["address"] == f"localhost:{nobody}"
    assert outcome.err == f"asyncbackup: {told['message']}\n"


def test_a_program_is_told_of_a_wrong_command_line(command: Command) -> None:
    outcome = command("backup", "disk", "file", "--json")

    told = json.loads(outcome.out)["error"]
    assert (told["kind"], told["exit_code"]) == ("UsageError", 64)
    assert told["message"] == "name the snapshot to back up with -s, or use --live for the working VDI"


def test_where_data_goes_to_standard_output_a_program_is_told_on_standard_error(command: Command, nobody: str) -> None:
    outcome = command("backup", "disk", "-", "-s", "b", "--json", "-p", nobody)

    assert outcome.out == b""
    assert json.loads(outcome.err.splitlines()[-1])["error"]["kind"] == "Unreachable"


def test_a_file_that_is_called_like_the_option_asks_for_nothing(command: Command, nobody: str) -> None:
    outcome = command("backup", "disk", "-s", "b", "-p", nobody, "--", "--json")

    assert (outcome.code, outcome.out) == (2, b"")


@pytest.mark.parametrize("field", [float("nan"), object(), [object()], (1, float("inf"))])
def test_what_json_has_no_value_for_is_left_out(
    command: Command, monkeypatch: pytest.MonkeyPatch, field: object
) -> None:
    def fail(*_: object, **__: object) -> None:
        error = TargetExists("file")
        error.odd, error.names = field, ("a", "b")  # type: ignore[attr-defined] # no error has such a field
        raise error

    monkeypatch.setattr("asyncbackup.cli.vdi.run_async", fail)

    told = json.loads(command("vdi", "list", "--json").out)["error"]

    assert told["fields"] == {"target": "file", "problem": "exists already", "names": ["a", "b"]}
