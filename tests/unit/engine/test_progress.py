from __future__ import annotations

from array import array

from asyncbackup import DeltaSummary, Dialect, Summary


def test_a_summary_is_plain_values_for_json() -> None:
    causes, missing = {"try again": 9}, array("I", [14, 15])
    counts = (1, 2, 3, 4, 5, 6, 7, 11, 10, 13)
    stages_s = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    also = [DeltaSummary("week", "mon", Dialect.DOG, 1, 2, 0, array("I", [3]))]
    summary = Summary(
        "vm", "b", None, Dialect.DOG, *counts, missing, also, 0.5, *stages_s, 8, 9, causes, 11, 12, {"50": 0.1}
    )

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
        "bytes_resumed": 11,
        "objects_discarded": 10,
        "bases_unreadable": 13,
        "missing": [14, 15],
        "also": [
            {
                "file": "week",
                "base": "mon",
                "dialect": "dog",
                "records": 1,
                "bytes_written": 2,
                "bytes_resumed": 0,
                "missing": [3],
            }
        ],
        "elapsed_s": 0.5,
        "plan_s": 0.1,
        "read_s": 0.2,
        "compare_s": 0.3,
        "digest_s": 0.4,
        "write_s": 0.5,
        "sync_s": 0.6,
        "requests": 8,
        "retries": 9,
        "retry_causes": {"try again": 9},
        "hedges": 11,
        "most_in_flight": 12,
        "latencies_s": {"50": 0.1},
        "piece": None,
    }
