"""``asyncbackup demo``."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import anyio
import click

from asyncbackup.cli import guest, text
from asyncbackup.cli.main import CONTEXT, Verb
from asyncbackup.cli.options import PathName
from asyncbackup.cli.output import say
from asyncbackup.cli.running import run_async
from asyncbackup.client import Cluster, connect
from asyncbackup.engine.progress import Summary
from asyncbackup.errors import TargetUnusable
from asyncbackup.format import Dialect
from asyncbackup.sheep import MemoryStore, Sheep
from asyncbackup.verbs.backup import backup


@click.command("demo", cls=Verb, context_settings=CONTEXT, examples=["asyncbackup demo", "asyncbackup demo /tmp/demo"])
@click.argument("folder", metavar="[DIR]", required=False, type=PathName(path_type=Path, file_okay=False))
def command(folder: Path | None) -> None:
    """Show how an incremental backup is made.

    It starts the embedded server, fills a volume as a guest does, takes two snapshots, and backs them up into DIR.
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


async def _demonstrate(folder: Path) -> None:
    async with Sheep(MemoryStore()) as sheep, connect(sheep.host, sheep.port) as cluster:
        size = text.size(guest.SIZE)
        say(f"An embedded sheep serves at {sheep.address}; on it a guest's volume `{guest.VDI}` of {size}.", "")
        await guest.live(cluster, guest.DAYS[:2], say=say)
        say()
        await _show(cluster, folder / "vm.monday", "monday", None)
        summary = await _show(cluster, folder / "vm.tuesday", "tuesday", "monday")
        say(f"Only where the two snapshots own different objects was anything read: {_skipped(summary)}.")
        await _compare_with_dog(cluster, sheep.port, folder)


async def _show(cluster: Cluster, file: Path, snapshot: str, base: str | None) -> Summary:
    say(f"$ asyncbackup backup -s {snapshot}{f' -F {base}' if base else ''} vm {file}")
    summary = await backup(cluster, "vm", file, snapshot=snapshot, base=base)
    say(f"    read     {_amount(summary.objects_read, summary.bytes_read)} in {summary.elapsed_s:.2f} s")
    say(f"    skipped  {text.objects(summary.objects_shared)} that both snapshots share")
    say(f"    written  {text.objects(summary.records)} that differ, trimmed to {text.size(summary.bytes_written)}", "")
    return summary


def _skipped(summary: Summary) -> str:
    one_by_one = summary.objects_read + 2 * summary.objects_shared
    return f"{text.objects(summary.objects_read)} instead of {one_by_one:,}"


def _amount(count: int, size: int) -> str:
    return f"{text.objects(count)}, {text.size(size)},"


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
    same = "the same bytes" if ours.read_bytes() == theirs.read_bytes() else "OTHER BYTES"
    say(f"`dog vdi backup` writes {same}, in {elapsed_s:.2f} s instead of {summary.elapsed_s:.2f} s.")
