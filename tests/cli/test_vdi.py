from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

import anyio
import pytest

from asyncbackup import ClientOptions, connect
from asyncbackup.sheep import MemoryStore
from asyncbackup.wire.constants import Opcode
from asyncbackup.wire.inode import Inode
from tests.cli.command import Command, Served, disk_store, playing, serving
from tests.disks import OBJECT, OBJECTS
from tests.faults.claims import ALL_IDS, Claims, bitmap_of


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(disk_store()) as running:

        async def add() -> None:
            async with connect("127.0.0.1", running.sheep.port, ClientOptions(connections=1)) as cluster:
                await cluster.create_vdi("empty", 3 * OBJECT, block_size_shift=20)
                await cluster.create_vdi("hyper", OBJECT, store_policy=1)

        anyio.run(add)
        yield running


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


def test_the_list_fits_a_terminal(command: Command, served: Served) -> None:
    assert max(map(len, command("vdi", "list", "-p", served.port).out.decode().splitlines())) <= 80


def test_the_long_list_adds_columns(command: Command, served: Served) -> None:
    short = command("vdi", "list", "-p", served.port).out.decode().splitlines()
    long = command("vdi", "list", "--long", "-p", served.port).out.decode().splitlines()

    assert long[0].split()[-6:] == ["SHARED", "VDI", "ID", "COPIES", "OBJECT", "SIZE"]
    assert all(more.startswith(less) for less, more in zip(short, long, strict=True))
    assert long[2].split()[-3:] == ["1", "1.0", "MiB"]


def test_a_snapshot_is_listed_with_the_time_of_it_here(
    command: Command, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "CET-1")
    time.tzset()
    try:
        listed = command("vdi", "list", "disk", "-p", served.port).out.decode().splitlines()
        drawn = command("vdi", "tree", "disk", "-p", served.port).out.decode().splitlines()
        first, *_ = json.loads(command("vdi", "list", "disk", "--json", "-p", served.port).out)
    finally:
        monkeypatch.undo()
        time.tzset()

    here = f"{datetime.fromisoformat(first['snap_ctime']):%Y-%m-%d %H:%M} CET"
    assert first["snap_ctime"].endswith("+01:00")
    assert listed[1].endswith(here)
    assert drawn[0].endswith(f"[{here}]")


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
    assert outcome.err == "asyncbackup: no VDI named 'disc'; VDIs are hyper, empty, disk\n"


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


SOUND = [Inode("vm", 7, OBJECT, block_size_shift=20), Inode("vm2", 8, OBJECT, block_size_shift=20)]
ABSURD = b"bad".ljust(512, b"\0") + b"\xff" * 56


def one_absurd(vdi_id: int) -> bytes:
    return {inode.vdi_id: inode.pack() for inode in SOUND}.get(vdi_id, ABSURD)


def test_a_damaged_inode_is_listed_as_such_and_the_others_as_ever(command: Command) -> None:
    with playing(Claims(bitmap_of([7, 8, 9]), one_absurd)) as port:
        listed = command("vdi", "list", "-p", port)
        tree = command("vdi", "tree", "-p", port)

    problem = "damaged: VDI 9 bad: its inode says that it is VDI ffffffff"
    assert (listed.code, listed.out.decode().splitlines()[-1]) == (0, problem)
    assert [line.split()[0] for line in listed.out.decode().splitlines()[1:-1]] == ["vm", "vm2"]
    assert tree.out.decode().splitlines() == ["vm (working VDI)", "vm2 (working VDI)", problem]


def test_a_damaged_inode_is_listed_in_json(command: Command) -> None:
    with playing(Claims(bitmap_of([7, 8, 9]), one_absurd)) as port:
        listed = json.loads(command("vdi", "list", "--json", "-p", port).out)
        tree = json.loads(command("vdi", "tree", "--json", "-p", port).out)

    damaged = {"name": "bad", "vdi_id": "9", "kind": "damaged", "problem": "its inode says that it is VDI ffffffff"}
    assert [vdi["name"] for vdi in listed] == ["vm", "vm2", "bad"]
    assert listed[-1] == damaged
    assert tree[-1] == damaged | {"children": []}


def test_a_tree_of_damaged_vdis_alone_is_json(command: Command) -> None:
    with playing(Claims(bitmap_of([9, 10]), one_absurd)) as port:
        tree = json.loads(command("vdi", "tree", "--json", "-p", port).out)

    assert [vdi["vdi_id"] for vdi in tree] == ["9", "a"]


def test_a_vdi_whose_tree_of_owners_is_damaged_is_listed_as_such(command: Command) -> None:
    hyper = Inode("hyper", 9, OBJECT, store_policy=1, block_size_shift=20).pack().ljust(4664, b"\0") + b"\xff" * 8
    with playing(Claims(bitmap_of([7, 9]), lambda vdi_id: hyper if vdi_id == 9 else SOUND[0].pack())) as port:
        outcome = command("vdi", "list", "-p", port)

    assert outcome.code == 0
    assert outcome.out.decode().splitlines()[-1] == "damaged: VDI 9 hyper: expected B-tree magic 6274, got ffff"


def test_an_inode_that_cannot_be_read_is_listed_as_damaged(command: Command) -> None:
    with serving(disk_store(), "read_obj@2:error=EIO") as served:
        outcome = command("vdi", "tree", "-p", served.port)

    assert outcome.code == 0
    assert "failed: I/O error" in outcome.out.decode().splitlines()[-1]


@pytest.mark.parametrize("verb", ["list", "tree"])
def test_a_server_that_claims_all_ids_is_not_believed(command: Command, verb: str) -> None:
    claims = Claims(ALL_IDS, one_absurd)
    with playing(claims) as port:
        outcome = command("vdi", verb, "-p", port)

    assert outcome.code == 1
    assert "says that it has 16777215 VDIs and snapshots: expected at most 131072 to list" in outcome.err
    assert not claims.requests[Opcode.READ_OBJ]


def line_of(count: int) -> Claims:
    return Claims.of(
        Inode("vm", n, OBJECT, snap_id=n, parent_vdi_id=n - 1, snap_ctime=n << 32, block_size_shift=20)
        for n in range(1, count + 1)
    )


def test_a_deep_tree_is_drawn_in_narrow_lines(command: Command) -> None:
    with playing(line_of(1100)) as port:
        outcome = command("vdi", "tree", "-p", port)

    lines = outcome.out.decode().splitlines()
    assert (outcome.code, len(lines)) == (0, 1100)
    assert lines[2].startswith("   └─ vm 3 [")
    assert lines[-1].startswith("(1082 more) " + " " * 48 + "└─ vm 1100 [")


def test_a_deep_tree_is_json_of_that_depth(command: Command) -> None:
    with playing(line_of(1100)) as port:
        outcome = command("vdi", "tree", "--json", "-p", port)

    text = outcome.out.decode()
    assert (text.count('"children": ['), text.strip()[-2 * 1100 - 1 :]) == (1100, "]}" * 1100 + "]")
    # Python's own reader calls itself for each level, so it gets the last ones alone.
    assert json.loads(text[text.rindex('{"name"') :].rstrip().removesuffix("]}" * 1099 + "]"))["snap_id"] == 1100


def test_a_circle_of_parents_is_cut_and_shown(command: Command) -> None:
    circle = [replace(inode, parent_vdi_id=15 - inode.vdi_id) for inode in SOUND]
    with playing(Claims.of(circle)) as port:
        drawn = command("vdi", "tree", "-p", port)
        nested = json.loads(command("vdi", "tree", "--json", "-p", port).out)

    assert drawn.out.decode().splitlines() == [
        "vm (working VDI) (damaged: its parents lead back to it)",
        "└─ vm2 (working VDI)",
    ]
    assert [vdi["problem"] for vdi in nested] == ["its parents lead back to it"]
    assert [vdi["name"] for vdi in nested[0]["children"]] == ["vm2"]


def test_the_latest_times_there_can_be_are_shown(command: Command) -> None:
    latest = 0xFFFFFFFF << 32 | 999_999_999
    with playing(Claims.of([replace(SOUND[0], create_time=latest, snap_ctime=latest)])) as port:
        assert "2106-02-0" in command("vdi", "list", "-p", port).out.decode()
        assert "2106-02-0" in command("vdi", "tree", "-p", port).out.decode()


@pytest.mark.parametrize("verb", ["list", "tree"])
def test_a_stalled_node_is_given_up_in_the_time_that_is_said(command: Command, verb: str) -> None:
    with serving(disk_store(), "read_vdis@2+:stall", "get_vdi_info@1+:stall", "read_obj@1+:stall") as served:
        outcome = command("vdi", verb, "disk", "--timeout", "0.2", "-p", served.port)

    assert outcome.code == 2
    assert "within 0.2 s; check whether the node is stalled, or wait longer with --timeout" in outcome.err
