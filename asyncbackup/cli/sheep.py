"""``asyncbackup sheep``."""

from __future__ import annotations

from pathlib import Path

import anyio
import click

from asyncbackup.cli import guest
from asyncbackup.cli.main import CONTEXT, Verb
from asyncbackup.cli.options import PathName, WholeNumber
from asyncbackup.cli.output import say
from asyncbackup.cli.running import Interrupted, run_async
from asyncbackup.client import connect
from asyncbackup.errors import TargetUnusable
from asyncbackup.sheep import Fault, FolderStore, MemoryStore, Sheep
from asyncbackup.wire.constants import DEFAULT_PORT


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


@click.command("sheep", cls=Verb, context_settings=CONTEXT, examples=["asyncbackup sheep --demo -p 7000"])
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
@click.option("--demo", is_flag=True, help="Start with a volume `vm` that has snapshots of three days.")
@click.option(
    "--fault",
    "faults",
    callback=_faults,
    multiple=True,
    metavar="FAULT",
    help="Make this fault, such as `read_obj@3:error=EIO` or `any@10:reset`. You can give several.",
)
def command(*, store: Path | None, bind: str, port: int, demo: bool, faults: tuple[Fault, ...]) -> None:
    """Run the embedded server, a cluster of one node, until it is interrupted.

    It is for tests, demonstrations and benchmarks, and keeps no replicas. `dog` and QEMU can use it like any sheep.
    """

    async def serve() -> None:
        try:
            async with Sheep(
                MemoryStore() if store is None else FolderStore(store), bind, port, faults=faults
            ) as sheep:
                if demo:
                    async with connect(sheep.host, sheep.port) as cluster:
                        await guest.live(cluster, guest.DAYS, say=say)
                say(f"serving {store or 'from memory'} at {sheep.address}")
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
