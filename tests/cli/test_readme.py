"""The README's commands do what it says."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import anyio
import click
import pytest

from asyncbackup import backup, compare, connect, export
from asyncbackup.cli import guest
from asyncbackup.cli.exits import ExitCode
from asyncbackup.cli.main import program
from asyncbackup.client import Cluster, Volume
from asyncbackup.sheep import MemoryStore, Sheep
from tests.clusters import MISSING, RealCluster, free_ports
from tests.disks import make_disk
from tests.folders import left_in
from tests.object_stores import S3Server

# The commands bring their own event loops: to run them on both of the test's shows nothing more.
one_loop = pytest.mark.asyncio(loop_factories=["asyncio"])

README: Final = (Path(__file__).parents[2] / "README.md").read_text()

SERIES: Final = (
    "### Take a snapshot, and back it up",
    "### Verify, and restore",
    "## More on verifying",
    "## Images",
    "## Merge and convert",
    "## Bases",
)
"""Sections whose commands are run one after the other, in one folder."""

ASYNCBACKUP: Final = f'exec {shlex.quote(sys.executable)} -m asyncbackup "$@"'

TAKE_SNAPSHOT: Final = """
import sys
from anyio import run
from asyncbackup import connect

async def main(arguments):
    vdi, snapshot, flag, tag, name = arguments
    assert (vdi, snapshot, flag) == ("vdi", "snapshot", "-s")
    async with connect("localhost", {port}) as cluster:
        await cluster.create_snapshot(name, tag)

run(main, sys.argv[1:])
"""
"""What ``dog vdi snapshot`` does, for where there is none."""


def commands(heading: str, kind: str = "sh") -> str:
    """Cut the commands out of the section under ``heading``."""
    (section,) = re.findall(
        rf"^{re.escape(heading)}\n(.*?)(?=^#+ |\Z)", without_code_headings(), re.DOTALL | re.MULTILINE
    )
    found = re.findall(rf"```{kind}\n(.*?)```", section, re.DOTALL)
    assert found, heading
    return "".join(found).replace("\0", "#")


def without_code_headings() -> str:
    """Give the README with the comments in its code marked: they begin like headings."""
    return re.sub(r"```.*?```", lambda code: code[0].replace("#", "\0"), README, flags=re.DOTALL)


class Shell:
    """Runs commands in a folder, as a user does whose default node is at ``port`` of this machine."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self._port = folder, port
        self._bin = folder.parent / "bin"
        self._bin.mkdir()
        self.folder.mkdir()
        self.add("asyncbackup", ASYNCBACKUP)
        dog = shutil.which("dog")
        if dog is not None:
            self.add("dog", f'group=$1 verb=$2; shift 2\nexec {dog} "$group" "$verb" -p {port} "$@"')
        else:
            (self._bin / "take_snapshot.py").write_text(TAKE_SNAPSHOT.format(port=port))
            self.add("dog", f'exec {shlex.quote(sys.executable)} {self._bin / "take_snapshot.py"} "$@"')

    def add(self, name: str, script: str) -> None:
        """Let there be a program ``name``."""
        (self._bin / name).write_text(f"#!/bin/sh\n{script}\n")
        (self._bin / name).chmod(0o755)

    async def run(self, script: str, *, shell: str = "sh", **variables: str) -> tuple[int, str]:
        """Give the exit code of ``script``, and all that it printed."""
        environment = os.environ | {
            "PATH": f"{self._bin}:{os.environ['PATH']}",
            "ASYNCBACKUP_PORT": str(self._port),
        }
        done = await anyio.run_process(
            [shell, "-c", script], cwd=self.folder, check=False, env=environment | variables, stderr=-2
        )
        return done.returncode, done.stdout.decode()

    async def run_all(self, heading: str, **variables: str) -> None:
        """Run the commands of a section; none fails."""
        code, said = await self.run(f"set -eu\n{commands(heading)}", **variables)
        assert code == 0, said


@asynccontextmanager
async def embedded(_folder: Path) -> AsyncIterator[int]:
    """Serve a cluster from memory; give its port."""
    async with Sheep(MemoryStore()) as sheep:
        yield sheep.port


@asynccontextmanager
async def real(folder: Path) -> AsyncIterator[int]:
    """Serve a cluster of Sheepdog; give its port."""
    with RealCluster(folder / "cluster") as cluster:
        yield cluster.port


Serve = Callable[[Path], AbstractAsyncContextManager[int]]

needs_sheep = [pytest.mark.real, pytest.mark.skipif(bool(MISSING), reason=MISSING)]
needs_dog = pytest.mark.skipif(shutil.which("dog") is None, reason="no dog on PATH")
everywhere = pytest.mark.parametrize("serve", [embedded, pytest.param(real, marks=needs_sheep)])
everywhere_with_dog = pytest.mark.parametrize(
    "serve", [pytest.param(embedded, marks=needs_dog), pytest.param(real, marks=needs_sheep)]
)


@pytest.mark.slow
@one_loop
@everywhere
async def test_the_series_restores_and_exports_what_was_backed_up(tmp_path: Path, serve: Serve) -> None:
    async with serve(tmp_path) as port, connect("127.0.0.1", port) as cluster:
        await guest.live(cluster, guest.DAYS, say=lambda _: None)
        shell = Shell(tmp_path / "user", port)
        for heading in SERIES:
            await shell.run_all(heading)

        wanted = await image_of(cluster, "vm", tmp_path, snapshot="today")
        assert (shell.folder / "vm.img").read_bytes() == wanted
        assert await image_of(cluster, "vm-restored", tmp_path, live=True) == wanted
        tuesday = await image_of(cluster, "vm", tmp_path, snapshot="tuesday")
        assert await image_of(cluster, "vm-tuesday", tmp_path, live=True) == tuesday
        assert (shell.folder / "vm.midweek.rbd").read_bytes().startswith(b"rbd diff v1\n")


@pytest.mark.slow
@one_loop
@everywhere
async def test_pieces_that_machines_make_join_to_what_one_makes(tmp_path: Path, serve: Serve) -> None:
    async with serve(tmp_path) as port, connect("127.0.0.1", port) as cluster:
        await guest.live(cluster, guest.DAYS, say=lambda _: None)
        await cluster.create_snapshot("vm", "today")
        shell = Shell(tmp_path / "user", port)
        shell.add("ssh", 'shift; exec "$@"')
        await backup(cluster, "vm", tmp_path / "whole", snapshot="today")
        script = commands("## More than one machine").replace("/backup/", "")

        code, said = await shell.run(f"set -eu\n{script}")

        assert code == 0, said
        assert said.count("share 1/2 is proved") == said.count("share 2/2 is proved") == 1
        assert left_in(shell.folder) == ["vm.today", "vm.today.manifest"]
        for suffix in ("", ".manifest"):
            assert (shell.folder / f"vm.today{suffix}").read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()


@pytest.mark.slow
@one_loop
@everywhere
async def test_shards_that_machines_restore_make_one_vdi(tmp_path: Path, serve: Serve) -> None:
    async with serve(tmp_path) as port, connect("127.0.0.1", port) as cluster:
        await guest.live(cluster, guest.DAYS, say=lambda _: None)
        await cluster.create_snapshot("vm", "today")
        shell = Shell(tmp_path / "user", port)
        shell.add("ssh", 'shift; exec "$@"')
        await backup(cluster, "vm", shell.folder / "vm.today", snapshot="today")
        script = commands("### Restore with several machines").replace("/backup/", "")

        code, said = await shell.run(f"set -eu\n{script}")

        assert code == 0, said
        assert "joined 3 shards" in said
        wanted = await image_of(cluster, "vm", tmp_path, snapshot="today")
        for what in ({"snapshot": "today"}, {"live": True}):
            assert await image_of(cluster, "vm-restored", tmp_path, **what) == wanted


@pytest.mark.slow
@one_loop
@everywhere
async def test_what_dask_hands_out_becomes_what_one_makes(tmp_path: Path, serve: Serve) -> None:
    async with serve(tmp_path) as port, connect("127.0.0.1", port) as cluster:
        await guest.live(cluster, guest.DAYS, say=lambda _: None)
        await cluster.create_snapshot("vm", "today")
        shell = Shell(tmp_path / "user", port)
        shell.add("dask", f'exec {shlex.quote(sys.executable)} -m dask "$@"')
        await backup(cluster, "vm", tmp_path / "whole", snapshot="today")
        script = commands("### Handed out over Dask").replace("8786", str(free_ports(1)[0]))

        with anyio.fail_after(60):
            code, said = await shell.run(f"set -eu\ntrap 'kill $(jobs -p)' EXIT\n{script}", shell="bash")

        assert code == 0, said
        assert "ok: vm today" in said
        assert "good, all data is as its manifest says" in said
        for suffix in ("", ".manifest"):
            assert (shell.folder / f"vm.today{suffix}").read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()
        assert (await compare(cluster, [tmp_path / "whole"], "vm-restored", snapshot="today")).is_good


@pytest.mark.slow
@one_loop
async def test_what_dask_hands_out_goes_to_an_object_store(tmp_path: Path, s3: S3Server) -> None:
    s3.backend.create_bucket("offsite", "us-east-1")
    async with embedded(tmp_path) as port, connect("127.0.0.1", port) as cluster:
        await make_disk(cluster, "vm")
        await cluster.create_snapshot("vm", "today")
        shell = Shell(tmp_path / "user", port)
        shell.add("dask", f'exec {shlex.quote(sys.executable)} -m dask "$@"')
        starting, _, _ = commands("### Handed out over Dask").partition("asyncbackup")
        script = (starting + commands("### Dask and an object store")).replace("8786", str(free_ports(1)[0]))

        with anyio.fail_after(60):
            script = f"set -eu\ntrap 'kill $(jobs -p)' EXIT\n{script}"
            code, said = await shell.run(script, shell="bash", **s3.environment)

        assert code == 0, said
        assert s3.objects("offsite") == ["vm/today", "vm/today.manifest"]
        assert "s3://offsite/vm/today: good, all data is as its manifest says" in said
        wanted = await image_of(cluster, "vm", tmp_path, snapshot="today")
        assert await image_of(cluster, "vm-restored", tmp_path, snapshot="today") == wanted


@pytest.mark.slow
@one_loop
@everywhere
async def test_a_second_cluster_follows_and_catches_up(tmp_path: Path, serve: Serve) -> None:
    heading = "## Keep a second cluster one night behind"
    async with (
        serve(tmp_path / "first") as port,
        serve(tmp_path / "second") as standby,
        connect("127.0.0.1", port) as cluster,
        connect("127.0.0.1", standby) as replica,
    ):
        await guest.live(cluster, guest.DAYS, say=lambda _: None)
        await (await Volume.open(cluster, "vm")).write(8 << 20, b"thursday".ljust(1 << 20))
        await cluster.create_snapshot("vm", "thursday")
        shell = Shell(tmp_path / "user", port)
        tags = ["monday", "tuesday", "wednesday", "thursday"]
        for base, tag in pairwise([None, *tags]):
            await backup(cluster, "vm", shell.folder / f"vm.{tag}", snapshot=tag, base=base)
        begin, follow, catch_up = commands(heading).replace("-a standby", f"-a 127.0.0.1:{standby}").splitlines()

        for command in (begin, follow):
            assert (await shell.run(command))[0] == 0
        code, said = await shell.run(catch_up.replace("vm.wednesday ", ""))
        assert (code, "a backup between the two was not applied" in said) == (1, True)
        assert (await shell.run(catch_up))[0] == 0
        code, said = await shell.run(catch_up)
        assert (code, "nothing was written" in said) == (0, True)

        for tag in ("monday", "tuesday", "thursday"):
            wanted = await image_of(cluster, "vm", tmp_path, snapshot=tag)
            assert await image_of(replica, "vm", tmp_path, snapshot=tag) == wanted


@pytest.mark.slow
@one_loop
@pytest.mark.skipif(shutil.which("zstd") is None, reason="no zstd on PATH")
async def test_the_pipes_restore_what_was_compressed(tmp_path: Path) -> None:
    async with embedded(tmp_path) as port, connect("127.0.0.1", port) as cluster:
        await guest.live(cluster, guest.DAYS, say=lambda _: None)
        await Shell(tmp_path / "user", port).run_all("## Pipes")

        wanted = await image_of(cluster, "vm", tmp_path, snapshot="wednesday")
        assert await image_of(cluster, "vm-piped", tmp_path, live=True) == wanted


@pytest.mark.slow
@one_loop
async def test_what_is_in_an_object_store_is_restored(tmp_path: Path, s3: S3Server) -> None:
    s3.backend.create_bucket("backups", "us-east-1")
    async with embedded(tmp_path) as port, connect("127.0.0.1", port) as cluster:
        await guest.live(cluster, guest.DAYS, say=lambda _: None)
        await Shell(tmp_path / "user", port).run_all("### In an object store", **s3.environment)

        wanted = await image_of(cluster, "vm", tmp_path, snapshot="wednesday")
        assert await image_of(cluster, "vm-offsite", tmp_path, live=True) == wanted


@pytest.mark.slow
@one_loop
@pytest.mark.skipif(not (shutil.which("zstd") and shutil.which("age")), reason="no zstd on PATH, or no age")
async def test_what_is_compressed_and_encrypted_is_restored(tmp_path: Path) -> None:
    async with embedded(tmp_path) as port, connect("127.0.0.1", port) as cluster:
        await guest.live(cluster, guest.DAYS, say=lambda _: None)
        shell = Shell(tmp_path / "user", port)
        await shell.run_all("### Smaller")
        await shell.run_all("### Encrypted")

        wanted = await image_of(cluster, "vm", tmp_path, snapshot="wednesday")
        assert await image_of(cluster, "vm-small", tmp_path, live=True) == wanted
        assert await image_of(cluster, "vm-secret", tmp_path, live=True) == wanted
        assert (shell.folder / "vm.plain").read_bytes() == (shell.folder / "vm.opened").read_bytes()


@pytest.mark.slow
@one_loop
@everywhere_with_dog
async def test_the_nightly_script_makes_chains_and_keeps_one_snapshot(tmp_path: Path, serve: Serve) -> None:
    async with serve(tmp_path) as port, connect("127.0.0.1", port) as cluster:
        await cluster.create_vdi("vm", 64 << 20)
        night = Nightly(Shell(tmp_path / "user", port))
        for day in ("20261126-023000", "20261127-023000"):
            await (await Volume.open(cluster, "vm")).write(8 << 20, day.encode().ljust(1 << 20))
            assert await night.run(day) == 0
            assert "good, all data is as its manifest says: 1 record" in night.report
        assert night.chains() == {"20261126-023000": ["20261126-023000", "20261127-023000"]}
        assert await night.snapshots() == ["20261127-023000"]

        # On Sunday a new chain begins, as it does where the last snapshot is gone.
        assert await night.run("20261129-023000", weekday=7) == 0
        await night.shell.run("dog vdi delete -s 20261129-023000 vm")
        assert await night.run("20261130-023000") == 0
        assert list(night.chains()) == ["20261126-023000", "20261129-023000", "20261130-023000"]
        assert await night.snapshots() == ["20261130-023000"]

        code, said = await night.shell.run("asyncbackup restore backup/20261126-023000/* --to vm-restored")
        assert code == 0, said
        restored = await image_of(cluster, "vm-restored", tmp_path, live=True)
        assert restored == await image_of(cluster, "vm", tmp_path, live=True)


@pytest.mark.slow
@one_loop
@needs_dog
async def test_the_nightly_script_reports_failures_and_goes_on_where_it_was(tmp_path: Path) -> None:
    async with embedded(tmp_path) as port, connect("127.0.0.1", port) as cluster:
        await cluster.create_vdi("vm", 64 << 20)
        night = Nightly(Shell(tmp_path / "user", port))
        assert await night.run("20261126-023000") == 0

        night.shell.add("asyncbackup", 'echo "vm: no space left" >&2; exit 4')
        assert await night.run("20261127-023000") == ExitCode.FULL
        assert night.subject == "backup of vm: FAILED, exit code 4"
        assert "no space left" in night.report

        night.shell.add("asyncbackup", ASYNCBACKUP)
        assert await night.snapshots() == ["20261126-023000"]
        assert await night.run("20261128-023000") == 0
        assert night.subject == "backup of vm: done"
        assert night.chains() == {"20261126-023000": ["20261126-023000", "20261128-023000"]}
        assert await night.run("20261129-023000", vdi="other") == ExitCode.SYSTEM_FAILURE
        assert night.subject == "backup of other: FAILED, no snapshot was taken"


class Nightly:
    """The README's script of every night, with a clock and a mail of the test's."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        self._mail = shell.folder / "mail"
        shell.add("date", 'case $1 in +%u) echo "$WEEKDAY" ;; *) echo "$NOW" ;; esac')
        shell.add("mail", f'{{ echo "$2"; cat; }} >{self._mail}')
        shell.add("nightly", commands("## Every night"))

    async def run(self, now: str, *, weekday: int = 1, vdi: str = "vm") -> int:
        code, _ = await self.shell.run(f"nightly {vdi} backup", NOW=now, WEEKDAY=str(weekday))
        return code

    @property
    def subject(self) -> str:
        return self._mail.read_text().splitlines()[0]

    @property
    def report(self) -> str:
        return self._mail.read_text()

    def chains(self) -> dict[str, list[str]]:
        return {
            chain.name: sorted(file.name for file in chain.iterdir() if file.suffix != ".manifest")
            for chain in sorted((self.shell.folder / "backup").iterdir())
        }

    async def snapshots(self) -> list[str]:
        _, listed = await self.shell.run("asyncbackup vdi list vm")
        return re.findall(r"[0-9]{8}-[0-9]{6}", listed)


@pytest.mark.slow
@one_loop
@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash on PATH")
async def test_the_shell_completes_commands_and_options(tmp_path: Path) -> None:
    async def complete(*words: str) -> str:
        typed = f"COMP_WORDS=({shlex.join(words)}) COMP_CWORD={len(words) - 1}"
        script = f'{switch_on}\n{typed}\n_asyncbackup_completion asyncbackup\necho "${{COMPREPLY[@]}}"'
        return (await shell.run(script, shell="bash"))[1].strip()

    switch_on = commands("## Completion in the shell")
    shell = Shell(tmp_path / "user", 1)

    assert await complete("asyncbackup", "ver") == "verify"
    assert await complete("asyncbackup", "verify", "--req") == "--require-manifest"


def test_every_option_that_is_named_exists() -> None:
    others = {"--detach-sign", "--host", "--no-dashboard", "--nthreads"}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", README)) - others

    assert "--force" in named
    assert named <= options(program)


def options(command: click.Command) -> set[str]:
    """Give the options of a command and of those in it."""
    found = {name for parameter in command.params for name in parameter.opts}
    if isinstance(command, click.Group):
        context = click.Context(command)
        inner = [command.get_command(context, name) for name in command.list_commands(context)]
        found |= {name for each in inner if each is not None for name in options(each)}
    return found


def test_every_exit_code_is_told() -> None:
    table = README[README.index("| exit code |") :].split("\n\n")[0]
    told = {int(code) for row in table.splitlines()[2:] for code in re.findall("[0-9]+", row.split("|")[1])}

    assert told == {*ExitCode, 129, 130, 131, 143}


@pytest.mark.slow
@one_loop
async def test_the_python_runs_when_it_is_pasted_into_a_file(tmp_path: Path) -> None:
    async with Sheep(MemoryStore()) as sheep, connect(sheep.host, sheep.port) as cluster:
        await guest.live(cluster, guest.DAYS[:2], say=lambda _: None)
        pasted = tmp_path / "pasted.py"
        pasted.write_text(
            replace_each(
                commands("## From Python", "python"),
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


async def image_of(cluster: Cluster, vdi: str, folder: Path, **what: Any) -> bytes:
    """Give all bytes of a VDI, by a full backup of it."""
    image = folder / "image"
    await backup(cluster, vdi, folder / "whole", replace=True, **what)
    await export([folder / "whole"], image, replace=True)
    return image.read_bytes()
