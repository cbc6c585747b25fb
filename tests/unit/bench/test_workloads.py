from __future__ import annotations

import pytest

from asyncbackup.bench.workloads import OBJECT_SIZE, WORKLOADS, Workload

each = pytest.mark.parametrize("workload", WORKLOADS.values(), ids=lambda workload: workload.name)


@each
def test_a_workload_has_as_much_data_as_was_asked_for(workload: Workload) -> None:
    assert len(workload.existing(256)) * workload.object_size == 256 * OBJECT_SIZE


@each
def test_what_exists_lies_in_the_vdi_and_what_changed_exists(workload: Workload) -> None:
    existing = workload.existing(256)

    assert max(existing) < workload.vdi_size(256) // workload.object_size
    assert set(workload.changed(256)) <= set(existing)
    assert workload.changed_bytes <= workload.object_size


@each
def test_only_a_full_backup_has_nothing_changed(workload: Workload) -> None:
    assert bool(workload.changed(256)) == workload.is_increment


@each
def test_however_little_is_asked_for_there_is_something_to_read(workload: Workload) -> None:
    assert len(workload.changed(1) or workload.existing(1)) >= 1
