from __future__ import annotations

from typing import Any

import pytest

from asyncbackup import BackupOptions, Dialect, Summary

MIB = 1 << 20


@pytest.mark.parametrize("fields", [{"in_flight": 0}, {"memory": MIB - 1}])
def test_options_that_make_no_sense_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected at least"):
        BackupOptions(**fields)


@pytest.mark.parametrize(
    ("memory", "object_size", "piece_size"),
    [
        (128 * MIB, 4 * MIB, 4 * MIB),
        (128 * MIB, 1 * MIB, 1 * MIB),
        (128 * MIB, 64 * MIB, 4 * MIB),
        (16 * MIB, 4 * MIB, 4 * MIB),
        (15 * MIB, 4 * MIB, 2 * MIB),
        (1 * MIB, 4 * MIB, MIB // 4),
    ],
)
def test_objects_are_read_in_pieces_of_which_memory_holds_two_pairs(
    memory: int, object_size: int, piece_size: int
) -> None:
    assert BackupOptions(memory=memory).piece_size(object_size) == piece_size


@pytest.mark.parametrize(
    ("options", "slots"),
    [
        (BackupOptions(in_flight=16, memory=128 * MIB), 16),
        (BackupOptions(in_flight=16, memory=64 * MIB), 8),
        (BackupOptions(in_flight=1), 1),
    ],
)
def test_the_window_is_bounded_by_count_and_by_memory(options: BackupOptions, slots: int) -> None:
    assert options.slots(4 * MIB) == slots


@pytest.mark.parametrize("memory", [MIB, 3 * MIB, 15 * MIB, 100 * MIB])
@pytest.mark.parametrize("object_size", [MIB, 4 * MIB, 2048 * MIB])
def test_the_window_never_takes_more_than_its_memory(memory: int, object_size: int) -> None:
    options = BackupOptions(in_flight=1000, memory=memory)
    piece_size = options.piece_size(object_size)

    assert options.slots(piece_size) * 2 * piece_size <= memory


def test_a_summary_is_plain_values_for_json() -> None:
    summary = Summary("vm", "b", None, Dialect.DOG, 1, 2, 3, 4, 5, 6, 7, 10, 0.5, 8, 9)

    assert summary.as_dict() == {
        "vdi": "vm",
        "snapshot": "b",
        "base": None,
        "dialect": "dog",
        "objects_planned": 1,
        "objects_shared": 2,
        "objects_done": 3,
        "objects_read": 4,
        "bytes_read": 5,
        "records": 6,
        "bytes_written": 7,
        "objects_discarded": 10,
        "elapsed_s": 0.5,
        "requests": 8,
        "retries": 9,
    }
