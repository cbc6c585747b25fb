"""Nothing from outside reaches a terminal as it is, whatever standard output and standard error are."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbackup import ClientOptions, connect
from asyncbackup.cli import output
from asyncbackup.cli.main import run
from asyncbackup.cli.output import visible, width
from asyncbackup.sheep import MemoryStore
from tests.cli.command import Command, disk_store, serving, start

HOSTILE = "a\x1b[2J\x07\x7f\x9b\u202e\u2028\ue000\n\r\tb"
SHOWN = r"a\x1b[2J\x07\x7f\x9b\u202e\u2028\ue000\x0a\x0d\x09b"


@pytest.fixture(scope="module")
def store() -> MemoryStore:
    """A cluster with the disk of tests.disks, and VDIs that are named to fool a terminal."""
    store = disk_store()

    async def fill() -> None:
        with serving(store) as served:
            async with connect("127.0.0.1", served.sheep.port, ClientOptions(connections=1)) as cluster:
                for name in (HOSTILE, "日本", "e\u0301a", "back\\slash"):
                    await cluster.create_vdi(name, 4 << 20)
                await cluster.create_snapshot(HOSTILE, HOSTILE)

    anyio.run(fill)
    return store


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("vm-1 (copy) ü 日本 e\u0301", "vm-1 (copy) ü 日本 e\u0301"),
        (HOSTILE, SHOWN),
        ("\udcff\U000e0001\U0010ffff", r"\udcff\U000e0001\U0010ffff"),
        ("\\x1b", r"\\x1b"),
    ],
)
def test_what_does_not_print_is_shown_as_escapes(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.slow
@given(st.text())
def test_what_is_shown_prints_and_tells_two_texts_apart(text: str) -> None:
    shown = visible(text)

    assert shown.isprintable()
    assert shown.encode().decode("unicode-escape" if shown.isascii() else "utf-8") == (
        text if shown.isascii() else shown
    )


def test_wide_and_combining_characters_take_the_columns_that_they_take() -> None:
    assert [width(text) for text in ("disk", "日本", "e\u0301a")] == [4, 4, 2]


def test_a_list_is_aligned_whatever_the_names_are(command: Command, store: MemoryStore) -> None:
    with serving(store) as served:
        outcome = command("vdi", "list", "-p", served.port)

    lines = outcome.out.decode().splitlines()
    start = lines[0].index("KIND")
    assert all(line.isprintable() for line in lines)
    assert any(line.startswith(SHOWN) for line in lines)
    assert any(line.startswith(r"back\\slash ") for line in lines)
    kinds = ("working", "snapshot")
    assert {width(line[: min(line.index(kind) for kind in kinds if kind in line)]) for line in lines[1:]} == {start}


def test_a_name_in_an_error_is_escaped_once(command: Command, store: MemoryStore) -> None:
    with serving(store) as served:
        outcome = command("backup", HOSTILE, "file", "-s", "t\x1b", "-p", served.port)

    assert f"VDI '{SHOWN}' has no snapshot 't\\x1b'; snapshots are 1 ({SHOWN})" in outcome.err


def test_a_tree_shows_escapes(command: Command, store: MemoryStore) -> None:
    with serving(store) as served:
        outcome = command("vdi", "tree", "-p", served.port)

    assert all(line.isprintable() for line in outcome.out.decode().splitlines())
    assert f"{SHOWN} 1 {SHOWN} [" in outcome.out.decode()


@pytest.mark.parametrize("arguments", [["vdi", "list"], ["vdi", "tree"]])
def test_json_keeps_the_names_and_is_ascii(command: Command, store: MemoryStore, arguments: list[str]) -> None:
    with serving(store) as served:
        outcome = command(*arguments, "--json", "-p", served.port)

    assert outcome.out.isascii()
    assert outcome.out.decode().rstrip("\n").isprintable()
    assert HOSTILE in {vdi["name"] for vdi in json.loads(outcome.out)}


@pytest.mark.parametrize("arguments", [["verify"], ["info"], ["export", "--to", "image"], ["restore", "--to", "vdi"]])
def test_a_file_name_in_a_message_shows_escapes(command: Command, tmp_path: Path, arguments: list[str]) -> None:
    name = os.fsdecode(b"\xff\xfe" + HOSTILE.encode())
    (tmp_path / name).write_bytes(b"no backup")

    outcome = command(*arguments, tmp_path / name, *(["-p", "1"] if "restore" in arguments else []))

    assert outcome.code in (1, 2)
    told = outcome.err + outcome.out.decode()
    assert all(line.isprintable() for line in told.splitlines())
    assert "restore" in arguments or rf"\udcff\udcfe{SHOWN}" in told


def test_json_of_a_file_name_that_is_no_utf8_round_trips(command: Command, tmp_path: Path) -> None:
    name = os.fsdecode(bytes(tmp_path) + b"/\xff" + HOSTILE.encode())
    Path(name).write_bytes(b"no backup")

    outcome = command("verify", name, "--json")

    assert json.loads(outcome.out)["files"][0]["file"] == name


@pytest.mark.parametrize(
    "arguments", [[HOSTILE], ["backup", f"--{HOSTILE}"], ["backup", "vdi", "f", "-p", HOSTILE], ["convert", HOSTILE]]
)
def test_a_wrong_use_shows_escapes(command: Command, arguments: list[str]) -> None:
    outcome = command(*arguments)

    assert outcome.code == 64
    assert all(line.isprintable() for line in outcome.err.splitlines())


@pytest.mark.parametrize(
    "arguments",
    [
        [HOSTILE],
        ["backup", f"--{HOSTILE}"],
        ["merge", "f", "--to", "g", "--format", HOSTILE],
    ],
    ids=["command", "option", "choice"],
)
@pytest.mark.parametrize("end", ["\\", "'\\"])
def test_a_wrong_use_shows_escapes_once(command: Command, arguments: list[str], end: str) -> None:
    outcome = command(*arguments[:-1], arguments[-1] + end)

    shown = SHOWN + end + "\\"
    assert shown in outcome.err
    assert "\\" not in outcome.err.replace(shown, "")


@pytest.mark.parametrize("arguments", [[], ["vdi"]])
def test_a_group_alone_prints_its_help_but_is_no_success(command: Command, arguments: list[str]) -> None:
    outcome = command(*arguments)

    assert (outcome.code, outcome.err) == (64, "")
    assert outcome.out == command(*arguments, "-h").out
    assert outcome.out.startswith(b"Usage: asyncbackup")


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii:strict"},
        {"PYTHONIOENCODING": "utf-8:strict"},
        {"PYTHONIOENCODING": "latin-1:strict"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
@pytest.mark.parametrize("arguments", [["vdi", "tree"], ["vdi", "list"], ["backup", "日本", "/dev/null/é\x1b"]])
def test_any_encoding_of_the_streams_will_do(
    store: MemoryStore, environment: dict[str, str], arguments: list[str]
) -> None:
    more = ["-s", "ü", "--force"] if "backup" in arguments else []
    with serving(store) as served:
        process = start(
            *arguments,
            *more,
            "-p",
            served.port,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment},
        )
        out, err = process.communicate(timeout=30)

    assert process.returncode == (2 if more else 0), err
    assert b"Traceback" not in err
    if environment.get("PYTHONIOENCODING") != "utf-8:strict":
        assert "├".encode() not in out
        assert "tree" not in arguments or b"`- disk" in out


def test_a_line_degrades_to_what_standard_output_has_signs_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "out").open("w", encoding="ascii", errors="strict") as stream:
        monkeypatch.setattr("sys.stdout", stream)
        output.say("├─ a │ └─ … — é\x1b")
        output.say_table(["A", "B"], [["é", "b"]])

    assert (tmp_path / "out").read_text() == "|- a | `- ... - \\xe9\\x1b\nA     B\n\\xe9  b\n"


def explode(error: BaseException) -> Callable[..., object]:
    def raise_it(*_arguments: object, **_options: object) -> object:
        raise error

    return raise_it


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (KeyError("x\x1b"), r"KeyError: 'x\\x1b'"),
        (MemoryError(), "MemoryError"),
        (RecursionError("too deep"), "RecursionError: too deep"),
        (OSError(5, "Input/output error"), "OSError: [Errno 5] Input/output error"),
        (BaseExceptionGroup("all", [ExceptionGroup("some", [ZeroDivisionError("by 0")])]), "ZeroDivisionError: by 0"),
        (anyio.BrokenResourceError(), "BrokenResourceError"),
    ],
)
def test_what_nobody_expected_is_one_line_that_says_what_to_report(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: BaseException, told: str
) -> None:
    monkeypatch.setattr("asyncbackup.cli.info.info", explode(error))

    outcome = command("info", tmp_path / "a file", finds_bug=True)

    assert outcome.out == b""
    assert outcome.err.startswith(f"asyncbackup: {told}; this is a bug of asyncbackup: please report it with version ")
    assert f"`asyncbackup info '{tmp_path}/a file'`" in outcome.err
    assert outcome.err.count("\n") == 1
    assert outcome.err.endswith("`asyncbackup --debug ...` shows where it is\n")


@pytest.mark.parametrize("by_variable", [False, True])
def test_debugging_shows_where_it_was(command: Command, monkeypatch: pytest.MonkeyPatch, *, by_variable: bool) -> None:
    monkeypatch.setattr("asyncbackup.cli.info.info", explode(ZeroDivisionError("by 0")))
    if by_variable:
        monkeypatch.setenv("ASYNCBACKUP_DEBUG", "1")

    outcome = command(*([] if by_variable else ["--debug"]), "info", "file", finds_bug=True)

    assert outcome.err.startswith("Traceback (most recent call last):\n")
    assert "in raise_it\n" in outcome.err


def test_what_follows_from_too_many_open_files_is_told_as_such(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncbackup.cli.info.info", explode(OSError(24, os.strerror(24))))

    outcome = command("info", "file")

    assert (outcome.code, outcome.err) == (
        2,
        "asyncbackup: Too many open files; raise the limit of open files, for example with `ulimit -n 1024`\n",
    )


def test_there_is_nothing_to_print_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncbackup.cli.output.sys", SimpleNamespace(stdout=None, stderr=None))

    assert run(["-h"]) == 2
    assert run(["--version"]) == 2
    assert run(["info", "/nowhere"]) == 5
    assert run(["info"]) == 64
