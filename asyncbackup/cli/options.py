"""Arguments and options that several verbs share, and how their values are read."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import wraps
from typing import Any, Final, NamedTuple, TypeVar, cast

import click
from click.core import ParameterSource

from asyncbackup.cli import text
from asyncbackup.client import ClientOptions
from asyncbackup.engine.options import MIN_MEMORY, BackupOptions
from asyncbackup.format import Dialect
from asyncbackup.wire.constants import DEFAULT_PORT

_MAX_PORT: Final = 65535

_MAX_DIGITS: Final = 40
"""Of a snapshot's id: more than it ever has, fewer than Python takes long to read."""

_Function = TypeVar("_Function", bound=Callable[..., Any])

_DEFAULTS: Final = BackupOptions()
_CLIENT_DEFAULTS: Final = ClientOptions()
_MEMORY: Final = f"{_DEFAULTS.memory >> 20}M"
_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}
_SIZE: Final = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,19})?) ?(?:([KMGTP])(?:i?B)?|B)?", re.IGNORECASE | re.ASCII)
_NODE: Final = re.compile(r"\[(?P<ipv6>[^]]+)](?::(?P<port6>[0-9]{1,5}))?|(?P<host>[^][:]+):(?P<port>[0-9]{1,5})")

PATH: Final = click.Path(readable=False, allow_dash=True)
"""The type of what is a path, so that shells complete it. What is there is judged later, and by who opens it."""


def snapshot_name(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | str | None:
    """Read a snapshot's name: all ASCII digits are an id, anything else is a tag."""
    if value is None or re.fullmatch("[0-9]+", value) is None:
        return value
    if len(value) > _MAX_DIGITS:
        raise click.BadParameter(f"expected a snapshot's id or tag, got a number of {len(value)} digits")
    if int(value) == 0:
        raise click.BadParameter("snapshot ids start at 1")
    return int(value)


def byte_count(_ctx: click.Context, _param: click.Parameter, value: str | int | None) -> int | None:
    """Read a number of bytes such as ``1.5G``, ``200M``, ``4KiB`` or ``64 MiB``: letters are powers of 1024."""
    if value is None:
        return None
    match = _SIZE.fullmatch(str(value).strip())
    if match is None:
        raise click.BadParameter(f"expected a size such as 64M or 1.5G, got {value!r}")
    count = Fraction(match[1]) * _UNITS[(match[2] or "").upper()]
    if count.denominator != 1:
        raise click.BadParameter(f"expected a whole number of bytes, got {value!r}, which is {float(count):.2f}")
    return count.numerator


class _Node(NamedTuple):
    host: str
    port: int | None


class _NodeType(click.ParamType[_Node]):
    """``HOST``, ``HOST:PORT``, ``[IPV6]:PORT``, ``[IPV6]`` or ``IPV6``."""

    name = "HOST[:PORT]"

    def convert(self, value: str | _Node, param: click.Parameter | None, ctx: click.Context | None) -> _Node:
        if isinstance(value, _Node):
            return value
        match = _NODE.fullmatch(value)
        host = (match["ipv6"] or match["host"]) if match else value
        port = (match["port6"] or match["port"]) if match else None
        # A bare IPv6 address has two colons at least; what has one, or a bracket, and is no match, is mistyped.
        is_mistyped = match is None and (value.count(":") == 1 or not {"[", "]"}.isdisjoint(value))
        if not host or is_mistyped:
            self.fail(f"expected HOST, HOST:PORT or [IPV6]:PORT, got {value!r}", param, ctx)
        if port is not None and not 1 <= int(port) <= _MAX_PORT:
            self.fail(f"expected a port from 1 to {_MAX_PORT}, got {port}", param, ctx)
        return _Node(host, None if port is None else int(port))


def cluster_options(function: _Function) -> _Function:
    """Add -a and -p, which mean what they mean to dog. ``function`` gets ``address`` and ``port``, each one thing."""

    @wraps(function)
    def call(*, address: _Node, port: int, **others: Any) -> Any:
        return function(address=address.host, port=_choose_port(address, port), **others)

    add_address = click.option(
        "-a",
        "--address",
        type=_NodeType(),
        default="localhost",
        envvar="ASYNCBACKUP_ADDRESS",
        show_envvar=True,
        show_default=True,
        help="Talk to this node of the cluster: HOST, HOST:PORT or [IPV6]:PORT.",
    )
    add_port = click.option(
        "-p",
        "--port",
        metavar="PORT",
        type=click.IntRange(1, _MAX_PORT),
        default=DEFAULT_PORT,
        envvar="ASYNCBACKUP_PORT",
        show_envvar=True,
        show_default=True,
        help="The port of that node.",
    )
    return add_address(add_port(cast(_Function, call)))


def _choose_port(node: _Node, port: int) -> int:
    """Choose between the port of -a and that of -p: what was typed goes before the environment and the default."""
    context = click.get_current_context()
    rank = [ParameterSource.DEFAULT, ParameterSource.ENVIRONMENT, ParameterSource.COMMANDLINE].index
    with_address, alone = (
        rank(context.get_parameter_source(name) or ParameterSource.DEFAULT) for name in ("address", "port")
    )
    if node.port is None or alone > with_address:
        return port
    if alone == with_address and port != node.port:
        raise click.UsageError(f"the address says port {node.port}, and --port says {port}: give one of them")
    return node.port


def connection_options(function: _Function) -> _Function:
    """Add --connections and --timeout."""
    connections = click.option(
        "--connections",
        metavar="COUNT",
        type=click.IntRange(1),
        default=_CLIENT_DEFAULTS.connections,
        show_default=True,
        help="Make this many connections to the node.",
    )
    timeout = click.option(
        "--timeout",
        metavar="SECONDS",
        type=click.FloatRange(0, min_open=True),
        callback=_seconds,
        default=_CLIENT_DEFAULTS.request_timeout_s,
        show_default=True,
        help="Give up if the node does not answer a request within this many seconds.",
    )
    return connections(timeout(function))


def _seconds(_ctx: click.Context, _param: click.Parameter, value: float) -> float:
    if not math.isfinite(value):
        raise click.BadParameter(f"expected a number of seconds, got {value}")
    return value


def base_options(function: _Function) -> _Function:
    """Add --base, --base-vdi, --base-image and --assume-base: the one way to name what increments go on."""
    snapshot = click.option(
        "--base",
        metavar="SNAPSHOT",
        callback=snapshot_name,
        help="Put increments on this snapshot: its tag, or its id, which is all digits.",
    )
    vdi = click.option(
        "--base-vdi", metavar="VDI", help="Take --base from this VDI.  [default: the one that was backed up]"
    )
    image = click.option(
        "--base-image",
        type=PATH,
        metavar="IMAGE",
        help="Put increments on this image of a snapshot, instead of --base.",
    )
    assume = click.option(
        "--assume-base", is_flag=True, help="Take the base even if nothing proves that it is the right one."
    )
    return snapshot(vdi(image(assume(function))))


def check_base(base: int | str | None, base_vdi: str | None, base_image: str | None) -> None:
    """Raise UsageError unless these name at most one base."""
    if base is not None and base_image is not None:
        raise click.UsageError("give either --base or --base-image, not both")
    if base_vdi is not None and base is None:
        raise click.UsageError("--base-vdi says which VDI --base is a snapshot of: give --base as well")


def window_options(function: _Function) -> _Function:
    """Add --in-flight and --memory."""
    in_flight = click.option(
        "--in-flight",
        metavar="COUNT",
        type=click.IntRange(1),
        default=_DEFAULTS.in_flight,
        show_default=True,
        help="Work on at most this many objects at a time.",
    )
    memory = click.option(
        "--memory",
        metavar="SIZE",
        callback=_memory,
        default=_MEMORY,
        show_default=True,
        help="Use at most this much memory for the objects that are worked on.",
    )
    return in_flight(memory(function))


def _memory(ctx: click.Context, param: click.Parameter, value: str) -> int:
    memory = byte_count(ctx, param, value)
    assert memory is not None
    if memory < MIN_MEMORY:
        raise click.BadParameter(f"expected at least {text.size(MIN_MEMORY)}")
    return memory


def file_options(function: _Function) -> _Function:
    """Add --manifest, and --input-format and --object-size for backups without one."""
    manifests = click.option(
        "--manifest",
        "manifests",
        type=PATH,
        multiple=True,
        help="The manifest of FILE; if given, then once for each FILE, in their order.  [default: FILE.manifest]",
    )
    input_format = click.option(
        "--input-format",
        "dialect",
        type=click.Choice([dialect.value for dialect in Dialect]),
        callback=_dialect,
        help="Read FILE as this format.  [default: as its manifest says, or as it looks]",
    )
    object_size = click.option(
        "--object-size",
        metavar="SIZE",
        callback=byte_count,
        help="Take the VDI's objects to be this large, where no manifest says it.",
    )
    return manifests(input_format(object_size(function)))


def check_manifests(manifests: Sequence[str], files: Sequence[str]) -> Sequence[str]:
    """Raise UsageError unless there is one of ``manifests`` for each of ``files``, or none."""
    if manifests and len(manifests) != len(files):
        raise click.UsageError(f"--manifest is given {len(manifests)} times for {len(files)} FILEs: give one for each")
    return manifests


def _dialect(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Dialect | None:
    return Dialect(value) if value else None


def quiet_option(function: _Function) -> _Function:
    """Add --quiet."""
    return click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors, and show no progress.")(function)


def json_option(function: _Function) -> _Function:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print the report as JSON instead of text.")(function)
