"""``asyncbackup vdi list`` and ``asyncbackup vdi tree``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Final

import click
import numpy as np

from asyncbackup.cli import text
from asyncbackup.cli.main import CONTEXT, Verb, VerbGroup
from asyncbackup.cli.options import cluster_options, json_option, timeout_option
from asyncbackup.cli.output import say, say_json, say_json_text, say_table
from asyncbackup.cli.running import run_async
from asyncbackup.client import Address, ClientOptions, Cluster, connect_any
from asyncbackup.client.cluster import DamagedVdi, Vdis
from asyncbackup.client.family import Member, descend
from asyncbackup.errors import InodeCorrupt, RequestFailed
from asyncbackup.wire.inode import Inode

_DRAWN_LEVELS: Final = 16
"""Levels to draw in a line. Each snapshot is one level below the one before it, so a year has 365 levels."""


_HEADER: Final[tuple[str, ...]] = ("NAME", "ID", "TAG", "KIND", "SIZE", "OWN", "CREATED")
_LONG_HEADER: Final = ("SHARED", "VDI ID", "COPIES", "OBJECT SIZE")


@click.group("vdi", cls=VerbGroup, context_settings=CONTEXT)
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
            fields[time] = _when(fields[time]).astimezone().isoformat() if fields[time] else None
        return fields | {
            "vdi_id": f"{self.inode.vdi_id:x}",
            "parent_vdi_id": f"{self.inode.parent_vdi_id:x}" if self.inode.parent_vdi_id else None,
            "kind": self.kind,
            "object_size": self.inode.object_size,
            "own_bytes": self.own * self.inode.object_size,
            "shared_bytes": self.shared * self.inode.object_size,
        }


@command.command(
    "list",
    cls=Verb,
    context_settings=CONTEXT,
    examples=["asyncbackup vdi list -a sheep1", "asyncbackup vdi list vm1 --json"],
)
@click.argument("vdi", required=False)
@click.option("-l", "--long", "is_long", is_flag=True, help="Also show what is shared, ids, copies and object sizes.")
@cluster_options
@timeout_option
@json_option
def list_(vdi: str | None, gateways: Sequence[Address], timeout: float, *, is_long: bool, as_json: bool) -> None:
    """List the VDIs and snapshots of a cluster, or only those of VDI.

    OWN is how much was written since the snapshot before it, in whole objects.
    """

    async def work() -> tuple[list[_Vdi], list[DamagedVdi]]:
        async with connect_any(gateways, ClientOptions(request_timeout_s=timeout, give_up_after_s=timeout)) as cluster:
            vdis = await _vdis(cluster, vdi)
            measured, damaged = [], vdis.damaged
            for inode in vdis.sound:
                try:
                    measured.append(await _measure(cluster, inode))
                except (InodeCorrupt, RequestFailed) as error:
                    problem = error.problem if isinstance(error, InodeCorrupt) else str(error)
                    damaged.append(DamagedVdi(inode.vdi_id, inode.name, problem))
            return measured, damaged

    listed, damaged = run_async(work)
    if as_json:
        say_json([vdi.as_dict() for vdi in listed] + list(map(_damage_as_dict, damaged)))
        return
    header, rows = _HEADER, list(map(_row, listed))
    if is_long:
        header += _LONG_HEADER
        rows = [row + _long_row(vdi) for row, vdi in zip(rows, listed, strict=True)]
    say_table(header, rows)
    _show_damaged(damaged)


@command.command("tree", cls=Verb, context_settings=CONTEXT, examples=["asyncbackup vdi tree vm1"])
@click.argument("vdi", required=False)
@cluster_options
@timeout_option
@json_option
def tree(vdi: str | None, gateways: Sequence[Address], timeout: float, *, as_json: bool) -> None:
    """Show which snapshot descends from which, for all VDIs or only for VDI.

    With --json each snapshot contains its children. Some readers of JSON cannot read so many levels: use
    `vdi list --json` then, which names the parent of each.
    """

    async def work() -> Vdis:
        async with connect_any(gateways, ClientOptions(request_timeout_s=timeout, give_up_after_s=timeout)) as cluster:
            return await _vdis(cluster, vdi)

    vdis = run_async(work)
    if as_json:
        for piece in _nested(vdis):
            say_json_text(piece)
        say_json_text("\n")
        return
    for line in _draw(descend(vdis.sound)):
        say(line)
    _show_damaged(vdis.damaged)


async def _vdis(cluster: Cluster, name: str | None) -> Vdis:
    vdis = await cluster.list_vdis(name)
    return Vdis(sorted(vdis.sound, key=lambda inode: (inode.name, inode.snap_id)), vdis.damaged)


def _show_damaged(damaged: Sequence[DamagedVdi]) -> None:
    for vdi in damaged:
        name = f" {vdi.name}" if vdi.name else ""
        say(f"damaged: VDI {vdi.vdi_id:x}{name}: {vdi.problem}")


def _damage_as_dict(vdi: DamagedVdi) -> dict[str, object]:
    return {"name": vdi.name, "vdi_id": f"{vdi.vdi_id:x}", "kind": "damaged", "problem": vdi.problem}


async def _measure(cluster: Cluster, inode: Inode) -> _Vdi:
    own = in_use = 0
    if inode.is_hyper:
        async with aclosing(cluster.read_btree(inode)) as leaves:
            async for _, owners in leaves:
                own += int(np.count_nonzero(owners == inode.vdi_id))
                in_use += int(np.count_nonzero(owners))
    else:
        owners = await cluster.read_owners(inode.vdi_id, inode.object_count)
        own, in_use = int(np.count_nonzero(owners == inode.vdi_id)), int(np.count_nonzero(owners))
    return _Vdi(inode, own, in_use - own)


def _when(time: int) -> datetime:
    return datetime.fromtimestamp(time >> 32, UTC)


def _row(vdi: _Vdi) -> tuple[str, ...]:
    inode = vdi.inode
    return (
        inode.name,
        str(inode.snap_id),
        inode.tag or "-",
        vdi.kind,
        text.size(inode.vdi_size),
        text.size(vdi.own * inode.object_size),
        text.time(_when(inode.snap_ctime or inode.create_time)),
    )


def _long_row(vdi: _Vdi) -> tuple[str, ...]:
    inode = vdi.inode
    return (
        text.size(vdi.shared * inode.object_size),
        f"{inode.vdi_id:x}",
        str(inode.nr_copies),
        text.size(inode.object_size),
    )


def _label(inode: Inode) -> str:
    if not inode.is_snapshot:
        return f"{inode.name} (working VDI)"
    tag = f" {inode.tag}" if inode.tag else ""
    return f"{inode.name} {inode.snap_id}{tag} [{text.time(_when(inode.snap_ctime))}]"


def _draw(members: Iterable[Member]) -> Iterator[str]:
    """Draw one line for each. Deep lines begin with the number of levels that are not drawn."""
    lines: list[str] = []
    for inode, depth, is_last, is_cut in members:
        above = lines[1:depth]
        del lines[depth:]
        lines.append("   " if is_last else "│  ")
        hidden = f"({len(above) - _DRAWN_LEVELS} more) " if len(above) > _DRAWN_LEVELS else ""
        branch = ("└─ " if is_last else "├─ ") if depth else ""
        cut = " (damaged: its parents lead back to it)" if is_cut else ""
        yield hidden + "".join(above[-_DRAWN_LEVELS:]) + branch + _label(inode) + cut


def _nested(vdis: Vdis) -> Iterator[str]:
    """Write the tree as JSON in pieces: json's encoder calls itself for each level and fails at about a thousand."""
    yield "["
    previous = -1
    for inode, depth, _, is_cut in descend(vdis.sound):
        closed = previous - depth + 1
        yield "]}" * closed + (", " if closed and previous >= 0 else "")
        fields = {
            "name": inode.name,
            "snap_id": inode.snap_id,
            "tag": inode.tag,
            "vdi_id": f"{inode.vdi_id:x}",
            "snapshot": inode.is_snapshot,
        } | ({"problem": "its parents lead back to it"} if is_cut else {})
        yield f'{json.dumps(fields).removesuffix("}")}, "children": ['
        previous = depth
    yield "]}" * (previous + 1)
    separator = ", " if vdis.sound else ""
    for vdi in vdis.damaged:
        yield separator + json.dumps(_damage_as_dict(vdi) | {"children": []})
        separator = ", "
    yield "]"
