from __future__ import annotations

import json
from collections.abc import Iterator

import anyio
import pytest

from asyncbackup import ClientOptions, connect
from asyncbackup.sheep import MemoryStore
from tests.cli.command import Command, Served, disk_store, serving
from tests.disks import OBJECT, OBJECTS


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(disk_store()) as running:

        async def add() -> None:
            async with connect("127.0.0.1", running.sheep.port, ClientOptions(connections=1)) as cluster:
                await cluster.create_vdi("empty", 3 * OBJECT, block_size_shift=20)
                await cluster.create_vdi("hyper", OBJECT, store_policy=1)

        anyio.run(add)
        yield running


@pytest.fixture
def command(capfdbinary: pytest.CaptureFixture[bytes]) -> Command:
    return Command(capfdbinary)


def test_the_list_has_a_line_for_each_vdi_and_snapshot(command: Command, served: Served) -> None:
    outcome = command("vdi", "list", "-p", served.port)

    header, *lines = [line.split() for line in outcome.out.decode().splitlines()]
    assert outcome.code == 0
    assert header[:4] == ["NAME", "ID", "TAG", "KIND"]
    assert [line[:4] for line in lines] == [
        ["disk", "1", "a", "snapshot"],
        ["disk", "2", "b", "snapshot"],
        ["disk", "3", "-", "working"],
        ["empty", "1", "-", "working"],
        ["hyper", "1", "-", "working"],
    ]


def test_the_list_can_be_of_one_vdi(command: Command, served: Served) -> None:
    outcome = command("vdi", "list", "empty", "-p", served.port)

    assert len(outcome.out.splitlines()) == 2


def test_the_list_can_be_json(command: Command, served: Served) -> None:
    outcome = command("vdi", "list", "disk", "--json", "-p", served.port)

    first, second, working = json.loads(outcome.out)
    assert (first["name"], first["tag"], first["snap_id"], first["kind"]) == ("disk", "a", 1, "snapshot")
    assert (first["vdi_size"], first["object_size"], first["own_bytes"]) == (OBJECTS * OBJECT, OBJECT, 5 * OBJECT)
    assert (second["own_bytes"], second["shared_bytes"]) == (6 * OBJECT, OBJECT)
    assert first["parent_vdi_id"] is None
    assert second["parent_vdi_id"] == first["vdi_id"]
    assert (working["snap_ctime"], working["kind"]) == (None, "working")


def test_the_tree_shows_which_descends_from_which(command: Command, served: Served) -> None:
    outcome = command("vdi", "tree", "disk", "-p", served.port)

    lines = outcome.out.decode().splitlines()
    assert [line.split(" [")[0] for line in lines] == ["disk 1 a", "└─ disk 2 b", "   └─ disk (working VDI)"]


def test_the_tree_can_be_json(command: Command, served: Served) -> None:
    outcome = command("vdi", "tree", "--json", "-p", served.port)

    disk, empty, _hyper = json.loads(outcome.out)
    assert (disk["tag"], disk["children"][0]["tag"]) == ("a", "b")
    assert disk["children"][0]["children"][0]["snapshot"] is False
    assert empty["children"] == []


@pytest.mark.parametrize("verb", ["list", "tree"])
def test_an_unknown_vdi_is_told_with_those_there_are(command: Command, served: Served, verb: str) -> None:
    outcome = command("vdi", verb, "disc", "-p", served.port)

    assert (outcome.code, outcome.out) == (5, b"")
    assert outcome.err == "asyncbackup: no VDI named 'disc'; VDIs are disk, empty, hyper\n"


def test_a_cluster_without_vdis_has_an_empty_list(command: Command) -> None:
    with serving(MemoryStore()) as served:
        assert json.loads(command("vdi", "list", "--json", "-p", served.port).out) == []
        assert len(command("vdi", "list", "-p", served.port).out.splitlines()) == 1
        assert command("vdi", "tree", "-p", served.port).out == b""


def test_a_short_bitmap_is_no_list(command: Command) -> None:
    with serving(MemoryStore(), "read_vdis@1:short=100") as served:
        outcome = command("vdi", "list", "-p", served.port)

    assert outcome.code == 2
    assert outcome.err.endswith("expected 2097152 bytes of bitmap, got 100 bytes\n")
