"""``asyncbackup vdi list`` and ``asyncbackup vdi tree``."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import click
import numpy as np

from asyncbackup.cli import text
from asyncbackup.cli.main import CONTEXT
from asyncbackup.cli.options import cluster_options, json_option
from asyncbackup.cli.running import run_async
from asyncbackup.client import Cluster, connect
from asyncbackup.errors import VdiNotFound
from asyncbackup.wire.inode import Inode


@click.group("vdi", context_settings=CONTEXT)
def command() -> None:
    """Show the VDIs of a cluster and their snapshots."""


@dataclass(frozen=True, slots=True)
class _Vdi:
    """An inode, and how many of its data objects are its own or shared with an ancestor."""

    inode: Inode
    own: int
    shared: int

    @property
    def kind(self) -> str:
        if self.inode.is_snapshot:
            return "snapshot"
        return "clone" if self.inode.snap_id == 1 and self.inode.parent_vdi_id else "working"

    def as_dict(self) -> dict[str, object]:
        fields = asdict(self.inode)
        for time in ("create_time", "snap_ctime"):
            fields[time] = _when(fields[time]).isoformat() if fields[time] else None
        return fields | {
            "vdi_id": f"{self.inode.vdi_id:x}",
            "parent_vdi_id": f"{self.inode.parent_vdi_id:x}" if self.inode.parent_vdi_id else None,
            "kind": self.kind,
            "object_size": self.inode.object_size,
            "own_bytes": self.own * self.inode.object_size,
            "shared_bytes": self.shared * self.inode.object_size,
        }


@command.command("list", context_settings=CONTEXT)
@click.argument("vdi", required=False)
@cluster_options
@json_option
def list_(vdi: str | None, address: str, port: int, *, as_json: bool) -> None:
    """List VDIs and snapshots, or those of VDI alone."""

    async def work() -> list[_Vdi]:
        async with connect(address, port) as cluster:
            return [await _measure(cluster, inode) for inode in await _inodes(cluster, vdi)]

    vdis = run_async(work)
    if as_json:
        click.echo(json.dumps([listed.as_dict() for listed in vdis]))
        return
    header = ("NAME", "ID", "TAG", "KIND", "SIZE", "OWN", "SHARED", "CREATED", "VDI ID", "COPIES", "OBJECT SIZE")
    rows = [_row(listed) for listed in vdis]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@command.command("tree", context_settings=CONTEXT)
@click.argument("vdi", required=False)
@cluster_options
@json_option
def tree(vdi: str | None, address: str, port: int, *, as_json: bool) -> None:
    """Show which snapshot descends from which."""

    async def work() -> list[Inode]:
        async with connect(address, port) as cluster:
            return await _inodes(cluster, vdi)

    inodes = run_async(work)
    children: defaultdict[int, list[Inode]] = defaultdict(list)
    known = {inode.vdi_id for inode in inodes}
    for inode in inodes:
        children[inode.parent_vdi_id if inode.parent_vdi_id in known else 0].append(inode)
    if as_json:
        click.echo(json.dumps(_nested(children, 0)))
        return
    for root in children[0]:
        click.echo(_label(root))
        _draw(children, root.vdi_id, "")


async def _inodes(cluster: Cluster, name: str | None) -> list[Inode]:
    inodes = await cluster.list_vdis()
    wanted = [inode for inode in inodes if name in (None, inode.name)]
    if name is not None and not wanted:
        raise VdiNotFound(name, sorted({inode.name for inode in inodes}))
    return sorted(wanted, key=lambda inode: (inode.name, inode.snap_id))


async def _measure(cluster: Cluster, inode: Inode) -> _Vdi:
    if inode.is_hyper:
        _, owners = await cluster.read_btree(inode.vdi_id)
    else:
        owners = await cluster.read_owners(inode.vdi_id, inode.object_count)
    own = int(np.count_nonzero(owners == inode.vdi_id))
    return _Vdi(inode, own, int(np.count_nonzero(owners)) - own)


def _when(time: int) -> datetime:
    return datetime.fromtimestamp(time >> 32, UTC).astimezone()


def _row(vdi: _Vdi) -> Sequence[str]:
    inode = vdi.inode
    return (
        inode.name,
        str(inode.snap_id),
        inode.tag or "-",
        vdi.kind,
        text.size(inode.vdi_size),
        text.size(vdi.own * inode.object_size),
        text.size(vdi.shared * inode.object_size),
        f"{_when(inode.create_time):%Y-%m-%d %H:%M}",
        f"{inode.vdi_id:x}",
        str(inode.nr_copies),
        text.size(inode.object_size),
    )


def _label(inode: Inode) -> str:
    if not inode.is_snapshot:
        return f"{inode.name} (working VDI)"
    tag = f" {inode.tag}" if inode.tag else ""
    return f"{inode.name} {inode.snap_id}{tag} [{_when(inode.snap_ctime):%Y-%m-%d %H:%M}]"


def _draw(children: dict[int, list[Inode]], parent: int, indent: str) -> None:
    below = children.get(parent, [])
    for inode in below:
        last = inode is below[-1]
        click.echo(f"{indent}{'└─' if last else '├─'} {_label(inode)}")
        _draw(children, inode.vdi_id, indent + ("   " if last else "│  "))


def _nested(children: dict[int, list[Inode]], parent: int) -> list[dict[str, object]]:
    return [
        {
            "name": inode.name,
            "snap_id": inode.snap_id,
            "tag": inode.tag,
            "vdi_id": f"{inode.vdi_id:x}",
            "snapshot": inode.is_snapshot,
            "children": _nested(children, inode.vdi_id),
        }
        for inode in children.get(parent, [])
    ]
