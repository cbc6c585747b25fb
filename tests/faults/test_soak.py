from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak import ROUNDS, soak

pytestmark = pytest.mark.slow


async def test_a_cluster_is_soaked_and_nothing_is_left(tmp_path: Path) -> None:
    counts = await soak(float("inf"), 3, tmp_path, clusters=2)

    assert counts["backups"] == 2 * ROUNDS
    assert counts["restores"] > 0
    assert counts["nodes killed and started again"] > 0
