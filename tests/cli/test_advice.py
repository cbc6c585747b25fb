"""What the command line says to type next."""

from __future__ import annotations

import ast
import errno
import gzip
import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest

from asyncbackup.cli import advice as advice_module
from asyncbackup.cli.advice import advice, with_advice
from asyncbackup.cli.main import program
from asyncbackup.client.outcome import NOT_SERVING
from asyncbackup.errors import (
    ChangedMeanwhile,
    ClusterNotReady,
    Fact,
    FactMissing,
    SnapshotChanged,
    SourceMissing,
    TargetExists,
    Unreachable,
    VdiDiscarded,
)
from asyncbackup.format import Dialect, RecordHeader
from asyncbackup.storage.publication import manifest_path
from asyncbackup.wire.constants import Result
from tests.cli.command import PROGRAM, Command, Served
from tests.unit.test_layers import literals


def test_advice_stands_behind_what_went_wrong() -> None:
    assert with_advice(TargetExists("file")) == "file: exists already; use another name, or --force to replace it"


def test_an_error_of_which_nothing_more_is_known_stands_alone() -> None:
    error = SourceMissing("file")

    assert advice(error) is None
    assert with_advice(error) == str(error)


@pytest.mark.parametrize("fact", Fact)
def test_there_is_an_option_for_each_fact_that_a_manifest_may_lack(fact: Fact) -> None:
    assert "--" in with_advice(FactMissing(fact))


def options() -> set[str]:
    """Give the options of all verbs."""
    context = click.Context(program)
    verbs = [program.get_command(context, name) for name in program.list_commands(context)]
    return {name for verb in verbs if verb for parameter in verb.params for name in parameter.opts}


def test_every_option_that_advice_names_exists() -> None:
    known = options()
    texts = literals(ast.parse(Path(advice_module.__file__).read_text()))
    named = {flag for text in texts for flag in re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", text)}

    of_others = {"-n", "-d", "-dc"}  # ulimit and what decompresses
    assert named > of_others
    assert named - of_others <= known


def test_the_nearest_kind_of_an_error_advises() -> None:
    assert advice(ChangedMeanwhile("VDI 'vm'", "it is another")) == "try again"
    assert "restore --discard vm` removes the rest" in str(advice(VdiDiscarded("vm")))
    assert advice(SnapshotChanged("snapshot 1", "it is gone")) == "use a snapshot that nobody deletes"


@pytest.mark.parametrize("result", sorted(NOT_SERVING))
def test_there_is_advice_for_each_state_in_which_a_cluster_does_not_serve(result: Result) -> None:
    assert advice(ClusterNotReady("host:7000", result, result.meaning)) == advice_module._OF_STATE[result]


def test_a_lack_of_descriptors_is_told_from_a_server_that_is_not_there() -> None:
    error = Unreachable("host:7000", "Too many open files")
    assert str(advice(error)).startswith("check the address")

    error.__cause__ = OSError(errno.EMFILE, "Too many open files")

    assert str(advice(error)).startswith("raise the limit of open files")


# What is advised works when it is followed


@pytest.fixture
def file(command: Command, served: Served, tmp_path: Path) -> Path:
    made = tmp_path / "disk.b"
    assert command("backup", "disk", made, "-s", "b", "-p", served.port).code == 0
    return made


@pytest.mark.slow
def test_what_a_manifest_lacks_can_be_typed(command: Command, file: Path, tmp_path: Path) -> None:
    assert command("export", file, "--to", tmp_path / "proved").code == 0
    manifest_path(file).unlink()
    line: list[str | Path] = ["export", file, "--to", tmp_path / "image"]

    told = []
    for flags in ((), ("--size", "3M"), ("--object-size", "1M"), ("--size", "8M")):
        line += flags
        outcome = command(*line)
        told.append((outcome.code, outcome.err.rstrip().rpartition("; ")[2]))

    assert told == [
        (1, "say it with --size"),
        (1, "say it with --object-size"),
        (1, "say with --size how large the VDI is"),
        (0, ""),
    ]
    assert (tmp_path / "image").read_bytes() == (tmp_path / "proved").read_bytes()


def test_a_file_that_exists_can_be_replaced_or_written_under_another_name(
    command: Command, served: Served, file: Path
) -> None:
    line: list[str | Path] = ["backup", "disk", file, "-s", "a", "-p", served.port]

    assert command(*line).err == f"asyncbackup: {file}: exists already; use another name, or --force to replace it\n"
    assert command(*line, "--force").code == 0
    assert command("backup", "disk", f"{file}.other", *line[3:]).code == 0


@pytest.fixture
def unclear(tmp_path: Path) -> Path:
    """A damaged file, which begins as either format may: its one record's index is a length for the other."""
    made = tmp_path / "unclear"
    made.write_bytes(Dialect.COLLIE.patch(1) + RecordHeader(512, 0, 1024).encode() + bytes(1023))
    return made


def test_a_format_that_cannot_be_told_can_be_said(command: Command, unclear: Path) -> None:
    asked = command("info", unclear)
    answered = command("info", unclear, "--input-format", "collie")

    assert asked.err.endswith("this may be of either format; say which with --input-format\n")
    assert answered.err.endswith("the file ends here; expected 1 more bytes\n")


def test_the_report_of_verify_advises_too(command: Command, unclear: Path) -> None:
    assert b"this may be of either format; say which with --input-format\n" in command("verify", unclear).out


@pytest.mark.slow
def test_a_compressed_file_is_read_as_the_advice_says(command: Command, backups: list[Path]) -> None:
    packed = Path(f"{backups[0]} packed.gz")
    packed.write_bytes(gzip.compress(backups[0].read_bytes()))

    refused = command("info", packed)
    assert refused.code == 1
    assert "this is compressed with gzip and must be decompressed first" in refused.err
    advised = re.search("`(.* [|] asyncbackup) … -` reads it", refused.err)
    assert advised is not None
    line = f"{advised[1]} info -".replace("asyncbackup info", f"{shlex.join(PROGRAM)} info")
    ran = subprocess.run(["sh", "-c", line], capture_output=True, check=False, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert b"records   5" in ran.stdout

    assert b"compressed with gzip" in command("verify", packed).out
    with packed.open("rb") as piped:
        ran = subprocess.run([*PROGRAM, "info", "-"], stdin=piped, capture_output=True, check=False, timeout=60)
    assert b"put `gzip -dc |` before this command" in ran.stderr
