"""Arguments and options that several verbs share, and how their values are read."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Sequence
from fractions import Fraction
from functools import wraps
from typing import Any, Final, NamedTuple, TypeVar, cast

import click
from click.core import ParameterSource

from asyncbackup.cli import text
from asyncbackup.client import ClientOptions
from asyncbackup.engine.keeping import CHECKPOINT_BYTES
from asyncbackup.engine.window import MIN_MEMORY, WindowOptions
from asyncbackup.format import Dialect
from asyncbackup.storage.location import fault_of_url, find_object, to_path
from asyncbackup.storage.opening import fault_of_name
from asyncbackup.wire.constants import (
    DEFAULT_PORT,
    MAX_BLOCK_SIZE_SHIFT,
    MAX_HYPER_OBJECTS,
    MIN_BLOCK_SIZE_SHIFT,
    NAME_SIZE,
)
from asyncbackup.wire.messages import pack_name

_MAX_PORT: Final = 65535
_MAX_SNAPSHOT_ID: Final = (1 << 32) - 1
_MAX_VDI_SIZE: Final = (MAX_HYPER_OBJECTS << MAX_BLOCK_SIZE_SHIFT) - 1
_MAX_CONNECTIONS: Final = 256
"""The most connections to one node. A larger number is a typing error, and would use up all descriptors."""
_MAX_IN_FLIGHT: Final = 65536
_MAX_MEMORY: Final = 1 << 44
"""The most bytes of memory. No machine has more, so a larger number is a typing error."""
_MIN_CHECKPOINT: Final = 1 << 20
"""The fewest bytes between two checkpoints. With fewer the disk would do little else than flush."""
_MAX_CHECKPOINT: Final = 1 << 50
_MAX_TIMEOUT_S: Final = 366 * 24 * 3600
_SHOWN: Final = 60
"""Characters of a value to show in a message."""

_Function = TypeVar("_Function", bound=Callable[..., Any])

_DEFAULTS: Final = WindowOptions()
_CLIENT_DEFAULTS: Final = ClientOptions()
_MEMORY: Final = f"{_DEFAULTS.memory >> 20}M"
_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}
_SIZE: Final = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,19})?) ?(?:([KMGTP])(?:i?B)?|B)?", re.IGNORECASE | re.ASCII)
_NODE: Final = re.compile(r"\[(?P<ipv6>[^]]+)](?::(?P<port6>[0-9]{1,5}))?|(?P<host>[^][:]+):(?P<port>[0-9]{1,5})")


class PathName(click.Path):
    """A path, or a URL. This type checks only that a file, or an object of a store, can have such a name."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if fault := fault_of_name(value) or fault_of_url(value):
            self.fail(fault, param, ctx)
        return super().convert(to_path(os.fspath(value)), param, ctx)


class LocalName(PathName):
    """A path of this machine. It is no URL of an object store."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if find_object(os.fspath(value)) is not None:
            self.fail("expected a file of this machine, got a URL of an object store", param, ctx)
        return super().convert(value, param, ctx)


LOCAL_PATH: Final = LocalName(readable=False, allow_dash=True)
"""The type of paths that cannot be URLs of object stores."""

PATH: Final = PathName(readable=False, allow_dash=True)
"""The type of every path, so that shells complete it. What is there is checked later, when it is opened."""


def snapshot_name(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | str | None:
    """Read the name of a snapshot: only digits are an id, anything else is a tag. Raises BadParameter."""
    if value is None:
        return None
    if not value:
        raise click.BadParameter("expected a tag or an id, got nothing; a snapshot without a tag has an id")
    if re.fullmatch("[0-9]+", value):
        return _snapshot_id(value)
    if fault := fault_of_vdi_name(value):
        raise click.BadParameter(f"{fault}, and a tag has the same limit")
    return value


def _snapshot_id(digits: str) -> int:
    significant = digits.lstrip("0")
    if not significant:
        raise click.BadParameter("snapshot ids start at 1")
    if len(significant) > len(str(_MAX_SNAPSHOT_ID)) or int(significant) > _MAX_SNAPSHOT_ID:
        raise click.BadParameter(f"snapshot ids end at {_MAX_SNAPSHOT_ID}")
    return int(significant)


def new_vdi_name(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """Read the name of a new VDI. Raises BadParameter."""
    if value is None:
        return None
    if not value:
        raise click.BadParameter("a VDI needs a name")
    if fault := fault_of_vdi_name(value):
        raise click.BadParameter(fault)
    return value


def new_tag(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """Read the tag of a snapshot that is to be taken."""
    if value is None:
        return None
    if not value:
        raise click.BadParameter("a snapshot needs a tag")
    if re.fullmatch("[0-9]+", value):
        raise click.BadParameter("a tag of nothing but digits would be read as an id")
    if fault := fault_of_vdi_name(value):
        raise click.BadParameter(f"{fault}, and so has a tag")
    return value


def fault_of_vdi_name(name: str) -> str | None:
    """Say why no VDI can have this name, and no snapshot this tag; None if they can."""
    try:
        pack_name(name)
    except ValueError:
        return f"a VDI's name has at most {NAME_SIZE - 1} bytes, without NUL"
    return None


def byte_count(_ctx: click.Context, _param: click.Parameter, value: str | int | None) -> int | None:
    """Read a number of bytes such as ``1.5G``, ``200M``, ``4KiB`` or ``64 MiB``: letters are powers of 1024."""
    if value is None:
        return None
    match = _SIZE.fullmatch(str(value).strip())
    if match is None:
        raise click.BadParameter(f"expected a size such as 64M or 1.5G, got '{_shorten(str(value))}'")
    count = Fraction(match[1]) * _UNITS[(match[2] or "").upper()]
    if count.denominator != 1:
        raise click.BadParameter(f"expected a whole number of bytes, got '{value}', which is {float(count):.2f}")
    return count.numerator


def _bounded_size(value: int | None, least: int, most: int) -> int | None:
    if value is not None and not least <= value <= most:
        raise click.BadParameter(f"expected {text.size(least)} to {text.size(most)}, got {text.size(value)}")
    return value


def vdi_size(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Read the size of a VDI in bytes."""
    return _bounded_size(byte_count(ctx, param, value), 1, _MAX_VDI_SIZE)


def _object_size(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    size = _bounded_size(byte_count(ctx, param, value), 1 << MIN_BLOCK_SIZE_SHIFT, 1 << MAX_BLOCK_SIZE_SHIFT)
    if size is not None and size.bit_count() != 1:
        raise click.BadParameter(f"expected a power of two, got {size}")
    return size


class WholeNumber(click.IntRange):
    """A number in ASCII digits, between bounds. Python itself also accepts digits of other scripts, and underscores."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and not re.fullmatch("[-+]?[0-9]{1,30}", value):
            self.fail(f"expected a whole number, got '{_shorten(value)}'", param, ctx)
        return super().convert(value, param, ctx)


def _shorten(value: str) -> str:
    return value if len(value) <= _SHOWN else f"{value[:_SHOWN]}..."


class _Node(NamedTuple):
    host: str
    port: int | None


class _NodesType(click.ParamType[list[_Node]]):
    """``HOST``, ``HOST:PORT``, ``[IPV6]:PORT``, ``[IPV6]`` or ``IPV6``; several with commas between them."""

    name = "HOST[:PORT],..."

    def convert(
        self, value: str | list[_Node], param: click.Parameter | None, ctx: click.Context | None
    ) -> list[_Node]:
        if isinstance(value, list):
            return value
        return [self._convert(node, param, ctx) for node in value.split(",")]

    def _convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> _Node:
        match = _NODE.fullmatch(value)
        host = (match["ipv6"] or match["host"]) if match else value
        port = (match["port6"] or match["port"]) if match else None
        # A bare IPv6 address has at least two colons. Anything else with a colon or a bracket should have matched.
        is_mistyped = match is None and (value.count(":") == 1 or not {"[", "]"}.isdisjoint(value))
        if not host or is_mistyped:
            self.fail(f"expected HOST, HOST:PORT or [IPV6]:PORT, got '{value}'", param, ctx)
        if port is not None and not 1 <= int(port) <= _MAX_PORT:
            self.fail(f"expected a port from 1 to {_MAX_PORT}, got {port}", param, ctx)
        return _Node(host, None if port is None else int(port))


def cluster_options(function: _Function) -> _Function:
    """Add -a and -p, which mean the same as for dog. ``function`` gets the addresses that they name as ``gateways``."""

    @wraps(function)
    def call(*, address: list[_Node], port: int, **others: Any) -> Any:
        return function(gateways=[(node.host, _choose_port(node, port)) for node in address], **others)

    add_address = click.option(
        "-a",
        "--address",
        type=_NodesType(),
        default="localhost",
        envvar="ASYNCBACKUP_ADDRESS",
        show_envvar=True,
        show_default=True,
        help="Find the cluster through this node. Write it as HOST, HOST:PORT or [IPV6]:PORT. Of several, with commas "
        "between them, the first that answers is used. The other nodes are found.",
    )
    add_port = click.option(
        "-p",
        "--port",
        metavar="PORT",
        type=WholeNumber(1, _MAX_PORT),
        default=DEFAULT_PORT,
        envvar="ASYNCBACKUP_PORT",
        show_envvar=True,
        show_default=True,
        help="Connect to this port of the nodes that are named without one.",
    )
    return add_address(add_port(cast(_Function, call)))


def _choose_port(node: _Node, port: int) -> int:
    """Choose between the port of -a and that of -p: typed before environment, environment before default."""
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


class _Seconds(click.FloatRange):
    """A number of seconds in ASCII."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and not re.fullmatch(
            r"[-+]?[0-9]{0,30}\.?[0-9]{0,30}(e[-+]?[0-9]{1,3})?", value, re.IGNORECASE
        ):
            self.fail(f"expected a number of seconds, got {_shorten(value)}", param, ctx)
        return super().convert(value, param, ctx)


def timeout_option(function: _Function) -> _Function:
    """Add --timeout, in seconds."""
    return click.option(
        "--timeout",
        metavar="SECONDS",
        type=_Seconds(0, _MAX_TIMEOUT_S, min_open=True),
        default=_CLIENT_DEFAULTS.request_timeout_s,
        show_default=True,
        help="Regard a node as dead if it does not answer a request within this many seconds.",
    )(function)


def connection_options(function: _Function) -> _Function:
    """Add --connections, --timeout, --give-up-after and --rate. ``function`` gets them as ``client_options``."""

    @wraps(function)
    def call(*, connections: int | None, timeout: float, give_up_after: float, rate: int | None, **others: Any) -> Any:
        options = ClientOptions(connections, request_timeout_s=timeout, give_up_after_s=give_up_after, rate=rate)
        return function(client_options=options, **others)

    add_connections = click.option(
        "--connections",
        metavar="COUNT",
        type=WholeNumber(1, _MAX_CONNECTIONS),
        help="Open this many connections to each node, and send two requests on each at the same time.  "
        "[default: as many as the cluster's answers show to be best]",
    )
    return add_connections(timeout_option(give_up_option(rate_option(cast(_Function, call)))))


def rate_option(function: _Function) -> _Function:
    """Add --rate, in bytes a second."""
    return click.option(
        "--rate",
        metavar="SIZE",
        callback=_rate,
        help="Read at most this many bytes a second from the cluster, such as 200M.  [default: no limit]",
    )(function)


def _rate(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    return _bounded_size(byte_count(ctx, param, value), 1 << 10, _MAX_MEMORY)


def give_up_option(function: _Function) -> _Function:
    """Add --give-up-after, in seconds."""
    return click.option(
        "--give-up-after",
        metavar="SECONDS",
        type=_Seconds(0, _MAX_TIMEOUT_S),
        default=_CLIENT_DEFAULTS.give_up_after_s,
        show_default=True,
        help="Fail when the cluster has not carried out a request for this many seconds. Until then it is sent again, "
        "to any node that answers.",
    )(function)


def base_options(function: _Function) -> _Function:
    """Add --base, --base-vdi, --assume-base and --base-image, which name the base of increments."""
    image = click.option(
        "--base-image",
        type=LOCAL_PATH,
        metavar="IMAGE",
        help="Use this raw image as the base of FILEs, instead of --base.",
    )
    snapshot = click.option(
        "--base",
        metavar="SNAPSHOT",
        callback=snapshot_name,
        help="Use this snapshot as the base of FILEs. Give its tag, or its id, which is all digits.",
    )
    vdi = click.option(
        "--base-vdi", metavar="VDI", help="Look for --base in this VDI.  [default: the VDI that was backed up]"
    )
    assume = click.option(
        "--assume-base", is_flag=True, help="Use the base even if nothing proves that it is the right one."
    )
    return snapshot(vdi(assume(image(function))))


def find_given(names: Collection[str]) -> str | None:
    """Find the first of some parameters of the command that was typed, and give the option that it is; None: none."""
    context = click.get_current_context()
    for option in context.command.params:
        if option.name in names and context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE:
            return max(option.opts, key=len)
    return None


def check_base(base: int | str | None, base_vdi: str | None, base_image: str | None) -> None:
    """Raise UsageError unless these name at most one base."""
    if base is not None and base_image is not None:
        raise click.UsageError("give either --base or --base-image, not both")
    if base_vdi is not None and base is None:
        raise click.UsageError("--base-vdi says which VDI --base is a snapshot of: give --base as well")


def window_options(function: _Function) -> _Function:
    """Add --in-flight and --memory. ``function`` gets both as ``options``."""

    @wraps(function)
    def call(*, in_flight: int | None, memory: int, **others: Any) -> Any:
        return function(options=WindowOptions(workers=in_flight, memory=memory), **others)

    add_in_flight = click.option(
        "--in-flight",
        metavar="COUNT",
        type=WholeNumber(1, _MAX_IN_FLIGHT),
        help="Work on this many objects at the same time.  [default: as many as the cluster's answers show to be best]",
    )
    add_memory = click.option(
        "--memory",
        metavar="SIZE",
        callback=_memory,
        default=_MEMORY,
        show_default=True,
        help="Use at most this much memory for the data of these objects.",
    )
    return add_in_flight(add_memory(cast(_Function, call)))


def _memory(ctx: click.Context, param: click.Parameter, value: str) -> int:
    memory = byte_count(ctx, param, value)
    assert memory is not None
    if memory < MIN_MEMORY:
        raise click.BadParameter(f"expected at least {text.size(MIN_MEMORY)}")
    if memory > _MAX_MEMORY:
        raise click.BadParameter(f"expected at most {text.size(_MAX_MEMORY)}")
    return memory


def resume_options(function: _Function) -> _Function:
    """Add --resume and --checkpoint. ``function`` gets the latter as ``checkpoint_bytes``."""
    add_resume = click.option(
        "--resume", is_flag=True, help="Go on with what an interrupted run left. If there is nothing, begin."
    )
    add_checkpoint = click.option(
        "--checkpoint",
        "checkpoint_bytes",
        metavar="SIZE",
        callback=_checkpoint,
        default=f"{CHECKPOINT_BYTES >> 30}G",
        show_default=True,
        help="Whenever this much more is written, make it safe, so that --resume can go on from there.",
    )
    return add_resume(add_checkpoint(function))


def _checkpoint(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    return _bounded_size(byte_count(ctx, param, value), _MIN_CHECKPOINT, _MAX_CHECKPOINT)


def incomplete_option(function: _Function) -> _Function:
    """Add --allow-incomplete."""
    return click.option(
        "--allow-incomplete",
        is_flag=True,
        help="Take FILEs even if they lack objects that could not be read. Those are then older, or zeros.",
    )(function)


def file_options(function: _Function) -> _Function:
    """Add --manifest, and --input-format and --object-size for backups without one."""
    manifests = click.option(
        "--manifest",
        "manifests",
        type=PATH,
        multiple=True,
        help="Prove FILE with this manifest. Give it once for each FILE, in the same order.  [default: FILE.manifest]",
    )
    input_format = click.option(
        "--input-format",
        "dialect",
        type=click.Choice([dialect.value for dialect in Dialect]),
        callback=_dialect,
        help="Read FILE in this format.  [default: what its manifest says, or what it looks like]",
    )
    object_size = click.option(
        "--object-size",
        metavar="SIZE",
        callback=_object_size,
        help="Take this as the size of the VDI's objects, if no manifest says it.",
    )
    return manifests(input_format(object_size(function)))


def check_manifests(manifests: Sequence[str], files: Sequence[str]) -> Sequence[str]:
    """Raise UsageError unless there is one of ``manifests`` for each of ``files``, or none."""
    if manifests and len(manifests) != len(files):
        raise click.UsageError(f"--manifest is given {len(manifests)} times for {len(files)} FILEs: give one for each")
    return manifests


def _dialect(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Dialect | None:
    return Dialect(value) if value else None


def new_file_options(function: _Function) -> _Function:
    """Add --to, --no-manifest and --force, for a verb that writes one backup out of others."""
    target = click.option(
        "--to", "target", type=PATH, metavar="FILE", required=True, help="Write this file. `-` is standard output."
    )
    no_manifest = click.option("--no-manifest", is_flag=True, help="Do not write a manifest beside the new file.")
    force = click.option("--force", is_flag=True, help="Replace the file if it exists, when the new one is complete.")
    return target(no_manifest(force(function)))


def format_option(function: _Function) -> _Function:
    """Add --format for a backup that may go to a pipe. ``function`` gets it as ``to_dialect``, or None."""
    return click.option(
        "--format",
        "to_dialect",
        type=click.Choice([dialect.value for dialect in Dialect]),
        callback=_dialect,
        help="Write this format. collie needs a plain file; dog can also go to a pipe or an object store, and be "
        "compressed or encrypted.  [default: collie; dog where collie cannot be written]",
    )(function)


def quiet_option(function: _Function) -> _Function:
    """Add --quiet."""
    return click.option("-q", "--quiet", is_flag=True, help="Print only errors, and show no progress.")(function)


def json_option(function: _Function) -> _Function:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print the report as JSON, not as text.")(function)
