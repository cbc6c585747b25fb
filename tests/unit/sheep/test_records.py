from __future__ import annotations

import pytest

from asyncbackup.sheep import records
from asyncbackup.sheep.membership import Epoch
from asyncbackup.sheep.records import VdiState
from asyncbackup.wire import messages
from asyncbackup.wire.constants import EPOCH_LOG_SIZES, VDI_STATE_SIZE
from asyncbackup.wire.nodes import MAX_NODES, NODE_ENTRY_SIZE, Node, unpack_nodes

NODE = Node("10.1.2.3", 7000, vnodes=64, zone=9, space=1 << 40)
EARLIER = Epoch(1, 1_795_377_600, (NODE, Node("10.1.2.4", 7000, vnodes=64, zone=8)))
EPOCH = Epoch(2, 1_795_377_700, (NODE,))
CTIME = 1_795_377_600 << 32 | 123_456_000


@pytest.mark.parametrize(("version", "size"), [(0x05, 24), (0x06, 32), (0x07, 56), (0x08, 56), (0x0A, NODE_ENTRY_SIZE)])
def test_a_node_is_as_long_as_its_release_has_it_and_says_where_it_listens(version: int, size: int) -> None:
    entry = records.pack_node_list(version, [NODE])

    assert len(entry) == size
    assert entry.count(bytes([10, 1, 2, 3])) == 1
    assert entry.count((7000).to_bytes(2, "little")) == 1


def test_a_node_of_1_0_is_what_a_client_reads() -> None:
    assert unpack_nodes(memoryview(records.pack_node_list(0x0A, [NODE]))) == [NODE]


def test_the_state_of_a_vdi_says_that_nobody_has_locked_it() -> None:
    state = VdiState(0xABCDEF, 2, 0, 22)

    entry = state.pack_for(0x0A)

    assert len(entry) == VDI_STATE_SIZE
    assert messages.find_lock(memoryview(entry), 0xABCDEF) is False


def test_releases_before_0_8_know_of_a_vdi_its_copies_alone() -> None:
    assert VdiState(0xABCDEF, 2, 0, 22).pack_for(0x07) == bytes.fromhex("efcdab0002000000")


@pytest.mark.parametrize("version", [0x05, 0x06, 0x07, 0x08])
def test_the_log_of_epochs_begins_with_the_time_of_formatting(version: int) -> None:
    log = records.pack_epoch_log_for(version, CTIME, 2, [EARLIER, EPOCH])

    assert len(log) == 2 * EPOCH_LOG_SIZES[version]
    assert messages.unpack_format_time(memoryview(log)) == CTIME


@pytest.mark.parametrize("room", [0, 1, 5])
def test_the_log_of_epochs_has_the_room_that_a_client_of_1_0_asks_for(room: int) -> None:
    log = records.pack_epoch_log(CTIME, 2, [EPOCH], room)

    without = len(records.pack_epoch_log(CTIME, 2, [EPOCH], 0))
    assert len(log) == without + room * NODE_ENTRY_SIZE
    assert messages.unpack_format_time(memoryview(log)) == CTIME
    assert log[without:].rstrip(b"\0") == (records.pack_node_list(0x0A, [NODE]).rstrip(b"\0") if room else b"")


def test_the_log_of_epochs_begins_with_the_newest() -> None:
    log = records.pack_epoch_log(CTIME, 2, [EARLIER, EPOCH], 5)

    size = len(log) // 2
    assert [int.from_bytes(log[start + 16 : start + 20], "little") for start in (0, size)] == [2, 1]
    assert [int.from_bytes(log[start + 20 : start + 24], "little") for start in (0, size)] == [1, 2]


def test_the_state_of_the_cluster_has_room_for_all_nodes_there_can_be() -> None:
    info = records.pack_cluster_info(0x0A, CTIME, 2, 22, EPOCH)

    assert info.count(CTIME.to_bytes(8, "little")) == 1
    assert unpack_nodes(memoryview(info)[-MAX_NODES * NODE_ENTRY_SIZE :][:NODE_ENTRY_SIZE]) == [NODE]


def test_what_a_cluster_makes_of_a_new_vdi() -> None:
    assert records.pack_cluster_default(2, 22) == bytes([2, 0, 22, *bytes(25)])
