"""Bases of real clusters are known by identity, however alike their names, ids and content are."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from asyncbackup import Volume, connect
from asyncbackup.storage.image import marker_path
from tests.cli.command import Command, Outcome
from tests.clusters import MISSING, RealCluster

pytestmark = [pytest.mark.real, pytest.mark.skipif(bool(MISSING), reason=MISSING)]

MIB = 1 << 20
SIZE = 24 * MIB


Run = Callable[..., Outcome]


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Run our command line against the first node of a cluster, in this process: there are many runs."""
    command = Command(capfdbinary)

    def run_there(real: RealCluster, verb: str, *arguments: object) -> Outcome:
        return command(verb, *arguments, "-p", real.port)

    return run_there


def live(real: RealCluster, name: str) -> None:
    """Make VDI ``name`` with snapshots monday and tuesday, of the same content each time."""

    async def work() -> None:
        guest = random.Random(7)
        async with connect("127.0.0.1", real.port) as cluster:
            await cluster.create_vdi(name, SIZE)
            for tag in ("monday", "tuesday"):
                volume = await Volume.open(cluster, name)
                for length in (512, 70_144, 5 * MIB):
                    await volume.write(guest.randrange((SIZE - length) // 512) * 512, guest.randbytes(length))
                await cluster.create_snapshot(name, tag)

    asyncio.run(work())


def back_up(run: Run, real: RealCluster, name: str, folder: Path) -> tuple[Path, Path]:
    """Make a full backup of monday, and the increment to tuesday."""
    folder.mkdir()
    full, increment = folder / "full", folder / "increment"
    for options in (("-s", "monday", name, full), ("-s", "tuesday", "-F", "monday", name, increment)):
        done = run(real, "backup", *options)
        assert done.code == 0, done.err
    return full, increment


def delete(real: RealCluster, name: str) -> None:
    for tag in (("-s", "tuesday"), ("-s", "monday"), ()):
        real.dog("vdi", "delete", *tag, name)


def check_refused(run: Run, real: RealCluster, name: str, folder: Path) -> None:
    """Lay the old increment over what is new, in all ways that there are."""
    full, increment, new = folder / "old" / "full", folder / "old" / "increment", folder / "new" / "full"
    standby = folder / "standby"
    assert run(real, "export", new, "--to", standby).code == 0
    state = standby.with_name("standby.state").read_bytes()
    content, before = standby.read_bytes(), sorted(folder.iterdir())
    base = ("--base", "monday")

    for arguments in (
        ("restore", increment, "--to", f"{name}-new", *base),
        ("restore", increment, "--to", f"{name}-new", *base, "--assume-base"),
        ("export", increment, "--to", folder / "image", *base, "--assume-base"),
        ("merge", increment, "--to", folder / "merged", *base, "--assume-base"),
        ("export", increment, "--to", standby, "--base-image", standby, "--assume-base"),
        ("export", increment, "--to", folder / "image", "--base-image", standby, "--assume-base"),
        ("merge", increment, "--to", folder / "merged", "--base-image", standby, "--assume-base"),
        ("verify", full, "--against", name, "-s", "monday"),
    ):
        done = run(real, *arguments)
        assert done.code == 1, (arguments, done)
        assert done.err.count("'monday' of VDI") == 2, done.err

    assert standby.read_bytes() == content
    assert standby.with_name("standby.state").read_bytes() == state
    assert not marker_path(standby).exists()
    assert sorted(folder.iterdir()) == before
    assert f"{name}-new".encode() not in real.dog("vdi", "list", "-r")


def test_a_vdi_that_was_made_again_is_another(run: Run, real: RealCluster, tmp_path: Path) -> None:
    live(real, "again")
    back_up(run, real, "again", tmp_path / "old")
    delete(real, "again")
    live(real, "again")
    new = back_up(run, real, "again", tmp_path / "new")

    check_refused(run, real, "again", tmp_path)

    assert run(real, "restore", new[1], "--to", "again-new", "--base", "monday").code == 0
    assert real.dog("vdi", "read", "again-new") == real.dog("vdi", "read", "-s", "tuesday", "again")


def test_a_snapshot_that_was_deleted_and_taken_again_is_another(run: Run, real: RealCluster, tmp_path: Path) -> None:
    live(real, "retaken")
    _, increment = back_up(run, real, "retaken", tmp_path / "old")
    real.dog("vdi", "delete", "-s", "monday", "retaken")
    real.dog("vdi", "snapshot", "-s", "monday", "retaken")

    done = run(real, "restore", increment, "--to", "retaken-new", "--base", "monday", "--assume-base")

    assert done.code == 1
    assert done.err.count("'monday' of VDI 'retaken'") == 2
    assert b"retaken-new" not in real.dog("vdi", "list", "-r")


def test_another_cluster_with_all_the_same_names_is_another(run: Run, real: RealCluster, tmp_path: Path) -> None:
    live(real, "twin")
    back_up(run, real, "twin", tmp_path / "old")
    with RealCluster(tmp_path / "cluster") as other:
        live(other, "twin")
        back_up(run, other, "twin", tmp_path / "new")

        check_refused(run, other, "twin", tmp_path)


def test_an_image_that_dog_reads_is_taken_if_somebody_vouches_for_it(
    run: Run, real: RealCluster, tmp_path: Path
) -> None:
    live(real, "read")
    _, increment = back_up(run, real, "read", tmp_path / "made")
    standby = tmp_path / "standby"
    standby.write_bytes(real.dog("vdi", "read", "-s", "monday", "read"))
    rolling = ("export", increment, "--to", standby, "--base-image", standby)

    refused = run(real, *rolling)
    taken = run(real, *rolling, "--assume-base")

    assert refused.code == 1
    assert "--assume-base" in refused.err
    assert taken.code == 0, taken.err
    assert b"assumed, and not proved" in taken.out
    assert standby.read_bytes() == real.dog("vdi", "read", "-s", "tuesday", "read")


def test_a_snapshot_of_a_real_cluster_is_the_base_of_an_image(run: Run, real: RealCluster, tmp_path: Path) -> None:
    live(real, "laid")
    _, increment = back_up(run, real, "laid", tmp_path / "made")

    done = run(real, "export", increment, "--to", tmp_path / "image", "--base", "monday")
    piped = run(real, "export", increment, "--to", "-", "--base", "monday")

    assert done.code == 0, done.err
    assert (tmp_path / "image").read_bytes() == real.dog("vdi", "read", "-s", "tuesday", "laid")
    assert piped.out == (tmp_path / "image").read_bytes()
