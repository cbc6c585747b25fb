"""How values of options are read, and what shells complete."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Callable
from typing import Any

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from asyncbackup.cli import options
from asyncbackup.cli.main import program
from tests.cli.command import PROGRAM

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def read(add: Callable[[Any], Any], *arguments: str, env: dict[str, str] | None = None) -> Result:
    """Run a command that has the options of ``add``, and prints their values."""

    @click.command()
    @add
    def command(**values: object) -> None:
        click.echo(" ".join(str(value) for value in values.values()))

    return CliRunner().invoke(command, arguments, env=env)


def nodes(*arguments: str, env: dict[str, str] | None = None) -> list[str]:
    result = read(options.cluster_options, *arguments, env=env)
    assert result.exit_code == 0, result.output
    return [f"{host} {port}" for host, port in ast.literal_eval(result.output)]


def node(*arguments: str, env: dict[str, str] | None = None) -> str:
    (only,) = nodes(*arguments, env=env)
    return only


size_option = click.option("--size", callback=options.byte_count)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("512", 512),
        ("512B", 512),
        ("4K", 4 * KIB),
        ("4KiB", 4 * KIB),
        ("4kb", 4 * KIB),
        ("200M", 200 * MIB),
        ("64 MiB", 64 * MIB),
        ("1.5G", GIB + GIB // 2),
        ("0.5K", 512),
        ("2T", 2048 * GIB),
        ("1P", GIB * MIB),
    ],
)
def test_a_size_is_read(text: str, count: int) -> None:
    assert read(size_option, "--size", text).output == f"{count}\n"


@pytest.mark.parametrize(
    "text", ["", "M", "1.G", ".5G", "-1", "1e3", "1,5G", "4Ki", "1.5.5G", "64  MiB", "٣", "9" * 5000]
)
def test_what_is_no_size_is_told(text: str) -> None:
    result = read(size_option, "--size", text)

    assert result.exit_code == 2
    assert "expected a size such as 64M or 1.5G" in result.output


@pytest.mark.parametrize(("text", "told"), [("1.5", "1.50"), ("0.3K", "307.20")])
def test_a_part_of_a_byte_is_refused(text: str, told: str) -> None:
    result = read(size_option, "--size", text)

    assert result.exit_code == 2
    assert f"expected a whole number of bytes, got {text!r}, which is {told}" in result.output


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("10.0.0.5", "10.0.0.5 7000"),
        ("sheep1:7001", "sheep1 7001"),
        ("[::1]:7001", "::1 7001"),
        ("[::1]", "::1 7000"),
        ("::1", "::1 7000"),
        ("fe80::1%eth0", "fe80::1%eth0 7000"),
        ("[fe80::1%eth0]:7001", "fe80::1%eth0 7001"),
    ],
)
def test_an_address_may_have_its_port(address: str, found: str) -> None:
    assert node("-a", address) == found


def test_several_addresses_have_commas_between_them() -> None:
    assert nodes("-a", "n1,n2:7001,[::1]:7002") == ["n1 7000", "n2 7001", "::1 7002"]


@pytest.mark.parametrize("address", ["n1,", ",n1", "n1,,n2", ","])
def test_no_address_in_a_list_is_empty(address: str) -> None:
    assert "expected HOST, HOST:PORT or [IPV6]:PORT, got ''" in read(options.cluster_options, "-a", address).output


@pytest.mark.parametrize("address", ["", ":7001", "sheep1:", "sheep1:x", "[::1", "[::1]x", "[]:7001", "[::1]:", "::1]"])
def test_what_is_no_address_is_told(address: str) -> None:
    result = read(options.cluster_options, "-a", address)

    assert result.exit_code == 2
    assert f"expected HOST, HOST:PORT or [IPV6]:PORT, got {address!r}" in result.output


@pytest.mark.parametrize("port", ["0", "65536"])
def test_a_port_in_an_address_is_bounded(port: str) -> None:
    result = read(options.cluster_options, "-a", f"sheep1:{port}")

    assert result.exit_code == 2
    assert f"expected a port from 1 to 65535, got {port}" in result.output


def test_two_ports_that_agree_are_one() -> None:
    assert node("-a", "sheep1:7001", "-p", "7001") == "sheep1 7001"


def test_the_environment_has_defaults() -> None:
    assert node(env={"ASYNCBACKUP_ADDRESS": "sheep1", "ASYNCBACKUP_PORT": "7001"}) == "sheep1 7001"
    assert node(env={"ASYNCBACKUP_ADDRESS": "[::1]:7001"}) == "::1 7001"


@pytest.mark.parametrize(
    ("arguments", "env", "found"),
    [
        (["-a", "sheep2"], {"ASYNCBACKUP_ADDRESS": "sheep1:7001"}, "sheep2 7000"),
        (["-p", "7002"], {"ASYNCBACKUP_ADDRESS": "sheep1:7001"}, "sheep1 7002"),
        (["-a", "sheep2:7002"], {"ASYNCBACKUP_PORT": "7001"}, "sheep2 7002"),
    ],
)
def test_what_is_typed_goes_before_the_environment(arguments: list[str], env: dict[str, str], found: str) -> None:
    assert node(*arguments, env=env) == found


@pytest.mark.parametrize(
    ("arguments", "env"),
    [
        (["-a", "sheep1:7001", "-p", "7002"], {}),
        ([], {"ASYNCBACKUP_ADDRESS": "sheep1:7001", "ASYNCBACKUP_PORT": "7002"}),
    ],
)
def test_two_ports_that_contradict_are_refused(arguments: list[str], env: dict[str, str]) -> None:
    result = read(options.cluster_options, *arguments, env=env)

    assert result.exit_code == 2
    assert "the address says port 7001, and --port says 7002: give one of them" in result.output


def test_help_names_the_environment() -> None:
    shown = read(options.cluster_options, "--help").output

    assert "ASYNCBACKUP_ADDRESS" in shown
    assert "ASYNCBACKUP_PORT" in shown


def complete(line: str) -> list[str]:
    """Give what a shell is told to complete ``line`` with; ``file`` stands for the names of files."""
    *typed, begun = line.split(" ")[1:]
    found = ShellComplete(program, {}, "asyncbackup", "_ASYNCBACKUP_COMPLETE").get_completions(typed, begun)
    return ["file" if item.type == "file" else item.value for item in found]


@pytest.mark.parametrize(
    "line",
    [
        "asyncbackup backup vm vm1",
        "asyncbackup verify vm1.a vm1",
        "asyncbackup restore --to new vm1",
        "asyncbackup export vm1.a --to vm1",
        "asyncbackup merge vm1.a --to vm1",
        "asyncbackup convert vm1",
        "asyncbackup info vm1",
    ],
)
def test_files_complete_as_paths(line: str) -> None:
    assert complete(line) == ["file"]


@pytest.mark.parametrize(
    "line",
    [
        "asyncbackup backup vm",
        "asyncbackup vdi list vm",
        "asyncbackup restore vm1 --to vm",
        "asyncbackup verify f --against vm",
    ],
)
def test_vdis_do_not_complete_as_files(line: str) -> None:
    assert complete(line) == []


def test_bash_asks_and_is_answered() -> None:
    asked = {"_ASYNCBACKUP_COMPLETE": "bash_complete", "COMP_WORDS": "asyncbackup ver", "COMP_CWORD": "1"}

    done = subprocess.run(PROGRAM, env=asked, capture_output=True, text=True, check=True, timeout=60)

    assert (done.stdout, done.stderr) == ("plain,verify\n", "")


@pytest.mark.parametrize(("text", "name"), [("7", 7), ("007", 7), ("٣", "٣"), ("7a", "7a")])
def test_a_snapshot_is_named_by_an_id_of_ascii_digits_or_a_tag(text: str, name: int | str) -> None:
    snapshot = click.option("-s", callback=options.snapshot_name)

    assert read(snapshot, "-s", text).output == f"{name}\n"


def test_a_snapshot_id_of_thousands_of_digits_is_refused() -> None:
    snapshot = click.option("-s", callback=options.snapshot_name)

    result = read(snapshot, "-s", "9" * 5000)

    assert result.exit_code == 2
    assert "snapshot ids end at 4294967295" in result.output


def test_an_empty_tag_is_told_from_one_that_no_snapshot_has() -> None:
    add = click.option("-s", callback=options.snapshot_name)

    result = read(add, "-s", "")

    assert result.exit_code == 2
    assert "expected a tag or an id, got nothing" in result.output
