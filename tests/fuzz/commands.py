"""Types command lines that nobody would: whatever they are, they end as documented, and harm no file.

They are made of what click knows of the commands, so that a new verb or option is tried without being named here.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Self

import click
from anyio.from_thread import start_blocking_portal
from hypothesis import strategies as st

from asyncbackup.cli.main import program
from asyncbackup.sheep import Sheep
from tests.fuzz.damage import Damage, apply, damages
from tests.fuzz.forks import Call, Forks, Outcome
from tests.fuzz.world import file_names, new_store, put_files

PATIENCE_S: Final = 20.0
WAITING_S: Final = 0.5
"""After which a command that has every right to wait, for a FIFO or for clients, gets its SIGTERM."""
MEMORY: Final = 256 << 20
"""Bytes that a command may take: its default bound for objects, several times."""
CASES_PER_SERVER: Final = 25
PORT: Final = "{port}"
"""Stands for the server's port in a case."""

DOCUMENTED: Final = frozenset({0, 1, 2, 3, 4, 5, 64})
TERMINATED: Final = frozenset({0, 143})
LEFT_OUT: Final = ("demo",)
"""Takes seconds, and has one argument."""

DIGITS: Final = "{digits}"
"""Stands for thousands of them."""
_ODD: Final = ["", " ", "\x1b[2J", "\u202eabc", "\udcff", "é", "a\nb", "-", "--", "-x", "%s", "x" * 300]
_NUMBERS: Final = [
    "0",
    "1",
    "2",
    "3",
    "-1",
    "1.5",
    "0.3",
    "nan",
    "inf",
    "1e400",
    DIGITS,
    "٣",
    "0x10",
    " 4 ",
    "1_000",
    "65536",
]
_SIZES: Final = ["4K", "4KiB", "1.5G", "64M", "1M", "9999999999T", "1048576", "4194304", "4194303", "512", "100", "10%"]
_SNAPSHOTS: Final = ["a", "b", "c", "1", "2", "3", "7", "z"]
_VDIS: Final = ["disk", "hyper", "restored", "x" * 255, "x" * 256, "a/b"]
_ADDRESSES: Final = [
    "localhost",
    "::1",
    "[::1]",
    f"127.0.0.1:{PORT}",
    "127.0.0.1:",
    ":",
    ":70000",
    "",
    "127..1",
    "a" * 300,
    "\udcff",
]
"""None of which is asked of a name server."""
_TARGETS: Final = [
    "new",
    "other",
    "missing/new",
    "x" * 255,
    "x" * 250,
    "x" * 5000,
    "new\udcff",
    "new\x1b[31m",
    "new\u202e",
]
_SPECIAL: Final = [
    *("folder", "fifo", "socket", "device", "loop", "link", ".", "./full", "folder/../full", "full/", "-"),
    *(".@b", ".@disk:c", ".@", "@a", "folder@a", "full@a"),
]
_SIDECARS: Final = (".manifest", ".state", ".rolling")


@dataclass(frozen=True)
class Case:
    """A command line; what is wrong with which file; and what stands on the descriptors."""

    arguments: list[str]
    damaged: dict[str, list[Damage]]
    stdin: str = "/dev/null"
    stdout: str = "file"
    stderr: str = "file"
    encoding: str = "utf-8"


@cache
def _commands() -> dict[tuple[str, ...], click.Command]:
    """Find every command, by the words that call it."""

    def below(group: click.Group, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
        context = click.Context(group)
        for name in group.list_commands(context):
            found = group.get_command(context, name)
            assert found is not None
            if isinstance(found, click.Group):
                yield from below(found, (*words, name))
            elif name not in LEFT_OUT:
                yield (*words, name), found

    return dict(below(program, ()))


def _files() -> st.SearchStrategy[str]:
    return st.one_of(
        st.sampled_from(["full", "inc", "last", "gaps", "part1", "sole", "image-a", "image-b", "image-c"]),
        st.sampled_from(file_names()),
        st.sampled_from(_SPECIAL),
    )


def _anything() -> st.SearchStrategy[str]:
    lists = (_ODD, _NUMBERS, _SIZES, _SNAPSHOTS, _VDIS, _TARGETS)
    return st.one_of(*(st.sampled_from(each) for each in lists), _files())


def _value(parameter: click.Parameter) -> st.SearchStrategy[str]:
    """Give values for a parameter: mostly usual ones, going by its name and type; else of its kind, or anything."""
    usual, of_kind, anything = _usual(parameter), _of_kind(parameter), _anything()
    if _is_address(parameter):
        # Anything could be a name that a name server is asked for.
        anything = of_kind
    return st.integers(0, 29).flatmap(lambda chance: usual if chance > 3 else of_kind if chance else anything)


def _is_address(parameter: click.Parameter) -> bool:
    return any(word in (parameter.name or "") for word in ("address", "host", "bind"))


_USUAL: Final = {
    "port": [PORT],
    "snapshot": ["a", "b", "c", "3"],
    "vdi": ["disk", "disk", "hyper"],
    "base_vdi": ["disk"],
    "to": ["new", "image-a", "full"],
    "image": ["new", "new", "image-a", "image-b", "-"],
    "manifest": ["new.manifest", "full.manifest"],
    "manifests": ["full.manifest", "inc.manifest", "gaps.manifest"],
    "memory": ["8M"],
    "object_size": ["1M"],
    "size": ["4194304", "4193792", "8M"],
    "sample": ["10%", "100"],
    "store": ["folder", "new"],
    "faults": ["any@10:reset"],
    "shard": ["1/2", "2/2", "1/1"],
}
"""What makes sense for parameters of these names. Others are guessed by their type, or taken for files."""


def _usual(parameter: click.Parameter) -> st.SearchStrategy[str]:
    name = parameter.name or ""
    if _is_address(parameter):
        return st.just("127.0.0.1")
    if isinstance(parameter.type, click.Choice):
        return st.sampled_from([str(choice) for choice in parameter.type.choices])
    if name in _USUAL:
        return st.sampled_from(_USUAL[name])
    if isinstance(parameter.type, click.types.IntParamType | click.types.FloatParamType):
        return st.sampled_from(["1", "2", "5"])
    if "base" in name:
        return st.sampled_from(["a", "b", "image-a", "image-b"])
    return st.sampled_from(["full", "inc", "new", "new"])


def _of_kind(parameter: click.Parameter) -> st.SearchStrategy[str]:
    name = parameter.name or ""
    if _is_address(parameter):
        return st.sampled_from(_ADDRESSES)
    if isinstance(parameter.type, click.types.IntParamType | click.types.FloatParamType):
        return st.sampled_from(_NUMBERS)
    if "vdi" in name:
        return st.sampled_from(_VDIS + _ODD)
    if name == "snapshot":
        return st.sampled_from(_SNAPSHOTS + _NUMBERS + _ODD)
    if any(word in name for word in ("size", "memory", "rate", "sample")):
        return st.sampled_from(_NUMBERS + _SIZES)
    return st.one_of(_files(), st.sampled_from(_TARGETS))


def _option(parameter: click.Option) -> st.SearchStrategy[list[str]]:
    """Give ways to write an option, or to leave it out."""
    spelled = st.sampled_from([*parameter.opts, *parameter.secondary_opts])
    if parameter.is_flag or parameter.count:
        given = spelled.map(lambda name: [name])
    else:
        given = st.builds(_written, spelled, _value(parameter), st.booleans())
    # Some commands are none without these.
    of_20 = 19 if parameter.required else 10 if parameter.name in ("snapshot", "base") else 2
    left_out: st.SearchStrategy[list[str]] = st.just([])
    return st.integers(0, 19).flatmap(lambda chance: given if 0 < chance <= of_20 else left_out)


def _written(name: str, value: str, together: bool) -> list[str]:  # noqa: FBT001 - called by hypothesis
    if not together:
        return [name, value]
    return [f"{name}={value}" if name.startswith("--") else name + value]


def _argument(parameter: click.Argument) -> st.SearchStrategy[list[str]]:
    one = st.lists(_value(parameter), min_size=1, max_size=1)
    several = st.lists(_value(parameter), max_size=3)
    if parameter.name == "pieces":
        one = st.sampled_from([["part1", "part2"], ["part2", "part1"], ["sole"], ["part1"], ["part1", "sole"]])
    elif parameter.nargs < 0:
        one = st.sampled_from([["full"], ["full", "inc"], ["full", "inc", "last"], ["inc"], ["inc", "last"]])
    return st.integers(0, 29).flatmap(lambda chance: one if chance else several)


_JUNK: Final[list[list[str]]] = [*[[]] * 100, ["--no-such-option"], ["-\x1b"], ["--"], ["--help"]]


@st.composite
def _cases(draw: st.DrawFn) -> Case:
    words = draw(st.sampled_from(sorted(_commands())))
    command = _commands()[words]
    options = [word for each in command.params if isinstance(each, click.Option) for word in draw(_option(each))]
    files = [word for each in command.params if isinstance(each, click.Argument) for word in draw(_argument(each))]
    names = {parameter.name for parameter in command.params}
    if "port" in names and not any(PORT in option for option in options):
        options += ["-p", "0" if words == ("sheep",) else PORT]
    if "address" in names and draw(st.integers(0, 9)):
        options += ["-a", "127.0.0.1"]
    junk: list[str] = draw(st.sampled_from(_JUNK))
    options_first = draw(st.booleans())
    arguments = [*words, *options, *junk, *files] if options_first else [*words, *files, *junk, *options]
    if words == ("sheep",):
        # It would keep its objects there.
        arguments = [argument for argument in arguments if ".." not in argument]
    return Case(
        arguments,
        draw(_damaged(arguments)),
        draw(st.sampled_from(["/dev/null", "/dev/null", "full", "inc", "full.manifest", "image-a"])),
        draw(st.sampled_from(["file"] * 8 + ["full", "closed", "broken"])),
        draw(st.sampled_from(["file"] * 12 + ["full", "closed", "broken"])),
        draw(st.sampled_from(["utf-8", "utf-8", "ascii", "latin-1"])),
    )


def _damaged(arguments: list[str]) -> st.SearchStrategy[dict[str, list[Damage]]]:
    """Damage none of the files that a command line names, or one of them, or of what stands beside them."""
    named = tuple(name for name in file_names() if any(argument.endswith(name) for argument in arguments))
    files = sorted(name for name in file_names() if name.startswith(named))
    none: st.SearchStrategy[dict[str, list[Damage]]] = st.just({})
    return st.one_of(none, st.dictionaries(st.sampled_from(files), damages, max_size=2)) if named else none


cases: Final[st.SearchStrategy[Case]] = st.deferred(_cases)


@contextmanager
def open_check() -> Iterator[Callable[[Case], None]]:
    """Give a function that runs a case, and sees that it ends as it should."""
    with Forks() as forks, _Servers() as servers, tempfile.TemporaryDirectory() as made:

        def check(case: Case) -> None:
            folder = Path(made) / "folder"
            folder.mkdir()
            try:
                _furnish(folder, case)
                _check(case, folder, forks, servers.port())
            finally:
                shutil.rmtree(folder)

        yield check


class _Servers:
    """Embedded servers, one after another: what commands make in one should not pile up."""

    def __init__(self) -> None:
        self._used = 0
        self._stack = ExitStack()
        self._port = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def port(self) -> int:
        if self._used % CASES_PER_SERVER == 0:
            self._stack.close()
            portal = self._stack.enter_context(start_blocking_portal())
            self._port = self._stack.enter_context(portal.wrap_async_context_manager(Sheep(new_store()))).port
        self._used += 1
        return self._port


def _furnish(folder: Path, case: Case) -> None:
    put_files(folder)
    for name, changes in case.damaged.items():
        (folder / name).write_bytes(apply(changes, (folder / name).read_bytes()))
    (folder / "folder").mkdir()
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(folder / "socket"))
    with suppress(PermissionError):
        os.mknod(folder / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    (folder / "loop").symlink_to("loop")
    (folder / "link").symlink_to("full")


def _check(case: Case, folder: Path, forks: Forks, port: int) -> None:
    arguments = [argument.replace(PORT, str(port)).replace(DIGITS, "9" * 5000) for argument in case.arguments]
    may_wait = arguments[0] == "sheep" or any("fifo" in argument or "socket" in argument for argument in arguments)
    before = _contents(folder)
    outcome = forks.run(
        Call(
            arguments=arguments,
            folder=str(folder),
            patience_s=WAITING_S if may_wait else PATIENCE_S,
            stdin=str(folder / case.stdin),
            stdout=case.stdout,
            stderr=case.stderr,
            encoding=case.encoding,
        )
    )
    after = _contents(folder)
    assert not outcome.terminated or may_wait, "it took too long"
    err = check_end(outcome, case.encoding)
    if not any(argument.removeprefix("--to=") in ("-", "--to-", "link") for argument in case.arguments):
        check_output(outcome, case.encoding)
        if "--json" in case.arguments and outcome.out and case.stdout == "file" and "--help" not in case.arguments:
            json.loads(outcome.out)
    if arguments[0] != "sheep":
        _check_files(arguments, before, after, outcome, err)


def check_end(outcome: Outcome, encoding: str) -> str:
    """See that a command ended as documented, in bounds, and that a terminal could show its messages; give those."""
    err = outcome.err.decode(encoding, errors="replace")
    assert "Traceback" not in err, err
    assert not outcome.hung, f"it went on after SIGTERM: {err}"
    assert outcome.code in (TERMINATED if outcome.terminated else DOCUMENTED), f"exit code {outcome.code}: {err}"
    assert outcome.grown < MEMORY, f"{outcome.grown >> 20} MiB"
    assert _is_plain(outcome.err.decode(encoding)), outcome.err
    return err


def check_output(outcome: Outcome, encoding: str) -> None:
    """See that a terminal could show what a command printed."""
    assert _is_plain(outcome.out.decode(encoding)), outcome.out


def _is_plain(text: str) -> bool:
    return all(each == "\n" or unicodedata.category(each) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for each in text)


def _contents(folder: Path) -> dict[str, bytes | int]:
    """Read every file, and of what is none only its kind."""
    found: dict[str, bytes | int] = {}
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode
        found[str(path.relative_to(folder))] = path.read_bytes() if stat.S_ISREG(mode) else stat.S_IFMT(mode)
    return found


def _check_files(
    arguments: list[str], before: dict[str, bytes | int], after: dict[str, bytes | int], outcome: Outcome, err: str
) -> None:
    """See that what was there is unchanged, unless it was to be replaced, and that a failure leaves nothing new."""
    named = {name for name in before if any(argument.removesuffix("/").endswith(name) for argument in arguments)}
    if any("link" in argument for argument in arguments):
        named.add("full")
    allowed = named | {name + suffix for name in named for suffix in _SIDECARS}
    changed = {name for name in before if before[name] != after.get(name)}
    new = after.keys() - before.keys()
    # An image may be rolled forward in place, and be half rolled when that fails.
    rolled = {name for name in named if arguments[0] == "export" and name.startswith("image")}
    rolled |= {name + suffix for name in rolled for suffix in _SIDECARS}
    if outcome.code == 0 or "complete" in err:
        assert changed <= (allowed if "--force" in arguments else rolled), f"changed {changed - rolled}"
    else:
        assert changed <= rolled, f"failed, and changed {changed}: {err}"
        assert new <= rolled, f"failed, and left {new}: {err}"
