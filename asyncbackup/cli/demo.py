"""``asyncbackup demo``."""

from __future__ import annotations

import filecmp
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import anyio
import click

from asyncbackup.cli import guest, text
from asyncbackup.cli.main import CONTEXT, Verb
from asyncbackup.cli.options import PathName
from asyncbackup.cli.output import say
from asyncbackup.cli.running import run_async
from asyncbackup.client import Cluster, connect_any
from asyncbackup.engine.progress import Summary
from asyncbackup.errors import TargetUnusable
from asyncbackup.format import Dialect
from asyncbackup.sheep import SheepCluster
from asyncbackup.verbs.backup import backup
from asyncbackup.wire.constants import Opcode
from asyncbackup.wire.messages import ObjectBody, RequestHeader
from asyncbackup.wire.oid import is_data

_NODES: Final = 3
_COPIES: Final = 2
_CHECKPOINT: Final = 16 << 20
"""Bytes after which the backup that is killed makes durable what it has: the volume is small."""


@click.command("demo", cls=Verb, context_settings=CONTEXT, examples=["asyncbackup demo", "asyncbackup demo /tmp/demo"])
@click.argument("folder", metavar="[DIR]", required=False, type=PathName(path_type=Path, file_okay=False))
def command(folder: Path | None) -> None:
    """Show how backups are made, and what they survive.

    It starts the embedded server with three nodes, fills a volume as a guest does, takes two snapshots, and backs them
    up into DIR. It kills one of the nodes in the middle of a backup, and a backup in the middle, which then goes on.
    Without DIR it uses a temporary folder. If `dog` is installed, `dog` makes the same backup, for comparison.
    """
    with ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="asyncbackup-demo-")))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TargetUnusable(str(folder), error.strerror or str(error)) from error
        run_async(lambda: _demonstrate(folder))


@dataclass(slots=True)
class _Trouble:
    """Does something once when so many objects were asked for: to the node that was asked for the last one."""

    action: Callable[[int], object] | None = None
    objects: int = 0
    seen: set[int] = field(default_factory=set)

    def arm(self, objects: int, action: Callable[[int], object]) -> None:
        self.action, self.objects = action, objects
        self.seen.clear()

    def on_request(self, node: int, header: RequestHeader) -> None:
        if self.action is None or header.opcode != Opcode.READ_OBJ:
            return
        oid = ObjectBody.unpack(header.body).oid
        if is_data(oid):
            self.seen.add(oid)
        if len(self.seen) >= self.objects:
            action, self.action = self.action, None
            action(node)


async def _demonstrate(folder: Path) -> None:
    trouble = _Trouble()
    sheep = SheepCluster(_NODES, copies=_COPIES, on_request=trouble.on_request)
    async with sheep, connect_any(sheep.addresses) as cluster:
        addresses = ", ".join(node.address for node in sheep.nodes)
        say(f"Three embedded nodes serve at {addresses}, and keep each object twice.")
        say(f"On them is a guest's volume `{guest.VDI}` of {text.size(guest.SIZE)}.", "")
        await guest.live(cluster, guest.DAYS[:2], say=say)
        say()
        await _show(cluster, folder / "vm.monday", "monday", None)
        summary = await _show(cluster, folder / "vm.tuesday", "tuesday", "monday")
        say(f"Only where the two snapshots own different objects was anything read: {_skipped(summary)}.", "")
        await _lose_node(cluster, sheep, trouble, folder)
        await _kill_backup(cluster, sheep, trouble, folder)
        await _compare_with_dog(cluster, sheep.nodes[0].port, folder)


async def _show(cluster: Cluster, file: Path, snapshot: str, base: str | None) -> Summary:
    say(f"$ asyncbackup backup -s {snapshot}{f' -F {base}' if base else ''} vm {file}")
    summary = await backup(cluster, "vm", file, snapshot=snapshot, base=base)
    say(f"    read     {_amount(summary)} in {summary.elapsed_s:.2f} s")
    say(f"    skipped  {text.objects(summary.objects_shared)} that both snapshots share")
    say(f"    written  {text.objects(summary.records)} that differ, trimmed to {text.size(summary.bytes_written)}", "")
    return summary


async def _lose_node(cluster: Cluster, sheep: SheepCluster, trouble: _Trouble, folder: Path) -> None:
    """Back Monday up again while a node is killed."""
    file = folder / "vm.monday-without-a-node"
    say(f"$ asyncbackup backup -s monday vm {file}")
    killed = 0

    def kill(node: int) -> None:
        nonlocal killed
        killed = node
        sheep.kill(node)

    trouble.arm(20, kill)
    summary = await backup(cluster, "vm", file, snapshot="monday")
    say(f"    killed   node {sheep.nodes[killed].address}, while the 20th object was read")
    say(f"    cost     {text.requests(summary.retries)} sent again; all of it took {summary.elapsed_s:.2f} s")
    say(f"    written  {_sameness(folder / 'vm.monday', file)} as with three nodes", "")
    await sheep.restart(killed)


async def _kill_backup(cluster: Cluster, sheep: SheepCluster, trouble: _Trouble, folder: Path) -> None:
    """Back Monday up in a process that is killed, and go on with what that left."""
    file = folder / "vm.monday-killed-and-resumed"
    address = sheep.nodes[0].address
    arguments = ["backup", "-a", address, "-s", "monday", "--checkpoint", f"{_CHECKPOINT >> 20}M", "vm", str(file)]
    say(f"$ asyncbackup {' '.join(arguments)}")
    async with await anyio.open_process(
        [sys.executable, "-m", "asyncbackup", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        trouble.arm(36, lambda _: process.kill())
        await process.wait()
    say("    killed   the backup, with SIGKILL, while the 36th object was read", "")
    say(f"$ asyncbackup backup ... vm {file} --resume")
    summary = await backup(cluster, "vm", file, snapshot="monday", resume=True, checkpoint_bytes=_CHECKPOINT)
    say(f"    resumed  after {text.size(summary.bytes_resumed)} that were durable")
    say(f"    cost     {_amount(summary)} read in {summary.elapsed_s:.2f} s")
    say(f"    written  {_sameness(folder / 'vm.monday', file)} as without the kill", "")


def _sameness(expected: Path, file: Path) -> str:
    return "the same bytes" if filecmp.cmp(expected, file, shallow=False) else "OTHER BYTES"


def _skipped(summary: Summary) -> str:
    one_by_one = summary.objects_read + 2 * summary.objects_shared
    return f"{text.objects(summary.objects_read)} instead of {one_by_one:,}"


def _amount(summary: Summary) -> str:
    return f"{text.objects(summary.objects_read)}, {text.size(summary.bytes_read)},"


async def _compare_with_dog(cluster: Cluster, port: int, folder: Path) -> None:
    dog = shutil.which("dog")
    if dog is None:
        say("`dog`, the reference client, is not on PATH: with it, this would compare the two.")
        return
    ours, theirs = folder / "vm.tuesday.dog-format", folder / "vm.tuesday.by-dog"
    summary = await backup(cluster, "vm", ours, snapshot="tuesday", base="monday", dialect=Dialect.DOG)
    command_line = [dog, "vdi", "backup", "-s", "tuesday", "-F", "monday", "-p", str(port), "vm"]
    started = time.monotonic()
    with theirs.open("xb") as target:
        result = await anyio.run_process(command_line, stdout=target, stderr=subprocess.PIPE, check=False)
    elapsed_s = time.monotonic() - started
    if result.returncode:
        say(f"`dog vdi backup` failed: {result.stderr.decode(errors='replace').strip()}")
        return
    say(
        f"`dog vdi backup` writes {_sameness(ours, theirs)}, in {elapsed_s:.2f} s instead of {summary.elapsed_s:.2f} s."
    )
