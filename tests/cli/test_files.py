"""What stands in files and beside them: two runs on one, what was interrupted, links, pipes, and what is no file."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from asyncbackup.sheep import MemoryStore
from asyncbackup.storage.lock import NameLock
from asyncbackup.storage.publication import Place, manifest_path
from tests.chains import Files
from tests.cli.command import PROGRAM, Command, Served, serving, start
from tests.disks import CHANGED
from tests.folders import left_in


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    """Run a line in bash, where ``$asyncbackup`` is the program."""
    script = f'asyncbackup() {{ {shlex.join(PROGRAM)} "$@"; }}\n{line}'
    return subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        check=False,
        timeout=100,
    )


WRITERS = {
    "merge": ("merge", "ab", "bc", "--base-image", "image", "--force", "--to"),
    "convert": ("convert", "a", "--format", "dog", "--force", "--to"),
    "rbd-diff": ("convert", "a", "--format", "rbd-diff", "--force", "--to"),
    "export": ("export", "a", "ab", "--force", "--to"),
}


@pytest.fixture(params=list(WRITERS.values()), ids=list(WRITERS))
def writer(request: pytest.FixtureRequest, files: Files, monkeypatch: pytest.MonkeyPatch) -> Sequence[str]:
    """The beginning of a command line that writes the file that is named last."""
    files.image("a", "image")
    monkeypatch.chdir(files.folder)
    arguments: Sequence[str] = request.param
    return arguments


# Two runs on one file


def test_a_file_that_is_being_written_is_left_to_who_writes_it(
    command: Command, files: Files, writer: Sequence[str]
) -> None:
    lock = NameLock(Place(files.folder / "made").lock, "made")
    lock.acquire()

    outcome = command(*writer, "made")

    lock.release()
    assert outcome.code == 3
    assert f"made: process {os.getpid()} on {os.uname().nodename} is writing it since " in outcome.err
    assert "made" not in left_in(files.folder)


@pytest.mark.slow
def test_the_second_of_two_backups_into_one_file_is_refused(
    command: Command, served: Served, store: MemoryStore, tmp_path: Path
) -> None:
    arguments = ("backup", "disk", tmp_path / "file", "-s", "b", "--force", "-p")
    with serving(store, f"read_obj/{CHANGED}@1:stall") as stalled, start(*arguments, stalled.port) as first:
        assert stalled.is_reading.wait(60)

        second = command(*arguments, served.port)

        first.send_signal(signal.SIGTERM)
        assert first.wait(60) == 143
    assert second.code == 3
    assert f"file: process {first.pid} on {os.uname().nodename} is writing it since " in second.err
    assert left_in(tmp_path) == []


# What was interrupted


@pytest.mark.slow
def test_what_a_killed_run_left_is_found_by_the_next_which_says_so(
    command: Command, served: Served, store: MemoryStore, tmp_path: Path
) -> None:
    arguments = ("backup", "disk", tmp_path / "file", "-s", "b", "-p")
    with serving(store, f"read_obj/{CHANGED}@1:stall") as stalled, start(*arguments, stalled.port) as first:
        assert stalled.is_reading.wait(60)
        first.kill()
    assert left_in(tmp_path) == [".file.lock", ".file.manifest.lock", ".file.manifest.partial", ".file.partial"]

    outcome = command(*arguments, served.port)

    assert outcome.code == 0
    assert outcome.err.startswith(
        f"warning: {tmp_path / 'file'}: a run was interrupted before; what it left is removed"
    )
    assert left_in(tmp_path) == ["file", "file.manifest"]
    assert command("verify", tmp_path / "file").code == 0


def half_replace(files: Files) -> None:
    """Leave what a run leaves that is killed when the full backup ``a`` became what ``ab`` is."""
    manifest_path(files.a).rename(files.folder / ".a.manifest.old")
    manifest_path(files.ab).rename(files.folder / ".a.manifest.new")
    files.ab.replace(files.a)


def test_verify_names_half_a_replacement_and_what_finishes_it(command: Command, files: Files) -> None:
    half_replace(files)

    outcome = command("verify", files.a)

    assert outcome.code == 1
    problem = outcome.out.decode().splitlines()[0]
    assert problem.startswith(f"{files.a}: is half replaced")
    names = problem.partition("; mv ")[2].partition(" finishes it")[0]
    subprocess.run(shlex.split(f"mv {names}"), check=True)
    assert command("verify", files.a).code == 0


@pytest.mark.parametrize("arguments", [("export", "--to", "made"), ("info",), ("restore", "--to", "vdi")])
def test_nothing_is_made_of_half_a_replacement(
    command: Command, served: Served, files: Files, monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str]
) -> None:
    half_replace(files)
    monkeypatch.chdir(files.folder)
    port = ("-p", served.port) if arguments[0] == "restore" else ()

    outcome = command(arguments[0], "a", *arguments[1:], *port)

    assert outcome.code == 2
    assert "is half replaced" in outcome.err
    assert "made" not in left_in(files.folder)


def test_the_next_run_finishes_half_a_replacement(command: Command, served: Served, files: Files) -> None:
    half_replace(files)

    outcome = command("backup", "disk", files.a, "-s", "b", "-p", served.port)

    assert outcome.code == 3
    assert (
        f"{files.a}: a run was interrupted while it replaced this; {manifest_path(files.a)} was put right"
        in outcome.err
    )
    assert command("verify", files.a).code == 0


# Inputs


@pytest.mark.parametrize("target", ["input", "manifest", "link", "hard link"])
def test_no_input_is_replaced_by_what_is_made_of_it(
    command: Command, files: Files, writer: Sequence[str], target: str
) -> None:
    source = files.folder / next(argument for argument in writer[1:] if argument in ("a", "ab"))
    name = files.folder / "other"
    if target == "input":
        name = source
    elif target == "manifest":
        name = manifest_path(source)
    elif target == "link":
        name.symlink_to(source)
    else:
        os.link(source, name)
    before = {path.name: path.read_bytes() for path in files.folder.iterdir()}

    outcome = command(*writer, name)

    assert outcome.code == 1
    assert "which is read for it; use another name" in outcome.err
    assert {path.name: path.read_bytes() for path in files.folder.iterdir()} == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("merge", "ab", "bc", "--to", "image"),
        ("merge", "ab", "bc", "--to", "image.state"),
        ("export", "ab", "bc", "--to", "image.state"),
        ("export", "ab", "bc", "--to", "link"),
    ],
)
def test_no_base_is_replaced_by_what_is_made_on_it(
    command: Command, files: Files, monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str]
) -> None:
    files.image("a", "image")
    (files.folder / "link").symlink_to(files.folder / "bc")
    monkeypatch.chdir(files.folder)
    before = {path.name: path.read_bytes() for path in files.folder.iterdir()}

    outcome = command(*arguments, "--base-image", "image", "--force")

    assert outcome.code == 1
    assert "which is read for it; use another name" in outcome.err
    assert {path.name: path.read_bytes() for path in files.folder.iterdir()} == before


def test_no_manifest_is_left_beside_what_was_replaced(command: Command, files: Files, writer: Sequence[str]) -> None:
    target = files.folder / "made"
    target.write_bytes(b"old")
    manifest_path(target).write_bytes(b"of the old one")

    assert command(*writer, target, *(() if writer[0] == "export" else ("--no-manifest",))).code == 0

    assert not manifest_path(target).exists()


# Links


def test_a_backup_is_read_by_a_link_with_the_manifest_beside_what_it_leads_to(
    command: Command, files: Files, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "latest"
    link.symlink_to(files.a)

    outcome = command("verify", link)

    assert (outcome.code, b"all data is as its manifest says" in outcome.out) == (0, True)
    manifest_path(link).symlink_to(manifest_path(files.ab))
    assert command("verify", link).code == 1  # The one beside the link goes before.


def test_a_backup_that_is_written_by_a_link_is_read_by_it(command: Command, served: Served, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "latest").symlink_to(tmp_path / "elsewhere" / "file")

    assert command("backup", "disk", tmp_path / "latest", "-s", "a", "--force", "-p", served.port).code == 0

    assert left_in(tmp_path) == ["elsewhere", "latest"]
    assert left_in(tmp_path / "elsewhere") == ["file", "file.manifest"]
    assert b"all data is as" in command("verify", tmp_path / "latest").out


# Pipes


def test_several_backups_are_read_from_pipes(files: Files) -> None:
    outcome = shell("asyncbackup verify <(cat a) <(cat ab) <(cat bc)", files.folder)

    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.decode().count(": structure only, ") == 3


@pytest.mark.slow
def test_a_merge_reads_pipes_side_by_side(files: Files) -> None:
    outcome = shell(
        "asyncbackup merge <(cat a) <(cat ab) --to made --manifest a.manifest --manifest ab.manifest"
        " && asyncbackup merge a ab --to expected && cmp made expected",
        files.folder,
    )

    assert outcome.returncode == 0, (outcome.stdout, outcome.stderr)


def test_a_named_pipe_is_read_like_a_dash(command: Command, files: Files) -> None:
    os.mkfifo(files.folder / "fifo")
    with subprocess.Popen(f"cat {files.a} > {files.folder / 'fifo'}", shell=True):
        outcome = command("info", files.folder / "fifo")

    assert outcome.code == 0


@pytest.mark.parametrize("cut", [50, -50], ids=["first line", "later line"])
def test_a_named_pipe_with_a_damaged_manifest_is_read_on_without_it(command: Command, files: Files, cut: int) -> None:
    os.mkfifo(files.folder / "fifo")
    manifest_path(files.folder / "fifo").write_bytes(manifest_path(files.a).read_bytes()[:cut])

    with subprocess.Popen(f"cat {files.a} > {files.folder / 'fifo'}", shell=True):
        outcome = command("verify", files.folder / "fifo", "--json")

    assert outcome.code == 1
    (report,) = json.loads(outcome.out)["files"]
    assert report["problems"]["count"] == 1
    assert report["problems"]["messages"][0].startswith(f"{files.folder / 'fifo.manifest'}: at offset ")
    assert report["records"] == 5


def test_standard_input_is_called_that(command: Command, files: Files) -> None:
    for verb, line in (("verify", "standard input: structure only"), ("info", "file      standard input")):
        outcome = shell(f"asyncbackup {verb} - < a", files.folder)

        assert outcome.stdout.decode().startswith(line)


def test_a_pipe_is_not_compared_with_a_cluster(command: Command, served: Served, files: Files) -> None:
    os.mkfifo(files.folder / "fifo")

    outcome = command("verify", files.folder / "fifo", "--against", "disk", "-p", served.port)

    assert outcome.code == 64
    assert "is a pipe, which can be read only once" in outcome.err


def test_waiting_for_a_pipe_ends_with_ctrl_c(files: Files) -> None:
    fifo = files.folder / "fifo"
    os.mkfifo(fifo)
    with start("verify", fifo, stderr=subprocess.PIPE) as process, fifo.open("wb"):
        # It is opened by both now, and nothing is written.
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


@pytest.mark.slow
def test_a_backup_into_a_pipe_is_of_dog_and_has_no_manifest(served: Served, tmp_path: Path) -> None:
    line = f"asyncbackup backup disk >(cat > made) -s a -p {served.port}"
    piped = shell(f"{line}; wait $!", tmp_path)
    plain = shell(f"asyncbackup backup disk - -s a -p {served.port} > expected", tmp_path)

    assert (piped.returncode, plain.returncode) == (0, 0)
    assert (tmp_path / "made").read_bytes() == (tmp_path / "expected").read_bytes()
    assert left_in(tmp_path) == ["expected", "made"]
    assert piped.stdout == b""
    assert piped.stderr.splitlines()[-1].startswith(b"ok: disk a: ")


@pytest.mark.slow
def test_a_backup_into_standard_output_by_its_name_has_nothing_else_in_it(served: Served, tmp_path: Path) -> None:
    piped = shell(f"asyncbackup backup disk /dev/stdout -s a -p {served.port} | cat > made", tmp_path)
    shell(f"asyncbackup backup disk - -s a -p {served.port} > expected", tmp_path)

    assert piped.returncode == 0
    assert (tmp_path / "made").read_bytes() == (tmp_path / "expected").read_bytes()


@pytest.mark.slow
def test_the_manifest_of_what_went_into_a_pipe_goes_where_it_is_told(served: Served, tmp_path: Path) -> None:
    outcome = shell(f"asyncbackup backup disk >(cat > made) -s a --manifest proof -p {served.port}; wait $!", tmp_path)

    assert outcome.returncode == 0, outcome.stderr
    (tmp_path / "proof").rename(tmp_path / "made.manifest")
    verified = shell("asyncbackup verify made", tmp_path)
    assert b"all data is as its manifest says" in verified.stdout


def test_a_collie_backup_does_not_go_into_a_pipe(served: Served, tmp_path: Path) -> None:
    outcome = shell(f"asyncbackup backup disk >(cat) -s a --format collie -p {served.port}", tmp_path)

    assert outcome.returncode == 64
    assert b"it cannot go to a pipe; use --format dog" in outcome.stderr


@pytest.mark.slow
@pytest.mark.parametrize("target", [">(cat > made)", "/dev/stdout | cat > made"])
def test_an_image_goes_into_a_pipe(files: Files, target: str) -> None:
    outcome = shell(f"asyncbackup export a ab --to {target}; wait", files.folder)

    assert outcome.returncode == 0, outcome.stderr
    assert (files.folder / "made").read_bytes() == files.images["b"]


def test_a_conversion_goes_into_a_pipe(files: Files) -> None:
    outcome = shell("asyncbackup convert a --format rbd-diff --to >(cat > made); wait $!", files.folder)

    assert outcome.returncode == 0, outcome.stderr
    assert (files.folder / "made").read_bytes().startswith(b"rbd diff v1\n")


# What is no file


def test_a_pipe_is_no_manifest(command: Command, files: Files) -> None:
    manifest_path(files.a).unlink()
    os.mkfifo(manifest_path(files.a))

    outcome = command("verify", files.a)

    assert outcome.code == 2
    assert "a.manifest: is a pipe" in outcome.err


@pytest.mark.parametrize(
    "arguments",
    [("export", "ab", "--base-image", "fifo", "--to", "made"), ("merge", "ab", "--base-image", "fifo", "--to", "made")],
)
def test_a_pipe_is_no_base(
    command: Command, files: Files, monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str]
) -> None:
    monkeypatch.chdir(files.folder)
    os.mkfifo("fifo")

    outcome = command(*arguments)

    assert outcome.code == 2
    assert "fifo: is a pipe" in outcome.err


@pytest.mark.parametrize("name", [".", "/", "folder", "folder/", "/dev/null", "n" * 256, "a/b"])
@pytest.mark.parametrize("options", [(), ("--force",)])
def test_what_is_no_name_of_a_file_is_not_written(
    command: Command, files: Files, monkeypatch: pytest.MonkeyPatch, name: str, options: Sequence[str]
) -> None:
    (files.folder / "folder").mkdir()
    monkeypatch.chdir(files.folder)
    before = left_in(files.folder)

    for arguments in (("backup", "disk", name, "-s", "a", "-p", "1"), ("export", "a", "--to", name)):
        outcome = command(*arguments, *options)

        assert outcome.code == 2, outcome
        assert outcome.err.startswith("asyncbackup: ")
    assert left_in(files.folder) == before


@pytest.mark.parametrize("name", [".", "/", "/dev/null", "/dev/zero", "n" * 256, "a/b"])
def test_what_is_no_name_of_a_file_is_not_read(
    command: Command, files: Files, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(files.folder)

    for arguments in (("verify", name), ("info", name), ("export", name, "--to", "made")):
        outcome = command(*arguments)

        assert outcome.code == 2, outcome
        assert outcome.err.startswith("asyncbackup: ")


def test_the_longest_name_works_without_a_manifest(command: Command, served: Served, tmp_path: Path) -> None:
    name = "n" * 255

    refused = command("backup", "disk", tmp_path / name, "-s", "a", "-p", served.port)
    made = command("backup", "disk", tmp_path / name, "-s", "a", "--no-manifest", "-p", served.port)

    assert (refused.code, made.code) == (2, 0)
    assert f"{name}.manifest: File name too long" in refused.err
    assert left_in(tmp_path) == [name]
    assert command("verify", tmp_path / name).code == 0
