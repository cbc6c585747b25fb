"""Options that several verbs share, and how their values are read."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from asyncbackup.wire.constants import DEFAULT_PORT

_Function = TypeVar("_Function", bound=Callable[..., Any])

_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def snapshot_name(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | str | None:
    """Read a snapshot's name: all digits are an id, anything else is a tag."""
    if value is None or not value.isdecimal():
        return value
    if int(value) == 0:
        raise click.BadParameter("snapshot ids start at 1")
    return int(value)


def byte_count(_ctx: click.Context, _param: click.Parameter, value: str | int) -> int:
    """Read a number of bytes, perhaps with K, M, G or T for powers of 1024."""
    match = re.fullmatch(r"(\d+)([KMGT]?)(i?B)?", str(value).strip(), re.IGNORECASE)
    if match is None:
        raise click.BadParameter(f"expected a size such as 64M or 1G, got {value!r}")
    return int(match[1]) * _UNITS[match[2].upper()]


def cluster_options(function: _Function) -> _Function:
    """Add -a and -p, which mean what they mean to dog."""
    address = click.option("-a", "--address", default="localhost", show_default=True, help="A node of the cluster.")
    port = click.option(
        "-p", "--port", type=click.IntRange(1, 65535), default=DEFAULT_PORT, show_default=True, help="Its port."
    )
    return address(port(function))


def json_option(function: _Function) -> _Function:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")(function)
