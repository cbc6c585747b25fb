"""The README's commands do what it says."""

from __future__ import annotations

import re
import stat
import sys
from pathlib import Path

import anyio
import pytest

from asyncbackup import backup, connect, export
from asyncbackup.cli import guest
from asyncbackup.sheep import MemoryStore, Sheep
from tests.clusters import MISSING, RealCluster

# The commands bring their own event loops: to run them on both of the test's shows nothing more.
pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])

README = Path(__file__).parents[2] / "README.md"


def cycle() -> str:
    """Cut the commands of the whole cycle out of the README."""
    found = re.search(r"## The whole cycle.*?```sh\n(.*?)```", README.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


async def run_cycle(folder: Path, port: int) -> None:
    """Run the cycle in ``folder``, against the cluster at ``port`` in place of the default."""
    command = folder / "bin" / "asyncbackup"
    command.parent.mkdir()
    command.write_text(
        f"""#!/bin/sh
case "$*" in
backup* | restore* | *--against*) exec {sys.executable} -m asyncbackup "$@" -p {port} ;;
*) exec {sys.executable} -m asyncbackup "$@" ;;
esac
"""
    )
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    script = f"set -eu; PATH={command.parent}:$PATH; {cycle()}"
    done = await anyio.run_process(["sh", "-c", script], cwd=folder, check=False)
    assert done.returncode == 0, done.stderr.decode()


async def test_the_cycle_restores_and_exports_what_was_backed_up(tmp_path: Path) -> None:
    async with Sheep(MemoryStore()) as sheep, connect(sheep.host, sheep.port) as cluster:
        await guest.live(cluster, guest.DAYS, say=lambda _: None)
        await run_cycle(tmp_path, sheep.port)
        await check_cycle(tmp_path, sheep.port)


@pytest.mark.real
@pytest.mark.skipif(bool(MISSING), reason=MISSING)
async def test_the_cycle_works_on_a_real_cluster(tmp_path: Path) -> None:
    with RealCluster(tmp_path / "cluster") as real:
        async with connect("127.0.0.1", real.port) as cluster:
            await guest.live(cluster, guest.DAYS, say=lambda _: None)
        await run_cycle(tmp_path, real.port)
        await check_cycle(tmp_path, real.port)
        wanted = real.dog("vdi", "read", "-s", "wednesday", "vm")
        assert real.dog("vdi", "read", "vm-restored") == wanted
        assert (tmp_path / "vm.img").read_bytes() == wanted


async def test_the_python_runs_when_it_is_pasted_into_a_file(tmp_path: Path) -> None:
    (found,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    async with Sheep(MemoryStore()) as sheep, connect(sheep.host, sheep.port) as cluster:
        await guest.live(cluster, guest.DAYS[:2], say=lambda _: None)
        pasted = tmp_path / "pasted.py"
        pasted.write_text(
            replace_each(
                found,
                {
                    '"10.0.0.5"': f'"{sheep.host}", {sheep.port}',
                    '"vm1"': f'"{guest.VDI}"',
                    "/backup/": f"{tmp_path}/",
                },
            )
        )
        done = await anyio.run_process([sys.executable, "-W", "error", str(pasted)], check=False)

    assert (done.returncode, done.stderr) == (0, b"")
    assert re.fullmatch(rb"13 objects differ, [0-9]+ bytes written\n", done.stdout)
    assert (tmp_path / "vm1.tuesday").exists()


def replace_each(text: str, pairs: dict[str, str]) -> str:
    """Replace what is of the example alone; each has to be there."""
    for old, new in pairs.items():
        assert old in text
        text = text.replace(old, new)
    return text


async def check_cycle(folder: Path, port: int) -> None:
    """Compare the image and the restored VDI with a full backup of the last snapshot."""
    async with connect("127.0.0.1", port) as cluster:
        await backup(cluster, "vm", folder / "wanted", snapshot="wednesday")
        await backup(cluster, "vm-restored", folder / "restored", live=True)
    await export([folder / "wanted"], folder / "wanted.img")
    assert (folder / "vm.img").read_bytes() == (folder / "wanted.img").read_bytes()
    assert (folder / "restored").read_bytes() == (folder / "wanted").read_bytes()
