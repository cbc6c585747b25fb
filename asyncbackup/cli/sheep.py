"""``asyncbackup sheep``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import anyio
import click

from asyncbackup.cli import guest
from asyncbackup.cli.main import CONTEXT, Verb
from asyncbackup.cli.options import PathName, WholeNumber
from asyncbackup.cli.output import say
from asyncbackup.cli.running import Interrupted, run_async
from asyncbackup.client import connect_any
from asyncbackup.errors import TargetUnusable
from asyncbackup.sheep import Fault, FolderStore, MemoryStore, SheepCluster
from asyncbackup.wire.constants import DEFAULT_PORT

_ALL_ADDRESSES: Final = frozenset({"0.0.0.0", "::", "*"})  # noqa: S104 - not bound, but refused


def _folder(_ctx: click.Context, _param: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and not value.name:
        raise click.BadParameter("expected the name of a folder")
    return value


def _address(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    # An empty name means all addresses to the event loop, and nobody wants that by mistake.
    if not value:
        raise click.BadParameter("expected an address; 0.0.0.0 stands for all")
    return value


def _faults(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> tuple[Fault, ...]:
    try:
        return tuple(Fault.parse(value) for value in values)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command(
    "sheep",
    cls=Verb,
    context_settings=CONTEXT,
    examples=["asyncbackup sheep --demo", "asyncbackup sheep --nodes 3 --copies 2"],
)
@click.option(
    "--store",
    type=PathName(path_type=Path),
    callback=_folder,
    help="Keep the objects in this folder.  [default: in memory]",
)
@click.option(
    "--bind",
    callback=_address,
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Listen at this address.",
)
@click.option(
    "-p",
    "--port",
    type=WholeNumber(0, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    metavar="PORT",
    help="Listen at this port. 0 takes any free port.",
)
@click.option(
    "--nodes", type=WholeNumber(1, 64), default=1, show_default=True, metavar="N", help="Be a cluster of so many nodes."
)
@click.option(
    "--copies",
    type=WholeNumber(1, 31),
    metavar="N",
    help="Keep each object on so many nodes.  [default: 2, or 1 where there is one node]",
)
@click.option("--demo", is_flag=True, help="Start with a volume `vm` that has snapshots of three days.")
@click.option(
    "--fault",
    "faults",
    callback=_faults,
    multiple=True,
    metavar="FAULT",
    help="Make this fault, such as `read_obj@3:error=EIO` or `any@10:reset`. You can give several.",
)
def command(
    *,
    store: Path | None,
    bind: str,
    port: int,
    nodes: int,
    copies: int | None,
    demo: bool,
    faults: tuple[Fault, ...],
) -> None:
    """Run the embedded server, a cluster of one node or more, until it is interrupted.

    It is for tests, demonstrations and benchmarks. All nodes run in this process, each at its own port: the first one
    at PORT, the next one at the port after it. `dog` and QEMU can use them like any sheep.
    """
    if nodes > 1:
        _check_several(store, bind)
    if copies is not None and copies > nodes:
        raise click.BadParameter(f"{copies} copies need as many nodes, and there are {nodes}", param_hint="'--copies'")
    if port + nodes > 65536:
        raise click.BadParameter(f"there are no {nodes} ports from {port} on", param_hint="'--port'")

    async def serve() -> None:
        try:
            stores = [FolderStore(store)] if store else [MemoryStore() for _ in range(nodes)]
            async with SheepCluster(stores, bind, port, copies=copies or min(2, nodes), faults=faults) as sheep:
                if demo:
                    async with connect_any(sheep.addresses) as cluster:
                        await guest.live(cluster, guest.DAYS, say=say)
                say(f"serving {store or 'from memory'} at {', '.join(node.address for node in sheep.nodes)}")
                await anyio.sleep_forever()
        except OSError as error:
            where = f"{bind}:{port}" if error.filename is None else str(error.filename)
            raise TargetUnusable(where, error.strerror or str(error)) from error
        except UnicodeError as error:  # The resolver raises this for a name that no host can have.
            raise TargetUnusable(bind, "no host has such a name") from error

    try:
        run_async(serve)
    except Interrupted:
        say("stopped")


def _check_several(store: Path | None, bind: str) -> None:
    if store is not None:
        raise click.UsageError("--nodes keeps objects in memory: leave --store out, or run one node")
    if bind in _ALL_ADDRESSES:
        raise click.UsageError(f"nodes name each other to clients: give one address with --bind, not {bind}")
