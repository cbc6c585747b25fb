"""Options that several verbs share, and how their values are read."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from asyncbackup.cli import text
from asyncbackup.client import ClientOptions
from asyncbackup.engine.options import MIN_MEMORY, BackupOptions
from asyncbackup.format import Dialect
from asyncbackup.wire.constants import DEFAULT_PORT

_Function = TypeVar("_Function", bound=Callable[..., Any])

_DEFAULTS: Final = BackupOptions()
_CLIENT_DEFAULTS: Final = ClientOptions()
_MEMORY: Final = f"{_DEFAULTS.memory >> 20}M"
_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def snapshot_name(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | str | None:
    """Read a snapshot's name: all digits are an id, anything else is a tag."""
    if value is None or not value.isdecimal():
        return value
    if int(value) == 0:
        raise click.BadParameter("snapshot ids start at 1")
    return int(value)


def byte_count(_ctx: click.Context, _param: click.Parameter, value: str | int | None) -> int | None:
    """Read a number of bytes, perhaps with K, M, G or T for powers of 1024."""
    if value is None:
        return None
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


def connection_options(function: _Function) -> _Function:
    """Add --connections and --timeout."""
    connections = click.option(
        "--connections",
        type=click.IntRange(1),
        default=_CLIENT_DEFAULTS.connections,
        show_default=True,
        help="To the node.",
    )
    timeout = click.option(
        "--timeout",
        type=click.FloatRange(0, min_open=True),
        callback=_seconds,
        default=_CLIENT_DEFAULTS.request_timeout_s,
        show_default=True,
        help="Seconds for the node to answer what is asked at a time.",
    )
    return connections(timeout(function))


def _seconds(_ctx: click.Context, _param: click.Parameter, value: float) -> float:
    if not math.isfinite(value):
        raise click.BadParameter(f"expected a number of seconds, got {value}")
    return value


def window_options(function: _Function) -> _Function:
    """Add --in-flight and --memory."""
    in_flight = click.option(
        "--in-flight", type=click.IntRange(1), default=_DEFAULTS.in_flight, show_default=True, help="Objects."
    )
    memory = click.option(
        "--memory", callback=_memory, default=_MEMORY, show_default=True, help="For objects in flight."
    )
    return in_flight(memory(function))


def _memory(ctx: click.Context, param: click.Parameter, value: str) -> int:
    memory = byte_count(ctx, param, value)
    assert memory is not None
    if memory < MIN_MEMORY:
        raise click.BadParameter(f"expected at least {text.size(MIN_MEMORY)}")
    return memory


def file_options(function: _Function) -> _Function:
    """Add --dialect and --object-size, for backups without a manifest."""
    dialect = click.option(
        "--dialect",
        type=click.Choice([dialect.value for dialect in Dialect]),
        callback=_dialect,
        help="The dialect of the files.  [default: as they look]",
    )
    object_size = click.option(
        "--object-size", callback=byte_count, help="Where no manifest says how large the objects are."
    )
    return dialect(object_size(function))


def _dialect(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Dialect | None:
    return Dialect(value) if value else None


def quiet_option(function: _Function) -> _Function:
    """Add --quiet."""
    return click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")(function)


def json_option(function: _Function) -> _Function:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")(function)
