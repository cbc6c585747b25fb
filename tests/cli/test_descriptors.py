"""Standard descriptors that are closed, full, or that nobody reads: the exit code says what happened, and no abort."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from tests.chains import Files, copy_files
from tests.cli.command import PROGRAM, Command, Served
from tests.folders import left_in

# Each test starts processes of its own.
pytestmark = pytest.mark.slow

BROKEN = "> >(true)"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    (tmp_path / "in").mkdir()
    return copy_files(tmp_path / "in")


def shell(redirections: str, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    """Run the command line as a shell does with ``redirections``."""
    # Nobody reads any more when the program begins: its start takes longer than that of `true`.
    return subprocess.run(
        ["bash", "-c", f'"$@" {redirections}', "bash", *PROGRAM, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=60,
    )


Arguments = Callable[[Path, Files, str], list[object]]

VERBS: dict[str, Arguments] = {
    "backup": lambda made, _, port: ["backup", "disk", made, "-s", "a", "-p", port],
    "restore": lambda made, files, port: ["restore", files.a, "--to", uuid4().hex, "-p", port],
    "export": lambda made, files, _: ["export", *files.all, "--to", made],
    "merge": lambda made, files, _: ["merge", *files.all, "--to", made],
    "convert": lambda made, files, _: ["convert", files.a, "--to", made, "--format", "rbd-diff"],
    "verify": lambda _, files, __: ["verify", *files.all],
    "info": lambda _, files, __: ["info", files.a],
    "list": lambda _, __, port: ["vdi", "list", "-p", port],
    "tree": lambda _, __, port: ["vdi", "tree", "--json", "-p", port],
    "help": lambda *_: ["backup", "-h"],
    "version": lambda *_: ["--version"],
    "nothing": lambda *_: [],
}
WRITING = {"backup": "backup", "restore": "VDI", "export": "image", "merge": "backup", "convert": "backup"}


@pytest.mark.parametrize("verb", VERBS)
def test_a_full_standard_output_is_a_system_failure(
    command: Command, served: Served, files: Files, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    made = files.folder / "made"
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr("sys.stdout", full)
        outcome = command(*VERBS[verb](made, files, served.port))

    done = f"; the {WRITING[verb]} itself is complete" if verb in WRITING else ""
    assert outcome.code == 2
    assert outcome.err == f"asyncbackup: cannot print to standard output: No space left on device{done}\n"
    if verb in WRITING and verb != "restore":
        assert made.exists()


@pytest.mark.parametrize(
    ("verb", "redirections"),
    [
        ("backup", ">/dev/full"),
        *((verb, "<&- >&- 2>&-") for verb in ("backup", "list", "help")),
        *((verb, redirections) for verb in ("backup", "list") for redirections in (">&-", ">&- 2>/dev/full", BROKEN)),
    ],
)
def test_what_cannot_be_printed_is_a_system_failure(
    served: Served, files: Files, tmp_path: Path, verb: str, redirections: str
) -> None:
    made = tmp_path / "out" / "made"
    made.parent.mkdir()

    result = shell(redirections, *VERBS[verb](made, files, served.port))

    assert result.returncode == 2, result.stderr
    assert result.stdout == b""
    if "2>" in redirections or (redirections == BROKEN and verb not in WRITING):
        assert result.stderr == b""
    else:
        assert result.stderr.startswith(b"asyncbackup: cannot print to standard output: ")
        assert result.stderr.count(b"\n") == 1
    if verb in WRITING and "2>" not in redirections:
        assert result.stderr.endswith(b"; the backup itself is complete\n")
    assert made.exists() == (verb in WRITING)


@pytest.mark.parametrize(
    ("verb", "redirections"), [("backup", "<&-"), ("backup", "2>&-"), ("restore", "2>/dev/full"), ("list", "<&- 2>&-")]
)
def test_who_reads_no_errors_gets_the_report(
    served: Served, files: Files, tmp_path: Path, verb: str, redirections: str
) -> None:
    result = shell(redirections, *VERBS[verb](tmp_path / "made", files, served.port))

    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.count(b"\n") > 1


@pytest.mark.parametrize(
    ("arguments", "code", "redirections"),
    [(["info", "/nowhere"], 5, "2>&-"), (["info", "/nowhere"], 5, "2> >(true)"), (["backup"], 64, "2>/dev/full")],
)
def test_an_error_that_cannot_be_told_has_its_exit_code(arguments: list[str], code: int, redirections: str) -> None:
    assert shell(redirections, *arguments).returncode == code


def test_no_report_is_needed_where_none_is_wanted(served: Served, files: Files, tmp_path: Path) -> None:
    result = shell("<&- >&- 2>&-", *VERBS["export"](tmp_path / "made", files, served.port), "--quiet")

    assert result.returncode == 0


def test_no_file_gets_the_number_of_a_closed_descriptor(
    command: Command, served: Served, files: Files, tmp_path: Path
) -> None:
    closed, open_ = tmp_path / "closed", tmp_path / "open"

    for made, run in ((closed, lambda *verb: shell("<&- >&- 2>&-", *verb)), (open_, command)):
        made.mkdir()
        for verb in ("backup", "merge", "export"):
            run(*VERBS[verb](made / verb, files, served.port))

    assert left_in(closed) == left_in(open_)
    # A state tells also when its image was made.
    same = [name for name in left_in(open_) if name != "export.state"]
    assert all((closed / name).read_bytes() == (open_ / name).read_bytes() for name in same)


TO_PIPE = {
    "backup": ["backup", "disk", "-", "-s", "a"],
    "export": ["export", "{a}", "--to", "-"],
    "merge": ["merge", "{a}", "{ab}", "--to", "-"],
    "rbd-diff": ["convert", "{a}", "--to", "-", "--format", "rbd-diff"],
}


def to_pipe(verb: str, files: Files, port: str) -> list[object]:
    arguments: list[object] = [argument.format(a=files.a, ab=files.ab) for argument in TO_PIPE[verb]]
    return [*arguments, "-p", port] if verb == "backup" else arguments


CLOSED = "standard output: is closed, or open for reading only"
FULL = "standard output: No space left on device; nothing went to standard output"
UNREAD = "standard output: Broken pipe; nothing went to standard output"
BEGUN = "standard output: Broken pipe; what went to standard output is incomplete: do not keep it"


@pytest.mark.parametrize(
    ("verb", "redirections", "failure"),
    [
        *((verb, ">&-", (2, CLOSED)) for verb in ("merge", "export")),
        *((verb, ">/dev/full", (4, FULL)) for verb in ("rbd-diff", "export")),
        ("backup", "| true", (2, UNREAD)),
        ("backup", "| head -c 1000", (2, BEGUN)),
        ("export", "| head -c 1000", (2, BEGUN)),
    ],
)
def test_a_target_that_takes_nothing(
    served: Served, files: Files, verb: str, redirections: str, failure: tuple[int, str]
) -> None:
    code, told = failure

    result = shell(f"{redirections}; exit ${{PIPESTATUS[0]}}", *to_pipe(verb, files, served.port))

    assert result.returncode == code, result.stderr
    assert result.stderr.decode() == f"asyncbackup: {told}\n"


def test_the_report_of_what_was_piped_is_missed_too(served: Served, files: Files) -> None:
    result = shell("2>&-", *to_pipe("backup", files, served.port))

    assert result.returncode == 2
    assert result.stdout == shell("2>&-", *to_pipe("backup", files, served.port), "-q").stdout


@pytest.mark.parametrize("arguments", [["verify"], ["restore", "--to", "new"], ["export", "--to", "image"]])
def test_closed_standard_input_cannot_be_read(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(os.path.abspath, sys.path)))
    port = ["-p", served.port] if "restore" in arguments else []

    result = shell("<&-", *arguments, "-", *port)

    told = result.stderr + result.stdout
    assert b"standard input: is closed, or open for writing only" in told
    assert result.returncode in (1, 2)
    assert left_in(tmp_path) == []


def test_the_manifest_of_what_was_piped_in_vain_does_not_appear(served: Served, tmp_path: Path) -> None:
    result = shell(
        "| head -c 1000; exit ${PIPESTATUS[0]}",
        "backup",
        "disk",
        "-",
        "-s",
        "a",
        "-p",
        served.port,
        "--manifest",
        tmp_path / "manifest",
    )

    assert result.returncode == 2
    assert left_in(tmp_path) == []
