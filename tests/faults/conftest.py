"""The workers of Dask that tests of faults share. Those of one file work for all its tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from asyncbackup.engine import pieces

if TYPE_CHECKING:
    from tests.dask_workers import DaskCluster


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    # It takes a second to import, and most tests need no workers.
    from tests.dask_workers import DaskCluster

    with DaskCluster(tmp_path_factory.mktemp("dask")) as running:
        yield running


@pytest.fixture
def dask(running: DaskCluster) -> DaskCluster:
    """The workers, all of them alive."""
    running.wait()
    return running


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut a backup into a piece for each object."""
    monkeypatch.setattr(pieces, "_LEAST_OBJECTS", 1)
    monkeypatch.setattr(pieces, "_MOST_OBJECTS", 1)
